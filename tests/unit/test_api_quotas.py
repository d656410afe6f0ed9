"""Quotas of one process: by a naive model, by what must hold, and what clients are told."""

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from producer.api.client import Client, Limits
from producer.api.quotas import LocalQuotas, Verdict, limit_headers, open_quotas
from producer.api.quotas.account import LONGEST, SECOND
from tests.api_clients import EPOCH, Clock, a_client

DAY = 86_400


class Asking:
    """Quotas, a clock, and one client of them."""

    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.quotas = LocalQuotas(self.clock)
        self.client = a_client(**limits)

    def take(self, requests: int = 1, rows: int = 0) -> Verdict:
        return asyncio.run(self.quotas.take(self.client, requests, rows))

    def give_back(self, rows: int) -> None:
        asyncio.run(self.quotas.give_back(self.client, rows))


@dataclass
class NaiveBucket:
    """Holds what was taken, and leaks `rate` a second, exactly."""

    rate: Fraction
    size: int
    level: Fraction = Fraction(0)

    def pass_time(self, microseconds: int) -> None:
        self.level = max(Fraction(0), self.level - self.rate * Fraction(microseconds, SECOND))

    def fits(self, amount: int) -> bool:
        if not (self.rate and amount):
            return True
        if amount > self.size:
            return self.level <= self.size
        return self.level + amount <= self.size

    def add(self, amount: int) -> None:
        most = self.size + self.rate * Fraction(LONGEST, SECOND)
        self.level = max(self.level, min(self.level + amount, most))


@dataclass
class NaiveQuotas:
    """What a client's quotas are to do, with no regard to how they are kept."""

    limits: Limits
    now: int = round(EPOCH * SECOND)
    taken: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        requests, rows = self.limits.requests_per_second, self.limits.rows_per_second
        self.requests = NaiveBucket(Fraction(requests), max(1, math.ceil(10 * requests)))
        self.rows = NaiveBucket(Fraction(rows), max(1000, round(10 * rows)))

    def take(self, requests: int, rows: int) -> bool:
        day, most = self.now // (DAY * SECOND), self.limits.rows_per_day
        fits = self.requests.fits(requests) and self.rows.fits(rows)
        if not fits or (most and rows and self.taken[day] + rows > most):
            return False
        self.requests.add(requests)
        self.rows.add(rows)
        self.taken[day] += rows
        return True

    def give_back(self, rows: int) -> None:
        day = self.now // (DAY * SECOND)
        self.rows.level = max(Fraction(0), self.rows.level - rows)
        self.taken[day] = max(0, self.taken[day] - rows)

    def pass_time(self, microseconds: int) -> None:
        self.now += microseconds
        self.requests.pass_time(microseconds)
        self.rows.pass_time(microseconds)


# Rates with whole microseconds between two, for which the naive model is exact.
rates = st.sampled_from([0.0, 0.25, 0.5, 1.0, 4.0, 40.0, 100.0, 250.0, 1_000.0, 1_000_000.0])
steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "give back"]),
        st.integers(0, 12),
        st.integers(0, 30) | st.sampled_from([500, 999, 1_000, 1_001, 5_000, 1_000_000]),
        st.sampled_from([0, 1, 999_999, SECOND, 10 * SECOND, 100 * SECOND, DAY * SECOND])
        | st.integers(0, 20 * SECOND),
    ),
    max_size=40,
)


@hypothesis_settings(deadline=None, max_examples=300)
@given(steps, rates, rates, st.sampled_from([0, 50, 1_000, 2_000_000]))
def test_clients_get_what_a_naive_model_gives_them(steps, requests_rate, rows_rate, per_day):
    limits = Limits(requests_rate, rows_rate, per_day)
    model, clock = NaiveQuotas(limits), Clock()
    client, quotas = Client("acme", "k", limits), LocalQuotas(clock)

    async def compare() -> None:
        for what, requests, rows, passed in steps:
            model.pass_time(passed)
            clock.now = model.now / SECOND
            if what == "give back":
                model.give_back(rows)
                await quotas.give_back(client, rows)
            else:
                verdict = await quotas.take(client, requests, rows)
                assert verdict.allowed is model.take(requests, rows)

    asyncio.run(compare())


any_rate = st.floats(0.001, 1e6) | st.integers(1, 5_000).map(float)


@hypothesis_settings(deadline=None, max_examples=300)
@given(
    any_rate, st.lists(st.tuples(st.integers(1, 3_000), st.floats(0, 100)), min_size=1, max_size=30)
)
def test_in_no_stretch_of_time_is_more_taken_than_rate_burst_and_one_upload(rate, uploads):
    asking = Asking(rows_per_second=rate)
    burst = max(1_000, 10 * rate + 1)
    taken = []
    for rows, passed in uploads:
        asking.clock.now += passed
        if asking.take(1, rows).allowed:
            taken.append((asking.clock.now, rows))
    for number, (start, _) in enumerate(taken):
        total = 0
        for when, rows in taken[number:]:
            total += rows
            largest = rows if rows > burst else 0
            assert total <= burst + rate * (when - start) * 1.001 + largest + 1


@hypothesis_settings(deadline=None, max_examples=300)
@given(any_rate, st.lists(st.integers(1, 3_000), max_size=5), st.integers(1, 3_000))
def test_who_waits_as_long_as_was_said_is_let_in_and_not_a_second_sooner(rate, before, rows):
    asking = Asking(rows_per_second=rate)
    for each in before:
        asking.take(0, each)
    verdict = asking.take(0, rows)
    if verdict.allowed:
        assert verdict.retry_after == 0
        return
    assert verdict.which == "rows"
    assert verdict.retry_after is not None
    assert verdict.retry_after > 0
    start = asking.clock.now
    # Not the last second, which is a part of one.
    asking.clock.now = start + verdict.retry_after - 1.001
    assert not asking.take(0, rows).allowed
    asking.clock.now = start + verdict.retry_after + 0.000_001
    assert asking.take(0, rows).allowed


@hypothesis_settings(deadline=None, max_examples=300)
@given(any_rate, st.integers(1, 1_000))
def test_what_is_said_to_remain_can_be_taken_and_no_more(rate, rows):
    one, other = Asking(rows_per_second=rate), Asking(rows_per_second=rate)
    remaining = one.take(0, rows).remaining
    assert other.take(0, rows).remaining == remaining
    assert remaining is not None
    assert remaining == 0 or one.take(0, remaining).allowed
    assert not other.take(0, remaining + 1).allowed


def test_nobody_is_limited_who_has_no_limits():
    asking = Asking()
    verdicts = [asking.take(100, 10**9) for _ in range(5)]
    assert set(verdicts) == {Verdict(allowed=True)}
    assert limit_headers(verdicts[0]) == {}


def test_requests_come_in_a_burst_of_ten_seconds_and_then_at_their_rate():
    asking = Asking(requests_per_second=2.0)
    assert [asking.take().allowed for _ in range(21)] == [True] * 20 + [False]
    asking.clock.now += 0.5
    assert [asking.take().allowed for _ in range(2)] == [True, False]


def test_a_rare_request_is_let_in_though_its_rate_is_less_than_one_in_ten_seconds():
    asking = Asking(requests_per_second=0.01)
    assert asking.take().allowed
    assert asking.take().retry_after == 100


def test_one_large_request_is_let_in_however_small_the_rate():
    asking = Asking(rows_per_second=1.0)
    assert asking.take(1, 1_000).allowed
    assert asking.take(1, 1_000).retry_after == 1_000


def test_an_upload_of_more_than_the_burst_is_taken_into_debt_and_then_waited_for():
    asking = Asking(rows_per_second=100.0)
    assert asking.take(1, 500).allowed
    assert asking.take(1, 30_000).allowed
    # 30,500 rows were taken, of which 1,000 may be at once.
    assert asking.take(1, 50_000).retry_after == 295
    assert asking.take(1, 100).retry_after == 296
    asking.clock.now += 294
    assert not asking.take(1, 50_000).allowed
    asking.clock.now += 1
    assert asking.take(1, 50_000).allowed


def test_no_debt_takes_longer_than_a_day():
    asking = Asking(rows_per_second=1.0)
    assert asking.take(1, 100_000_000).allowed
    asking.clock.now += DAY + 1
    assert asking.take(1, 1).allowed


def test_a_request_without_rows_is_let_in_while_rows_are_in_debt():
    asking = Asking(requests_per_second=1.0, rows_per_second=100.0, rows_per_day=5_000)
    assert asking.take(1, 5_000).allowed
    assert asking.take(1, 0).allowed
    assert not asking.take(1, 1).allowed


def test_what_is_refused_costs_nothing():
    asking = Asking(requests_per_second=1.0, rows_per_day=10)
    for _ in range(50):
        assert not asking.take(1, 11).allowed
    assert [asking.take().allowed for _ in range(11)] == [True] * 10 + [False]
    assert not asking.take(1, 1).allowed
    asking.clock.now += 1
    assert asking.take(1, 10).allowed


def test_rows_of_a_day_begin_anew_at_midnight_utc():
    asking = Asking(rows_per_day=100)
    asking.clock.now = 20_000 * DAY + DAY - 30
    assert asking.take(1, 100).allowed
    refused = asking.take(1, 1)
    assert (refused.allowed, refused.which, refused.retry_after) == (False, "rows-per-day", 30)
    asking.clock.now += 29.9
    assert not asking.take(1, 1).allowed
    asking.clock.now += 0.1
    assert asking.take(1, 100).allowed


def test_more_rows_than_those_of_a_day_are_refused_for_good():
    asking = Asking(rows_per_day=100)
    refused = asking.take(1, 101)
    assert (refused.allowed, refused.which, refused.retry_after) == (False, "rows-per-day", None)
    assert "Retry-After" not in limit_headers(refused)
    assert asking.take(1, 100).allowed


def test_of_several_limits_that_refuse_the_one_that_takes_longest_is_named():
    asking = Asking(requests_per_second=1.0, rows_per_second=100.0)
    assert asking.take(10, 1_000).allowed
    refused = asking.take(1, 500)
    assert (refused.which, refused.retry_after) == ("rows", 5)
    refused = asking.take(8, 1)
    assert (refused.which, refused.retry_after) == ("requests", 8)


def test_rows_that_were_given_back_can_be_taken_again():
    asking = Asking(rows_per_second=1.0, rows_per_day=1_000)
    assert asking.take(1, 1_000).allowed
    asking.give_back(400)
    assert not asking.take(1, 401).allowed
    assert asking.take(1, 400).allowed


def test_what_is_given_back_makes_nobody_richer():
    asking = Asking(rows_per_second=1.0, rows_per_day=1_500)
    assert asking.take(1, 100).allowed
    asking.give_back(1_000_000)
    assert asking.take(1, 1_000).allowed
    assert not asking.take(1, 1).allowed


def test_all_keys_of_a_client_share_its_quotas_and_no_other_client_does():
    quotas, limits = LocalQuotas(Clock()), Limits(rows_per_day=10)

    async def take(name: str, key: str) -> bool:
        return (await quotas.take(Client(name, key, limits), 1, 10)).allowed

    assert asyncio.run(take("acme", "one"))
    assert not asyncio.run(take("acme", "two"))
    assert asyncio.run(take("zeta", "one"))


def test_limits_that_were_changed_hold_at_once():
    quotas = LocalQuotas(Clock())

    async def take(rows: int, per_day: int) -> bool:
        client = Client("acme", "k", Limits(rows_per_day=per_day))
        return (await quotas.take(client, 1, rows)).allowed

    assert asyncio.run(take(100, 100))
    assert not asyncio.run(take(1, 100))
    assert asyncio.run(take(1, 101))


def test_a_clock_that_is_set_back_refuses_nobody_for_long():
    asking = Asking(requests_per_second=1.0)
    assert asking.take(10).allowed
    asking.clock.now -= 3_600
    assert asking.take().retry_after == 1
    asking.clock.now += 1
    assert asking.take().allowed


def test_headers_say_what_is_left_and_when_to_come_again():
    asking = Asking(requests_per_second=2.0, rows_per_second=100.0, rows_per_day=5_000)
    asking.clock.now = 20_000 * DAY + 1_000
    assert limit_headers(asking.take(1, 990)) == {
        "RateLimit-Policy": (
            '"requests";q=20;w=10, "rows";q=1000;qu="rows";w=10, '
            '"rows-per-day";q=5000;qu="rows";w=86400'
        ),
        "RateLimit": '"requests";r=19;t=1, "rows";r=10;t=10, "rows-per-day";r=4010;t=85400',
    }
    headers = limit_headers(asking.take(1, 100))
    assert headers["Retry-After"] == "1"
    assert '"rows";r=10;' in headers["RateLimit"]


def test_a_verdict_that_allows_names_the_limit_that_is_nearest():
    asking = Asking(requests_per_second=1.0, rows_per_second=100.0)
    verdict = asking.take(1, 990)
    assert (verdict.which, verdict.limit, verdict.remaining) == ("rows", 1_000, 10)
    verdict = asking.take(9, 0)
    assert (verdict.which, verdict.limit, verdict.remaining) == ("requests", 10, 0)


@pytest.mark.parametrize("limits", [{}, {"requests_per_second": 1.0}])
def test_without_a_redis_quotas_are_this_processs_own(limits):
    async def take() -> bool:
        quotas = open_quotas(None, 0.05)
        verdict = await quotas.take(a_client(**limits))
        await quotas.close()
        return verdict.allowed

    assert asyncio.run(take())
