"""When a request is sent again: pure, so that it can be told from what went wrong alone."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

from pairscore.client.errors import ApiError, NoAnswer

_NOT_TAKEN: Final = frozenset({408, 425, 429, 503})
"""Statuses which say that nothing was done (RFC 9110, RFC 8470, RFC 6585)."""

_NOT_PASSING: Final = frozenset({500, 501, 505})
"""Those of 5xx that come again."""


class Repeat(Enum):
    """What may be sent again."""

    ANY = "the same again does no harm"
    NOT_TAKEN = "only what was not taken"


@dataclass(frozen=True, slots=True)
class Retries:
    """How often, and for how long, a request is sent again.

    The wait doubles from `base` to `cap` seconds, each time less up to a half by chance; a
    `Retry-After` is a lower bound. In all there are `attempts`, and none is begun when `seconds`
    are over: what would have to wait longer is given up at once. `Retries(attempts=1)` is none.
    """

    attempts: int = 8
    seconds: float = 120.0
    base: float = 0.5
    cap: float = 20.0

    def wait(self, failures: int, spent: float, retry_after: float | None, chance: float) -> float:
        """Seconds to wait after so many failures in `spent` seconds; negative: give up.

        `chance` is in [0, 1).
        """
        if failures >= self.attempts:
            return -1.0
        doubled = min(self.cap, self.base * 2.0 ** min(failures - 1, 60))
        delay = max(doubled * (1 - chance / 2), retry_after or 0.0)
        return delay if spent + delay <= self.seconds else -1.0


def passes(error: ApiError | NoAnswer, repeat: Repeat, also: frozenset[int]) -> bool:
    """Whether the same request may do better, and may be sent again; `also` are statuses."""
    if isinstance(error, NoAnswer):
        return repeat is Repeat.ANY or not error.sent
    if error.status == 429 and error.type and error.retry_after is None:
        return False  # more than the quota ever allows
    if error.status in _NOT_TAKEN or error.status in also:
        return True
    return repeat is Repeat.ANY and error.status >= 500 and error.status not in _NOT_PASSING


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` asks for; None where it says nothing (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
