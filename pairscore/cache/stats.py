"""What a cache has done, for summaries and metrics. Any thread may count and read."""

import threading
from collections import Counter
from enum import StrEnum


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
