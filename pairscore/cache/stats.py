"""What a cache has done, for summaries and metrics. Any thread may count and read."""

import threading
from collections import Counter
from enum import StrEnum

from pairscore.cache.breaker import State


class Kind(StrEnum):
    """What is looked up."""

    URL = "url"
    IMAGE = "image"
    CAPTION = "caption"


class Call(StrEnum):
    """What a store is asked for."""

    LOOK_UP = "look_up"
    CLAIM = "claim"
    PUT = "put"


class StoreStats:
    """Calls of one store: how many, of how many keys, how long, how many failed or were left out.

    Seconds are wall-clock time, waiting included.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls: Counter[Call] = Counter()
        self.keys: Counter[Call] = Counter()
        self.seconds: Counter[Call] = Counter()
        self.errors: Counter[Call] = Counter()
        self.left_out: Counter[Call] = Counter()
        self.state = State.CLOSED

    def answered(self, call: Call, keys: int, seconds: float) -> None:
        """A call was answered."""
        with self._lock:
            self.calls[call] += 1
            self.keys[call] += keys
            self.seconds[call] += seconds  # type: ignore[assignment]

    def failed(self, call: Call) -> None:
        """A call failed, or was not answered in time."""
        with self._lock:
            self.errors[call] += 1

    def skipped(self, call: Call, keys: int) -> None:
        """Nobody was asked, for so many keys."""
        with self._lock:
            self.left_out[call] += keys

    def breaker(self, state: State) -> None:
        """What the breaker lets through."""
        self.state = state


class WriteStats:
    """Entries that were written, and those that were not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.entries = 0
        self.bytes = 0
        self.left_out = 0

    def written(self, entries: int, size: int) -> None:
        """Entries of `size` bytes in all were written."""
        with self._lock:
            self.entries += entries
            self.bytes += size

    def dropped(self, entries: int) -> None:
        """Entries were not written."""
        with self._lock:
            self.left_out += entries


class LookUpStats:
    """What was looked up, and found or not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.hits: Counter[Kind] = Counter()
        self.misses: Counter[Kind] = Counter()

    def shares(self) -> dict[str, tuple[int, int]]:
        """How much of each kind was found, of how much."""
        with self._lock:
            return {k.value: (self.hits[k], self.hits[k] + self.misses[k]) for k in Kind}

    def add(self, kind: Kind, *, hits: int = 0, misses: int = 0) -> None:
        """So many were found, so many not."""
        with self._lock:
            self.hits[kind] += hits
            self.misses[kind] += misses
