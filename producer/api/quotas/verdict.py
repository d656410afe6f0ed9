"""What is said to a client of its limits: whether it may, when it may, and how much is left.

Pure.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from producer.api.client import Limits
from producer.api.quotas.account import (
    DAY,
    SECOND,
    Account,
    Bucket,
    Charge,
    requests_bucket,
    rows_bucket,
    wait,
)

LimitName: TypeAlias = Literal["requests", "rows", "rows-per-day"]
_DAY_SECONDS: Final = DAY // SECOND


@dataclass(frozen=True, slots=True)
class Standing:
    """How a client stands with one of its limits: `remaining` of `limit` in `window` seconds.

    A limit per second is that of a bucket: `limit` is what may come at once, `window` the time in
    which that comes back. All of it is back in `reset` seconds.
    """

    name: LimitName
    limit: int
    window: int
    remaining: int
    reset: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a client may. `which` limit refuses, or is nearest; None where there is none.

    `retry_after` is whole seconds until it may, 0 if it may now, and None if it never may, since
    the rows are more than those of a whole day.
    """

    allowed: bool
    retry_after: int | None = 0
    which: LimitName | None = None
    standings: tuple[Standing, ...] = ()

    @property
    def limit(self) -> int | None:
        """Of the limit `which`."""
        found = self._decisive
        return None if found is None else found.limit

    @property
    def remaining(self) -> int | None:
        """Of the limit `which`."""
        found = self._decisive
        return None if found is None else found.remaining

    @property
    def _decisive(self) -> Standing | None:
        return next((each for each in self.standings if each.name == self.which), None)


def judge(limits: Limits, wanted: Charge, account: Account, *, allowed: bool) -> Verdict:
    """The verdict on a charge that was taken from an account, or was not."""
    standings = tuple(_standings(limits, account))
    if allowed:
        nearest = min(standings, key=lambda each: each.remaining / each.limit, default=None)
        return Verdict(True, 0, None if nearest is None else nearest.name, standings)
    waits = dict(_waits(wanted, account))
    if any(seconds is None for seconds in waits.values()):
        return Verdict(False, None, "rows-per-day", standings)
    which, seconds = max(waits.items(), key=lambda each: each[1] or 0)
    return Verdict(False, seconds, which, standings)


def _standings(limits: Limits, account: Account) -> Iterator[Standing]:
    if limits.requests_per_second:
        yield _of_bucket("requests", requests_bucket(limits), account.requests)
    if limits.rows_per_second:
        yield _of_bucket("rows", rows_bucket(limits), account.rows)
    if limits.rows_per_day:
        left = max(0, limits.rows_per_day - account.rows_today)
        reset = _seconds(DAY - account.at % DAY)
        yield Standing("rows-per-day", limits.rows_per_day, _DAY_SECONDS, left, reset)


def _of_bucket(name: LimitName, bucket: Bucket, owed: int) -> Standing:
    return Standing(name, bucket.size, _seconds(bucket.depth), bucket.left(owed), _seconds(owed))


def _waits(wanted: Charge, account: Account) -> Iterator[tuple[LimitName, int | None]]:
    if wanted.requests:
        yield "requests", _seconds(wait(account.requests, wanted.requests, wanted.requests_depth))
    if wanted.rows:
        yield "rows", _seconds(wait(account.rows, wanted.rows, wanted.rows_depth))
    if wanted.rows_today > wanted.rows_per_day:
        yield "rows-per-day", None
    elif wanted.rows_today and account.rows_today + wanted.rows_today > wanted.rows_per_day:
        yield "rows-per-day", _seconds(DAY - account.at % DAY)


def _seconds(microseconds: int) -> int:
    return math.ceil(microseconds / SECOND)
