"""The attacked page, for the tests of this folder."""

from tests.security.site import site

__all__ = ["site"]
