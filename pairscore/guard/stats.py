"""What came of the calls of a service. Any thread may count and read."""

import threading
from collections import Counter

from pairscore.guard.breaker import State


class CallStats:
    """Calls by name: how many, of how many keys, how long, how many failed or were left out.

    Seconds are wall-clock time, waiting included. `state` is what the breaker lets through.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.keys: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.state = State.CLOSED

    def answered(self, call: str, keys: int, seconds: float) -> None:
        """A call was answered."""
        with self._lock:
            self.calls[call] += 1
            self.keys[call] += keys
            self.seconds[call] += seconds  # type: ignore[assignment]

    def failed(self, call: str) -> None:
        """A call failed, or was not answered in time."""
        with self._lock:
            self.errors[call] += 1

    def skipped(self, call: str, keys: int) -> None:
        """Nobody was asked, for so many keys."""
        with self._lock:
            self.left_out[call] += keys
