"""Batches of SQL engines: one that is sent again goes on where it is, and is not scored anew.

A batch is a job of its own. The process that published it hears what came of its rows on `replies`,
and remembers it for a while; any other, or the same after a restart, finds the job on `jobs` and
reads the outcomes from the results store. Two processes that get a batch at the same moment may
both publish it: the sink keeps one outcome of each row.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from fastapi import Response

from producer.api.access import charged, name_of
from producer.api.answers import Awaited
from producer.api.batch import Batch, Sender, is_numbered
from producer.api.problems import Kind, ProblemError
from producer.api.service import Service
from producer.api.streams import read_first
from producer.job import api_job
from shared.messages import JobMessage, ScoreMessage

KEPT_SECONDS: Final = 600.0
"""A batch that nobody asks for is remembered for so long."""

KEPT_ROWS: Final = 100_000
"""So many rows of batches that nobody asks for just now are remembered, at most."""

STORE_SECONDS: Final = 5.0
"""So often the store is looked at for a batch whose outcomes should come on `replies`."""

_LOOK_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scored:
    """The outcomes of a batch, by row, and the engine's numbers of its rows, as in `Batch`."""

    outcomes: list[ScoreMessage]
    numbers: tuple[int, ...] | None


@dataclass(eq=False, slots=True)
class _Kept:
    awaited: Awaited
    numbers: tuple[int, ...] | None
    publishing: "asyncio.Task[None]"
    asking: int = 0
    until: float = 0.0

    @property
    def is_idle(self) -> bool:
        return self.asking == 0 and self.publishing.done()


class Batches:
    """The batches of this process; belongs to the event loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        # Those that were asked for last come last.
        self._kept: dict[str, _Kept] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.Task[list[ScoreMessage] | None] | None = None

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._kept)

    async def send(self, batch: Batch, seconds: float, response: Response) -> Scored | None:
        """Score a batch, or go on with it, and wait; None where it takes longer than `seconds`.

        Its rows are on Kafka then, whatever is returned. The client's quotas are charged when it is
        published, with what is left of them in the headers of `response`.

        Raises:
            ProblemError: the quotas do not allow it.
            EnvironmentFault: it is not published, or the store cannot be read.
        """
        until = asyncio.get_running_loop().time() + seconds
        name = batch.name
        kept = self._kept.get(name)
        if kept is None:
            found = self._service.jobs.message(name, batch.sender.client)
            if found is not None:
                return await self._stored(found, batch.numbers, until)
            # Nothing is waited for between the look and this, so that there is one of it.
            kept = self._begin(batch, response)
        return await self._joined(name, kept, until)

    async def poll(self, sender: Sender, seconds: float) -> Scored | None:
        """Wait for a batch that was sent; None where it takes longer than `seconds`.

        Raises:
            ProblemError: there is none, or more than one under this id.
            EnvironmentFault: it was not published, or the store cannot be read.
        """
        until = asyncio.get_running_loop().time() + seconds
        here = [name for name in self._kept if name.startswith(sender.prefix)]
        names = set(here) | set(await asyncio.to_thread(self._published, sender))
        if len(names) > 1:
            raise ProblemError(
                Kind.CONFLICT, "more than one batch was sent under this id; send it again to go on"
            )
        for name in names:
            kept = self._kept.get(name)
            if kept is not None:
                return await self._joined(name, kept, until)
            found = self._service.jobs.message(name, sender.client)
            if found is not None and is_numbered(name):
                raise ProblemError(
                    Kind.CONFLICT,
                    "the numbers of this batch's rows were not 0, 1, 2 and so on, and this process "
                    "does not know them; send it again to go on",
                )
            if found is not None:
                return await self._stored(found, None, until)
        raise ProblemError(Kind.NOT_FOUND, "no batch of this client was sent under this id")

    def _published(self, sender: Sender) -> list[str]:
        names = self._service.jobs.book.names()
        return [name for name in names if name.startswith(sender.prefix)]

    def _begin(self, batch: Batch, response: Response) -> _Kept:
        name = batch.name
        awaited = Awaited([None] * len(batch.pairs))
        publishing = asyncio.create_task(self._publish(batch, awaited, response))
        kept = self._kept[name] = _Kept(awaited, batch.numbers, publishing)

        def ended(task: "asyncio.Task[None]") -> None:
            if task.cancelled() or task.exception() is not None:
                self._kept.pop(name, None)  # sent again, it begins anew
            self._sweep()

        publishing.add_done_callback(ended)
        return kept

    async def _publish(self, batch: Batch, awaited: Awaited, response: Response) -> None:
        service, client, rows = self._service, batch.sender.client, len(batch.pairs)
        service.check_kafka()
        job = api_job(batch.name, name_of(client), batch.digest)
        async with charged(service, client, response, requests=1, rows=rows):
            await service.publish_lot(batch.pairs, client=job.client, job=job, awaited=awaited)

    async def _joined(self, name: str, kept: _Kept, until: float) -> Scored | None:
        """What came of a batch of this process.

        Publishing is always waited for, which `lots` sees to the end of: only then can this process
        be asked to end without a word of it being lost.
        """
        awaited = kept.awaited
        with self._asking(name, kept):
            await asyncio.wait({kept.publishing})
            kept.publishing.result()
            stop, loop = self._service.parts.stop, asyncio.get_running_loop()
            while not await awaited.wait(min(until, loop.time() + STORE_SECONDS), stop):
                if loop.time() >= until or stop.asked:
                    return None
                # A reply may be lost, such as one that Kafka has deleted before it was read.
                if (found := await self._looked(name, awaited, until)) is not None:
                    self._service.parts.answers.forget(awaited)
                    awaited.settle(found)
        return Scored([each for each in awaited.outcomes if each is not None], kept.numbers)

    async def _looked(self, name: str, awaited: Awaited, until: float) -> list[ScoreMessage] | None:
        """What the store has of a batch of this process, where that is all, unless replies come.

        One batch is looked for at a time: most have no need of it.
        """
        job = self._service.jobs.book.find(name)
        if job is None or (self._look is not None and not self._look.done()):
            return None
        look = self._look = asyncio.create_task(self._complete(job))
        look.add_done_callback(_said)
        done = asyncio.create_task(awaited.done.wait())
        left = max(0.0, until - asyncio.get_running_loop().time())
        try:
            await asyncio.wait({look, done}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            done.cancel()
        return look.result() if look.done() and look.exception() is None else None

    async def _complete(self, job: JobMessage) -> list[ScoreMessage] | None:
        """The outcomes of a job from the store; None where they are not all there."""
        service, rows = self._service, job.rows_published
        status = await service.read(service.jobs.status, job)
        if status.done < rows:
            return None
        found = await service.read(read_first, service, job.job, rows)
        return found if len(found) == rows else None

    async def _stored(
        self, job: JobMessage, numbers: tuple[int, ...] | None, until: float
    ) -> Scored | None:
        """What came of a batch that this process knows from `jobs` only."""
        loop = asyncio.get_running_loop()
        while True:
            if (found := await self._complete(job)) is not None:
                return Scored(found, numbers)
            left = until - loop.time()
            if left <= 0 or self._service.parts.stop.asked:
                return None
            await asyncio.sleep(min(left, _LOOK_SECONDS))

    @contextmanager
    def _asking(self, name: str, kept: _Kept) -> Iterator[None]:
        """Keep a batch while somebody asks for it, and for a while after."""
        kept.asking += 1
        try:
            yield
        finally:
            kept.asking -= 1
            kept.until = asyncio.get_running_loop().time() + KEPT_SECONDS
            if self._kept.pop(name, None) is not None:
                self._kept[name] = kept
            self._sweep()

    def _sweep(self) -> None:
        """Forget what is too old or too much, and come again when the next is too old."""
        loop = asyncio.get_running_loop()
        idle = [(name, kept) for name, kept in self._kept.items() if kept.is_idle]
        rows = sum(len(kept.awaited.outcomes) for _, kept in idle)
        for name, kept in idle:
            if rows <= KEPT_ROWS and kept.until > loop.time():
                break
            rows -= len(kept.awaited.outcomes)
            self._service.parts.answers.forget(kept.awaited)
            del self._kept[name]
        if self._timer is not None:
            self._timer.cancel()
        first = min((kept.until for kept in self._kept.values() if kept.is_idle), default=None)
        self._timer = None if first is None else loop.call_at(first, self._sweep)


def _said(look: "asyncio.Task[list[ScoreMessage] | None]") -> None:
    if not look.cancelled() and (error := look.exception()) is not None:
        _log.warning("the results cannot be read now: %s", error)
