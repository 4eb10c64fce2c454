"""How often a login may be tried: by one address, and by all strangers together.

In: addresses. Out: the seconds that an address has to wait. Tries come back with time, so nobody is locked out for
good, and who guesses uses up their own tries, not those of an address that has logged in.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

TRIES, TRY_EVERY_S = 5, 30.0  # of one address: so many at once, then one each so often
TRIES_OF_ALL, TRY_OF_ALL_EVERY_S = 60, 1.0  # whoever has many addresses, or makes them up, meets this
MAX_ADDRESSES = 10_000


@dataclass
class Attempts:
    """What is left of a number of tries that comes back with time."""

    most: int
    every_s: float
    left: float
    at_s: float

    def wait_s(self, now_s: float) -> float:
        self.left = min(self.most, self.left + (now_s - self.at_s) / self.every_s)
        self.at_s = now_s
        return max(0.0, (1 - self.left) * self.every_s)


class LoginLimit:
    """Counts every try as a wrong one until it is known to be right, so that many at once gain nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = Attempts(TRIES_OF_ALL, TRY_OF_ALL_EVERY_S, TRIES_OF_ALL, clock())
        self._of: dict[str, Attempts] = {}
        self._known: dict[str, None] = {}  # in the order of their logins

    def take(self, address: str) -> float:
        """Take one try; 0.0, or the seconds until there is one."""
        now_s = self._clock()
        if len(self._of) >= MAX_ADDRESSES:
            self._of = {name: tries for name, tries in self._of.items() if tries.wait_s(now_s) or tries.left < TRIES}
        own = self._of.setdefault(address, Attempts(TRIES, TRY_EVERY_S, TRIES, now_s))
        counted = [own] if address in self._known else [own, self._all]
        wait_s = max(tries.wait_s(now_s) for tries in counted)
        if not wait_s:
            for tries in counted:
                tries.left -= 1
        return wait_s

    def was_right(self, address: str) -> None:
        """The try that was taken is given back, and the others who guess no longer matter to this address."""
        self._of.pop(address, None)
        if address not in self._known:
            self._all.left += 1
        self._known[address] = None
        while len(self._known) > MAX_ADDRESSES:
            del self._known[next(iter(self._known))]
