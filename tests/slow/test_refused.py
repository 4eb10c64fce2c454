"""Count the refused requests for the table: every address with every path, and every invented upload.

`tests/security/test_attacks.py` checks each answer; here they are sent again, many at a time.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tests.security.requests import CLOSED, CLOSED_POSTS, DOORS, PATHS
from tests.security.site import Site, harmless, site  # noqa: F401


def test_requests_refused(site: Site, record: Callable[[str, float, str], None]) -> None:  # noqa: F811
    asked = [("GET", door + site.trick(path), None) for door, path in itertools.product(DOORS, PATHS)]
    asked += [("GET", place, None) for place in CLOSED]
    asked += [("POST", place, {"data": [{"path": site.trick(path)}]}) for place in CLOSED_POSTS for path in PATHS]

    def send(one: tuple[str, str, object]) -> tuple[int, bytes]:
        return replace(site).send(*one)  # a copy, because a site stores the headers of its last answer

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, asked))
    got = [one for one, (status, reply) in zip(asked, answers, strict=True) if status < 400 or not harmless(reply)]
    assert got == [] and site.canary.asked == []
    record("attacks on the shared page: refused", len(asked), f"of {len(asked)} requests")
