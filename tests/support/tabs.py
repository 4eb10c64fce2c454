"""The tabs of the page in a browser, and the requests of their scripts."""

from typing import Any


def go(tab: Any, name: str) -> None:
    tab.get_by_role("tab", name=name).click()


def asks_for(sent: Any, function: str) -> bool:
    return sent.url.endswith("/component_server/") and sent.post_data_json["fn_name"] == function
