"""The public link: a generated login, and Gradio's tunnel."""

from secrets import token_urlsafe
from typing import Any


def generated_login() -> tuple[str, str]:
    """A user and a password of 72 random bits."""
    return "guest", token_urlsafe(9)


def share(page: Any, host: str) -> str:
    """Open Gradio's tunnel to a running page. Returns one line: the public address, or why there is none.

    `launch(share=True)` is not used: it makes every browser, even a local one, load Gradio's scripts from another
    server, and prints a page of advice where the tunnel fails.
    """
    from gradio import networking

    try:
        address = networking.setup_tunnel(host, page.server_port, page.share_token, None, None)
    except Exception as error:  # no network, a firewall, a damaged download: the consequence is the same
        reason = str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__
        return f"no public link: {reason}; the page stays at http://{host}:{page.server_port}"
    return f"public link: {address} (for at most a week, as long as this runs)"
