"""A queue whose time-outs can be relied on.

`queue.SimpleQueue.get(timeout)` waits for ever where the time is over before it begins to wait, as
on a busy machine (CPython 3.11: what is left of the time is then negative, which means no limit);
`queue.Queue` costs several times as much an item.
"""

import threading
import time
from collections import deque
from queue import Empty
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Any thread may put, one thread gets, in the order of putting."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._news = threading.Event()
        self._waiting = False

    def put(self, item: T) -> None:
        """Add an item; never waits."""
        self._items.append(item)
        if self._waiting:
            self._news.set()

    def get(self, timeout: float | None = None) -> T:
        """The next item, waited for for `timeout` seconds at most, or as long as it takes.

        Raises:
            queue.Empty: there was none in time.
        """
        if self._items:
            return self._items.popleft()
        end = None if timeout is None else time.monotonic() + timeout
        self._waiting = True
        try:
            while True:
                # In this order: what is put after the look is told.
                self._news.clear()
                if self._items:
                    return self._items.popleft()
                left = None if end is None else max(0.0, end - time.monotonic())
                if not self._news.wait(left) and not self._items:
                    raise Empty
        finally:
            self._waiting = False

    def get_nowait(self) -> T:
        """The next item.

        Raises:
            queue.Empty: there is none.
        """
        if not self._items:
            raise Empty
        return self._items.popleft()
