"""Which waiting request is next: hosts take turns, none is asked too often at once.

Pure bookkeeping without threads or a clock; the fetch thread owns it.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Host(Generic[T]):
    waiting: deque[T] = field(default_factory=deque)
    in_flight: int = 0


class HostQueues(Generic[T]):
    """Requests by host, first in first out within a host and round robin between hosts."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._hosts: dict[str, _Host[T]] = {}
        self._runnable: OrderedDict[str, None] = OrderedDict()

    def put(self, host: str, item: T) -> None:
        """Add a request to the end of its host's queue."""
        state = self._hosts.setdefault(host, _Host())
        state.waiting.append(item)
        self._update(host, state)

    def take(self) -> T | None:
        """The next request, which counts against its host until `finished`; None if none may."""
        if not self._runnable:
            return None
        host, _ = self._runnable.popitem(last=False)
        state = self._hosts[host]
        state.in_flight += 1
        item = state.waiting.popleft()
        self._update(host, state)
        return item

    def expire(self, is_late: Callable[[T], bool]) -> Iterator[T]:
        """Give and forget what is late and waits only because its host is asked too often."""
        for host, state in list(self._hosts.items()):
            if host in self._runnable:
                continue
            while state.waiting and is_late(state.waiting[0]):
                yield state.waiting.popleft()
            self._update(host, state)

    def finished(self, host: str) -> None:
        """A request that was taken for `host` is over."""
        state = self._hosts[host]
        state.in_flight -= 1
        self._update(host, state)

    def _update(self, host: str, state: _Host[T]) -> None:
        if state.waiting and state.in_flight < self._per_host:
            self._runnable.setdefault(host)
        else:
            self._runnable.pop(host, None)
        if not state.waiting and not state.in_flight:
            # A crawl meets millions of hosts; those at rest are forgotten.
            del self._hosts[host]
