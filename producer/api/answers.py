"""Who waits for which row: outcomes that come on `replies` find the requests that want them."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Message

from shared.messages import Rejection, ScoreMessage, decode
from shared.shutdown import StopSignal

_LOOK_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Awaited:
    """The rows of a request; `done` is set when each has its outcome.

    Belongs to the event loop, but for `job` and `first`, which are set before it can hear of them.
    """

    outcomes: list[ScoreMessage | None]
    done: asyncio.Event = field(default_factory=asyncio.Event)
    job: str = ""
    first: int = 0
    left: int = 0

    def settle(self, outcomes: Sequence[ScoreMessage]) -> None:
        """Take all outcomes at once, from elsewhere."""
        self.outcomes[:] = outcomes
        self.left = 0
        self.done.set()

    async def wait(self, until: float, stop: StopSignal) -> bool:
        """Wait for all outcomes until that time of the loop's, or `stop` is asked; if all came."""
        loop = asyncio.get_running_loop()
        while not (self.done.is_set() or stop.asked or loop.time() >= until):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(until, loop.time() + _LOOK_SECONDS)):
                    await self.done.wait()
        return self.done.is_set()


class Answers:
    """The rows that are waited for in this process."""

    def __init__(self, key: str) -> None:
        """`key` is that of the replies which are for this process."""
        self.key: Final = key
        self._bytes = key.encode()
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, int], Awaited] = {}

    def __len__(self) -> int:
        """How many rows are waited for."""
        return len(self._rows)

    def expect(self, awaited: Awaited, job: str, first: int) -> None:
        """Wait for rows of a job from `first` on; from any thread, before they are published."""
        awaited.job, awaited.first, awaited.left = job, first, len(awaited.outcomes)
        with self._lock:
            for row in range(first, first + len(awaited.outcomes)):
                self._rows[job, row] = awaited

    def forget(self, awaited: Awaited) -> None:
        """Wait for them no more; from any thread."""
        first = awaited.first
        with self._lock:
            for index, outcome in enumerate(awaited.outcomes):
                if outcome is None:
                    self._rows.pop((awaited.job, first + index), None)

    def deliver(self, messages: Sequence[Message]) -> None:
        """Give outcomes to who waits for them; in the event loop."""
        for message in messages:
            if message.key() != self._bytes:
                continue  # two processes may share a partition
            found = decode(ScoreMessage, message.value())
            if isinstance(found, Rejection):
                _log.warning("a reply is left out: %s", found.detail)
                continue
            with self._lock:
                awaited = self._rows.pop((found.job, found.row), None)
            if awaited is None:
                continue  # nobody waits any more
            awaited.outcomes[found.row - awaited.first] = found
            awaited.left -= 1
            if awaited.left == 0:
                awaited.done.set()
