"""The tabs of the page by name, in their order. Each module has the functions that the tab's script calls.

A new tab NAME needs:

- tabs/NAME.py, which defines `handlers`, and its entry below
- static/NAME.html: its HTML, then its script in `<script>`
- its words in every file of languages/, among them its title `tab_NAME`
"""

from . import compare, describe, library, map, search

TABS = {
    "search": search.handlers,
    "describe": describe.handlers,
    "map": map.handlers,
    "library": library.handlers,
    "compare": compare.handlers,
}
LOCAL_TABS = ("library", "compare")  # they open folders of this machine, so a public page does not have them
