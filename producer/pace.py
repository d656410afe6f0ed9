"""No more rows a second than asked for."""

from collections.abc import Callable
from typing import Final

_CATCH_UP_SECONDS: Final = 0.25


class Pace:
    """A token bucket: each row takes its turn, one every 1/`rate` seconds.

    What a pause held up may be caught up on, but not more than a quarter of a second's rows.
    """

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._interval = 1 / rate
        self._clock = clock
        self._turn = clock()

    def wait(self) -> float:
        """Seconds until the next turn; 0 if it has come."""
        return max(0.0, self._turn - self._clock())

    def take(self) -> None:
        """Take the next turn."""
        self._turn = max(self._turn, self._clock() - _CATCH_UP_SECONDS) + self._interval
