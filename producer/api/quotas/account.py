"""What a client has used of its limits: two leaky buckets, and the rows of a day.

Pure: integers in, integers out, all times are microseconds since the epoch. `script.lua` is the
same for Redis, and tests hold the two together. A bucket (ITU-T I.371, 1996, annex A) is kept as
the time it takes until what was used has leaked away, so that a clock that is set back costs
nothing but the time it was set back by.
"""

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

from producer.api.client import Limits

SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND
BURST_SECONDS: Final = 10
LARGEST_REQUEST: Final = 1_000
"""Rows that one request may bring: a client that was idle may always make one."""

LONGEST: Final = DAY
"""No debt takes longer than that to be paid, whatever was uploaded."""

Owed: TypeAlias = int
"""Microseconds until a bucket has leaked empty."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A limit of so many a second, of which `size` may come at once; a `rate` of 0 is no limit."""

    rate: float
    size: int

    @property
    def depth(self) -> Owed:
        """What a full bucket owes."""
        return self.cost(self.size)

    def cost(self, amount: int) -> Owed:
        """What so many add."""
        return math.ceil(amount * SECOND / self.rate) if self.rate else 0

    def left(self, owed: Owed) -> int:
        """How many may still come at once."""
        room = self.depth - owed
        if room <= 0:
            return 0
        about = math.floor(room * self.rate / SECOND)  # costs are rounded up
        return next(each for each in (about + 1, about, about - 1) if self.cost(each) <= room)


def requests_bucket(limits: Limits) -> Bucket:
    """The bucket of requests."""
    rate = limits.requests_per_second
    return Bucket(rate, max(1, math.ceil(rate * BURST_SECONDS)))


def rows_bucket(limits: Limits) -> Bucket:
    """The bucket of rows."""
    rate = limits.rows_per_second
    return Bucket(rate, max(LARGEST_REQUEST, math.ceil(rate * BURST_SECONDS)))


@dataclass(frozen=True, slots=True)
class Charge:
    """What is to be taken. Costs and depths are those of buckets, `rows_today` is rows of the day.

    What is 0 is not looked at: there is no such limit, or nothing of it is wanted.
    """

    requests: Owed
    requests_depth: Owed
    rows: Owed
    rows_depth: Owed
    rows_today: int
    rows_per_day: int


def charge(limits: Limits, requests: int, rows: int) -> Charge:
    """What so many requests and rows come to."""
    of_requests, of_rows = requests_bucket(limits), rows_bucket(limits)
    return Charge(
        requests=of_requests.cost(requests),
        requests_depth=of_requests.depth,
        rows=of_rows.cost(rows),
        rows_depth=of_rows.depth,
        rows_today=rows if limits.rows_per_day else 0,
        rows_per_day=limits.rows_per_day,
    )


@dataclass(slots=True)
class Account:
    """The state of one client at the time `at`: what its buckets owe, and its rows of `day`."""

    at: int = 0
    requests: Owed = 0
    rows: Owed = 0
    day: int = 0
    """Days since the epoch."""

    rows_today: int = 0

    def take(self, wanted: Charge, now: int, *, force: bool = False) -> bool:
        """Take all of it, or nothing; whether it was taken. With `force` it is in any case."""
        self._advance(now)
        fits = (
            _fits(self.requests, wanted.requests, wanted.requests_depth)
            and _fits(self.rows, wanted.rows, wanted.rows_depth)
            and (
                not wanted.rows_today or self.rows_today + wanted.rows_today <= wanted.rows_per_day
            )
        )
        if fits or force:
            self.requests = _add(self.requests, wanted.requests, wanted.requests_depth)
            self.rows = _add(self.rows, wanted.rows, wanted.rows_depth)
            self.rows_today += wanted.rows_today
        return fits

    def give_back(self, taken: Charge, now: int) -> None:
        """Undo what was taken, as far as it has not leaked away, and is of this day."""
        self._advance(now)
        self.requests = max(0, self.requests - taken.requests)
        self.rows = max(0, self.rows - taken.rows)
        self.rows_today = max(0, self.rows_today - taken.rows_today)

    def _advance(self, now: int) -> None:
        passed = max(0, now - self.at)
        self.requests = max(0, self.requests - passed)
        self.rows = max(0, self.rows - passed)
        if self.day != now // DAY:
            self.day, self.rows_today = now // DAY, 0
        self.at = now


def wait(owed: Owed, cost: Owed, depth: Owed) -> Owed:
    """How long until that much fits, 0 for now.

    What is more than a whole bucket fits where there is no debt, and makes one.
    """
    return max(0, owed + (cost if cost <= depth else 0) - depth)


def _fits(owed: Owed, cost: Owed, depth: Owed) -> bool:
    return cost == 0 or wait(owed, cost, depth) == 0


def _add(owed: Owed, cost: Owed, depth: Owed) -> Owed:
    # Never less than before, as where a limit was made smaller.
    return max(owed, min(owed + cost, depth + LONGEST))
