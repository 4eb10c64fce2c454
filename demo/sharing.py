"""The public link: a generated login, and Gradio's tunnel."""

from secrets import token_urlsafe
from typing import Any


def generated_login() -> tuple[str, str]:
    """A user and a password of 72 random bits."""
    return "guest", token_urlsafe(9)


def share(page: Any, host: str) -> str:
    """Open Gradio's tunnel to a running page. Returns one line: the public address, or why there is none.

    Gradio's `launch(share=True)` would make every browser, even a local one, load scripts from another server, and
    would print a page of advice if the tunnel fails.
    """
    from gradio import networking

    try:
        address = networking.setup_tunnel(host, page.server_port, page.share_token, None, None)
    except Exception as error:  # such as no network, a firewall or a damaged download
        reason = str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__
        return f"no public link: {reason}; the page stays at http://{host}:{page.server_port}"
    return f"public link: {address} (for at most a week, as long as this runs)"
