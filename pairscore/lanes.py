"""A queue that urgent items overtake the others in, for several threads that take from it."""

import threading
import time
from collections import deque
from queue import Empty
from typing import Generic, TypeVar

T = TypeVar("T")


class Lanes(Generic[T]):
    """Any thread may put and get: the urgent items first, each lane in the order of putting.

    Time-outs can be relied on, as those of an `Inbox`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._any = threading.Condition(self._lock)
        self._urgent_only = threading.Condition(self._lock)
        self._waiting = 0
        self._urgent: deque[T] = deque()
        self._others: deque[T] = deque()

    def put(self, item: T, *, urgent: bool = False) -> None:
        """Add an item; never waits."""
        with self._lock:
            (self._urgent if urgent else self._others).append(item)
            # Telling costs more than all the rest, and mostly nobody waits.
            if self._waiting:
                self._any.notify()
                if urgent:
                    self._urgent_only.notify()

    @property
    def has_urgent(self) -> bool:
        """Whether there are urgent items."""
        return bool(self._urgent)

    def get(self, timeout: float | None = None) -> tuple[T, bool]:
        """The next item and whether it is urgent, waited for for `timeout` seconds at most.

        Raises:
            queue.Empty: there was none in time.
        """
        with self._lock:
            if not (self._urgent or self._others):
                self._wait(self._any, timeout, others=True)
            if self._urgent:
                return self._urgent.popleft(), True
            return self._others.popleft(), False

    def get_urgent(self, timeout: float | None = None) -> T:
        """The next urgent item, waited for for `timeout` seconds at most.

        Raises:
            queue.Empty: there was none in time.
        """
        with self._lock:
            if not self._urgent:
                self._wait(self._urgent_only, timeout, others=False)
            return self._urgent.popleft()

    def _wait(self, news: threading.Condition, timeout: float | None, *, others: bool) -> None:
        end = None if timeout is None else time.monotonic() + timeout
        self._waiting += 1
        try:
            while not (self._urgent or (others and self._others)):
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    raise Empty
                news.wait(left)
        finally:
            self._waiting -= 1
