"""A bounded in-process cache: the least recently used entries go first, old ones last no longer."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# What an entry costs besides its payload: key, node of the ordered dictionary, tuple, array header.
_OVERHEAD_BYTES: Final = 400


class BoundedCache(Generic[K, V]):
    """Maps keys to values of at most `max_bytes` bytes in all, each kept for `ttl` seconds at most.

    Threads may share it. With `max_bytes` 0 it holds nothing.
    """

    def __init__(self, max_bytes: int, ttl: float, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._clock = clock
        self._bytes = 0
        self._entries: OrderedDict[K, tuple[V, int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value of `key`, if it is there and not too old."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            value, _, expiry = entry
            if expiry <= self._clock():
                self._discard(key)
                return None
            self._entries.move_to_end(key)
            return value

    def put(self, items: Iterable[tuple[K, V, int]], ttl: float | None = None) -> None:
        """Keep values, each with its key and how many bytes it takes besides its bookkeeping.

        `ttl` is how many seconds, where that is less than what the cache keeps entries for.
        """
        with self._lock:
            expiry = self._clock() + (self._ttl if ttl is None else min(ttl, self._ttl))
            for key, value, payload_bytes in items:
                self._discard(key)
                size = payload_bytes + _OVERHEAD_BYTES
                if size > self._max_bytes:
                    continue
                self._entries[key] = (value, size, expiry)
                self._bytes += size
                while self._bytes > self._max_bytes:
                    self._discard(next(iter(self._entries)))

    @property
    def size(self) -> int:
        """How many bytes it holds, its bookkeeping included."""
        return self._bytes

    def __len__(self) -> int:
        """How many entries there are, those that are too old included."""
        return len(self._entries)

    def _discard(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1]
