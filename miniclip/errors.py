"""The errors that a user can fix."""


class MiniClipError(Exception):
    """Something the user can mend. Its message is one line: what is wrong, and what to do about it."""
