"""A circuit breaker: what keeps failing is left alone for a while, then tried with one probe.

Pure: the clock is the caller's. Source: M. Nygard, "Release It!", 2007, chapter 5.2.
"""

from enum import IntEnum
from typing import Final


class State(IntEnum):
    """What may be done: everything, one probe, nothing. The numbers are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Opens after `failures` in a row, for `least` seconds, twice as long each time up to `most`.

    Belongs to one thread, or to whoever holds a lock.
    """

    def __init__(self, *, failures: int, least: float, most: float) -> None:
        self._limit: Final = failures
        self._least: Final = least
        self._most: Final = most
        self._failures = 0
        self._seconds = least
        self._until: float | None = None
        self._probing = False
        self._on_trial = False

    def state(self, now: float) -> State:
        """What may be done at `now`."""
        if self._until is None or self._on_trial:
            return State.CLOSED
        return State.OPEN if now < self._until or self._probing else State.HALF_OPEN

    def probe(self) -> None:
        """A probe begins; until it ends, nothing else may be done."""
        self._probing = True

    def probed(self) -> None:
        """A probe went well: the next that is tried says whether that holds for others too."""
        self._probing = False
        self._on_trial = True

    def succeeded(self) -> bool:
        """What was tried went well; whether it had not before."""
        had_failed = self._until is not None
        self._on_trial = False
        self._failures = 0
        self._until = None
        self._seconds = self._least
        self._probing = False
        return had_failed

    def failed(self, now: float) -> bool:
        """What was tried failed; whether that is one too many."""
        self._failures += 1
        opens = self._until is None and self._failures >= self._limit
        if opens:
            self._until = now + self._seconds
        elif self._probing or self._on_trial:
            self._seconds = min(self._most, 2 * self._seconds)
            self._until = now + self._seconds
        self._probing = self._on_trial = False
        return opens
