"""Wrong logins are slowed down, by address and in total, and no user is locked out for ever."""

from collections.abc import Callable

import pytest

from demo.login_limit import ATTEMPTS, MAX_ADDRESSES, REFILL_S, TOTAL_ATTEMPTS, LoginLimit


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock: Callable[[], float]) -> LoginLimit:
    return LoginLimit(clock)


def test_an_address_has_five_tries_and_then_one_each_half_minute(limit: LoginLimit, clock: Clock) -> None:
    assert [limit.take("a") for _ in range(ATTEMPTS)] == [0] * ATTEMPTS
    assert limit.take("a") == pytest.approx(REFILL_S)
    clock.now_s += REFILL_S - 1
    assert limit.take("a") == pytest.approx(1)
    clock.now_s += 1.001
    assert limit.take("a") == 0
    assert limit.take("a") > 0
    clock.now_s += 3600
    assert [limit.take("a") for _ in range(ATTEMPTS)] == [0] * ATTEMPTS


def test_one_address_does_not_use_up_the_tries_of_another(limit: LoginLimit) -> None:
    for _ in range(100):
        limit.take("guesses")
    assert limit.take("another") == 0


def test_correct_logins_use_up_no_tries(limit: LoginLimit) -> None:
    for _ in range(10 * TOTAL_ATTEMPTS):
        assert limit.take("a") == 0
        limit.succeeded("a")


def test_many_addresses_are_limited_together_but_not_one_that_succeeded_before(limit: LoginLimit, clock: Clock) -> None:
    assert limit.take("owner") == 0
    limit.succeeded("owner")
    admitted = sum(limit.take(f"made up {number}") == 0 for number in range(1000))
    assert admitted == TOTAL_ATTEMPTS
    assert limit.take("new") > 0
    assert limit.take("owner") == 0
    clock.now_s += 1.001
    assert limit.take("new") == 0


def test_memory_is_bounded(limit: LoginLimit, clock: Clock) -> None:
    for number in range(3 * MAX_ADDRESSES):
        clock.now_s += 1.0
        limit.take(str(number))
    assert len(limit._buckets) <= MAX_ADDRESSES
