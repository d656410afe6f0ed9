"""Writing to a store behind the back of those who have something to keep."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from pairscore.cache.guarded import Guarded
from pairscore.cache.stats import WriteStats
from pairscore.cache.store import Item

Encode: TypeAlias = Callable[[], Item]
"""Makes an item; called in the writer's thread, so that nobody waits for it."""

_log = logging.getLogger(__name__)
_MOST_WAITING: Final = 50_000
_AT_ONCE: Final = 500
_LINGER_SECONDS: Final = 0.02


class Writer:
    """A thread that keeps items in a store, many in one round trip.

    What there is no room for, or what the store does not take, is dropped: it can be found out
    again.
    """

    def __init__(self, store: Guarded, stats: WriteStats) -> None:
        self._store = store
        self._stats = stats
        self._waiting: deque[Encode] = deque()
        self._news = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="pairscore-cache-write", daemon=True)
        self._thread.start()

    def keep(self, encode: Encode) -> None:
        """Keep an item, some time; never waits."""
        with self._news:
            if len(self._waiting) >= _MOST_WAITING:
                self._stats.dropped(1)
                return
            self._waiting.append(encode)
            if len(self._waiting) == 1:
                self._news.notify()

    def close(self, seconds: float) -> None:
        """Keep what waits, for so many seconds at most, and end."""
        with self._news:
            self._closed = True
            self._news.notify()
        self._thread.join(seconds)
        with self._news:
            self._waiting.clear()
        self._store.close()

    def _run(self) -> None:
        while batch := self._next():
            items = [item for encode in batch if (item := self._encoded(encode)) is not None]
            if self._store.put(items):
                self._stats.written(len(items), sum(len(value or b"") for _, value, _ in items))
            else:
                self._stats.dropped(len(items))

    def _encoded(self, encode: Encode) -> Item | None:
        try:
            return encode()
        # It can be found out again; the others go on being written.
        except Exception:  # noqa: BLE001
            _log.exception("what was to be remembered cannot be, which is a defect")
            self._stats.dropped(1)
            return None

    def _next(self) -> list[Encode]:
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closed)
            if len(self._waiting) < _AT_ONCE:
                # More are coming, if any are: a round trip for each were a waste.
                self._news.wait_for(
                    lambda: len(self._waiting) >= _AT_ONCE or self._closed, _LINGER_SECONDS
                )
            return [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
