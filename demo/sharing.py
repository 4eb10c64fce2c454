"""The public link: a login that is made up where none was given, and Gradio's tunnel."""

from secrets import token_urlsafe
from typing import Any


def generated_login() -> tuple[str, str]:
    """A user and a password that nobody guesses: 72 random bits."""
    return "guest", token_urlsafe(9)


def share(page: Any, host: str) -> str:
    """Open Gradio's tunnel to a running page; says the public address, or that there is none.

    Not by `launch(share=True)`: that makes every visitor's browser, the local one too, load Gradio's scripts from a
    server elsewhere, and prints a page of advice where the tunnel cannot be had.
    """
    from gradio import networking

    try:
        address = networking.setup_tunnel(host, page.server_port, page.share_token, None, None)
    except Exception as error:  # no network, blocked, a damaged download: each means the same to a user
        reason = str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__
        return f"no public link: {reason}; the page stays at http://{host}:{page.server_port}"
    return f"public link: {address} (for at most a week, as long as this runs)"
