"""How often a login may be tried, per address and in total.

In: addresses. Out: the seconds that an address must wait. Attempts are refilled over time (token bucket), so no user is
locked out permanently. An address that has logged in before is exempt from the total.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

ATTEMPTS, REFILL_S = 5, 30.0  # per address: the bucket's size, and the seconds that refill one attempt
TOTAL_ATTEMPTS, TOTAL_REFILL_S = 60, 1.0  # of all unknown addresses together
MAX_ADDRESSES = 1000  # kept in memory; older ones are forgotten, but the total still limits them


@dataclass
class Bucket:
    """Attempts that are refilled over time. `left` is their number at the time `updated_s`."""

    size: int
    refill_s: float
    left: float
    updated_s: float

    def wait_s(self, now_s: float) -> float:
        self.left = min(self.size, self.left + (now_s - self.updated_s) / self.refill_s)
        self.updated_s = now_s
        return max(0.0, (1 - self.left) * self.refill_s)


class LoginLimit:
    """Counts an attempt before its password is checked, so that parallel guesses gain nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._total = Bucket(TOTAL_ATTEMPTS, TOTAL_REFILL_S, TOTAL_ATTEMPTS, clock())
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._known: OrderedDict[str, None] = OrderedDict()  # addresses that have logged in

    def take(self, address: str) -> float:
        """Take one attempt. Returns 0.0, or the seconds until the next attempt if none is left."""
        now_s = self._clock()
        own = self._buckets.setdefault(address, Bucket(ATTEMPTS, REFILL_S, ATTEMPTS, now_s))
        _forget_oldest(self._buckets)
        buckets = [own] if address in self._known else [own, self._total]
        wait_s = max(bucket.wait_s(now_s) for bucket in buckets)
        if not wait_s:
            for bucket in buckets:
                bucket.left -= 1
        return wait_s

    def succeeded(self, address: str) -> None:
        """Refund the attempt and exempt this address from the total."""
        self._buckets.pop(address, None)
        if address not in self._known:
            self._total.left += 1
        self._known[address] = None
        _forget_oldest(self._known)


def _forget_oldest(addresses: OrderedDict) -> None:
    if len(addresses) > MAX_ADDRESSES:
        addresses.popitem(last=False)
