"""What the routes work with, and the work that is not HTTP's."""

import asyncio
import hashlib
import logging
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from pairscore.csv_file import Survey
from pairscore.errors import EnvironmentFault, InputError
from producer.api.answers import Answers, Awaited
from producer.api.aside import Aside
from producer.api.client import Client
from producer.api.jobs import Jobs
from producer.api.lots import OUTAGE_SECONDS, Lot, LotPublisher, Placed
from producer.api.problems import IN_DOUBT, NOT_NOW, InDoubt, Unavailable
from producer.api.quotas import Quotas
from producer.api.turns import Turns
from producer.api.uploads import PairFile, PairRows
from producer.csv_rows import CsvRows
from producer.faults import TakenOver
from producer.job import AnyJob, CsvJob, OwnJob
from producer.job_log import JobLog
from producer.publication import FileChanged, Publication, Published, Rows
from producer.pulse import Pulse
from producer.transactions import Transactions
from shared.cancellations import cancel
from shared.clients import make_producer
from shared.connection import Connection
from shared.messages import JobMessage, JobState
from shared.results import JobStatus
from shared.settings import ProducerSettings
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from shared.telemetry.traces import Tracer, current
from shared.topics import Topics

_UPLOAD_OUTAGE_SECONDS: Final = 30.0
_STORE_SECONDS: Final = 15.0
_STORE_THREADS: Final = 16
# Longer than a transaction is tried for, so that those in doubt are told what came of them.
_KNOWN_SECONDS: Final = OUTAGE_SECONDS + 17.0
_WATCHED_SECONDS: Final = 0.9
_END_AGAIN_SECONDS: Final = 5.0
_KEYED_AGAIN: Final = "sent again with its Idempotency-Key, the request goes on from there"
_NEW_AGAIN: Final = "they will be cancelled; send the request again, best with an Idempotency-Key"
_OVERTAKEN: Final = (
    "another request with this Idempotency-Key has come after this one and goes on with it"
)
# As `job_name` makes it.
_UNKEYED: Final = re.compile(r"api-\d{8}T\d{6}-[0-9a-f]{12}")
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Unfinished(Unavailable):
    """A job was broken off, and `rows` of it that are published now are kept."""

    def __init__(self, why: str, rows: int) -> None:
        super().__init__(why)
        self.rows = rows


@dataclass(frozen=True, slots=True)
class Done:
    """A job that is closed, and how many rows of it were published just now."""

    job: JobMessage
    added: int


class Taken(Exception):
    """A job of that name is there already, of other content."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a service is made of."""

    settings: ProducerSettings
    connection: Connection
    admin: AdminClient
    topics: Topics
    job_bytes: int | None
    """The longest message of a job."""
    answers: Answers
    lots: LotPublisher
    jobs: Jobs
    quotas: Quotas
    find_client: Callable[[str], Client | None] | None
    spool: Path
    stop: StopSignal
    """Asked first: no more requests are to be begun."""
    ending: StopSignal
    """Asked last: nothing is to go on."""
    published: Callable[[JobMessage, int], None]
    tracer: Tracer


class Service:
    """Publishes what requests bring and waits for what comes of it."""

    def __init__(self, parts: Parts) -> None:
        self.parts: Final = parts
        self.settings: Final = parts.settings
        self.jobs: Final = parts.jobs
        self.quotas: Final = parts.quotas
        self.find_client: Final = parts.find_client
        self.spool: Final = parts.spool
        api = parts.settings.api
        self.aside: Final = Aside()
        self.uploads: Final = Turns(api.uploads, api.client_uploads)
        self._making = threading.Lock()
        self._producer: Producer | None = None
        # Of their own: a store that hangs is not to take those of the others.
        self._store = ThreadPoolExecutor(_STORE_THREADS, "store")
        self._unclaimed: deque[str] = deque()
        self._ending: asyncio.Task[None] | None = None
        self._watched: dict[str, asyncio.Task[JobStatus]] = {}

    def close(self) -> None:
        """Begin no more reading of the store."""
        self._store.shutdown(wait=False, cancel_futures=True)

    def check_kafka(self) -> None:
        """Make sure that rows can be published now, as far as is known.

        Raises:
            EnvironmentFault: they cannot.
        """
        if self.parts.lots.fault is not None:
            raise Unavailable(NOT_NOW)

    async def read(self, function: Callable[..., T], *arguments: object) -> T:
        """What a function gives that reads the store, in a thread.

        Raises:
            EnvironmentFault: the store cannot be read, or does not answer.
        """
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._store, function, *arguments)
        except TimeoutError:
            raise Unavailable(
                f"the results cannot be read now: their store has not answered for "
                f"{_STORE_SECONDS:.0f} s"
            ) from None

    async def watch(self, job: JobMessage) -> JobStatus:
        """How far a job is, as all see it who ask within a second: the store is read once for them.

        Raises:
            EnvironmentFault: as `read`.
        """
        loop, name = asyncio.get_running_loop(), job.job
        reading = self._watched.get(name)
        if reading is None:
            reading = loop.create_task(self.read(self.jobs.status, job))
            self._watched[name] = reading
            loop.call_later(_WATCHED_SECONDS, self._watched.pop, name, None)
        return await asyncio.shield(reading)

    async def publish_lot(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        client: str | None,
        job: OwnJob | None = None,
        awaited: Awaited | None = None,
    ) -> Placed:
        """Publish rows together or not at all.

        Raises:
            InDoubt: it is not known whether they are published.
            EnvironmentFault: they are not.
        """
        self.check_kafka()
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[Placed | EnvironmentFault] = loop.create_future()

        def settle(result: Placed | EnvironmentFault) -> None:
            loop.call_soon_threadsafe(_set, settled, result)

        self.parts.lots.put(
            Lot(pairs, settle, client=client, job=job, awaited=awaited, trace=current())
        )
        try:
            async with asyncio.timeout(_KNOWN_SECONDS):
                result = await settled
        except TimeoutError:
            raise InDoubt(IN_DOUBT) from None
        if isinstance(result, EnvironmentFault):
            raise result
        return result

    async def score(
        self, pairs: Sequence[tuple[str, str]], client: str | None, seconds: float
    ) -> Awaited:
        """Publish rows and wait for their outcomes, for so long at most.

        Raises:
            InDoubt: it is not known whether they are published.
            EnvironmentFault: they are not.
        """
        until = asyncio.get_running_loop().time() + seconds
        awaited = Awaited([None] * len(pairs))
        try:
            await self.publish_lot(pairs, client=client, awaited=awaited)
            await awaited.wait(until, self.parts.stop)
        finally:
            self.parts.answers.forget(awaited)
        return awaited

    async def publish_pairs(self, file: PairFile, job: OwnJob, *, is_new: bool) -> Done:
        """Publish a file of pairs as a job; the job as it is on `jobs` then.

        It is new where nobody else can know its name.

        Raises:
            Taken: a job of that name is there, of other content.
            Unfinished: it was broken off. Sent again, it goes on where it was; a new one is
                cancelled as soon as Kafka is there.
            EnvironmentFault: Kafka stayed away, and nothing is published.
        """
        return await self._publish(PairRows(job.job, file), job, OwnJob, is_new=is_new)

    async def publish_csv(self, survey: Survey, job: CsvJob, *, is_new: bool) -> Done:
        """Publish a CSV as a job, as `publish_pairs`."""
        return await self._publish(CsvRows(job.job, survey), job, CsvJob, is_new=is_new)

    async def cancel(self, job: str) -> None:
        """Have no more rows of a job scored.

        Raises:
            EnvironmentFault: Kafka was not told, as far as is known.
        """
        await asyncio.to_thread(self._cancel, job)

    def _cancel(self, job: str) -> None:
        with self._making:
            if self._producer is None:
                self._producer = make_producer(self.parts.connection, transactional_id=None)
        cancel(self.parts.connection, self._producer, job)

    async def _publish(
        self, rows: Rows[Any], job: AnyJob, kind: type[AnyJob], *, is_new: bool
    ) -> Done:
        self.check_kafka()
        try:
            published = await asyncio.to_thread(self._run, rows, job, kind, is_new=is_new)
        except Unfinished:
            if is_new:
                # What it has of rows, and of a commit in doubt, nobody was told of.
                self._unclaimed.append(job.job)
                if self._ending is None or self._ending.done():
                    self._ending = asyncio.create_task(self._end())
            raise
        closed = job.model_copy(update={"created_at": published.created_at}).closed(published.rows)
        self.jobs.book.know(closed)
        added = 0 if published.was_closed else published.rows - published.start
        if not published.was_closed:
            self.parts.published(closed, added)
        return Done(closed, added)

    def _run(self, rows: Rows[Any], job: AnyJob, kind: type[AnyJob], *, is_new: bool) -> Published:
        parts = self.parts
        pulse = Pulse(parts.ending, Health())
        publication = Publication(
            rows,
            job,
            transactions=self._transactions(job.job, pulse),
            log=self._job_log(pulse, kind),
            topics=parts.topics,
            options=parts.settings.producer,
            pulse=pulse,
            watcher=_Silent(),
            tracer=parts.tracer,
            is_new=is_new,
            then=_NEW_AGAIN if is_new else _KEYED_AGAIN,
        )

        def kept() -> int:
            return 0 if is_new else publication.added

        try:
            return publication.run()
        except InputError as error:
            # Of a name that nobody else has, nothing else can have been published.
            if is_new or isinstance(error, FileChanged):
                _log.error("%s", error)
                raise Unfinished(
                    "what was uploaded cannot be read any more; send it again", kept()
                ) from None
            raise Taken(str(error)) from None
        except TakenOver:
            raise Unfinished(_OVERTAKEN, kept()) from None
        except EnvironmentFault as fault:
            if not publication.begun:
                raise
            _log.warning("%s", fault)
            raise Unfinished(
                f"Kafka does not answer any more; {publication.progress}", kept()
            ) from None
        except KeyboardInterrupt:
            raise Unfinished("the service is ending; send the request again", kept()) from None

    async def _end(self) -> None:
        """End jobs that nobody was told of, as soon as Kafka lets it."""
        while self._unclaimed and not self.parts.ending.asked:
            job = self._unclaimed[0]
            try:
                await asyncio.to_thread(self.end_unclaimed, job)
                self._unclaimed.popleft()
            except (EnvironmentFault, KeyboardInterrupt) as fault:
                _log.warning("job %s, which was not promised, is not ended yet: %s", job, fault)
                await asyncio.sleep(_END_AGAIN_SECONDS)

    def end_unclaimed(self, job: str) -> None:
        """Cancel a job that nobody was promised, and close it with what rows it has.

        Raises:
            EnvironmentFault, KeyboardInterrupt: not now.
        """
        pulse = Pulse(self.parts.ending, Health())
        transactions = self._transactions(job, pulse)
        # What a CSV's says beyond that is for going on with it, which nobody does.
        log = self._job_log(pulse, OwnJob)
        # From now on nobody else adds to it, and what was in doubt is settled.
        transactions.start()
        found = log.latest(job)
        if found is None:
            return
        self._cancel(job)
        if found.state is JobState.OPEN:
            closed = found.closed(found.rows_published)
            with transactions:
                transactions.begin()
                transactions.add(self.parts.topics.jobs, job.encode(), closed.encode())
                transactions.commit(lambda: log.latest(job) == closed)
            self.jobs.book.know(closed)
        _log.info("ended job %s, which was not promised: %d rows", job, found.rows_published)

    def _transactions(self, job: str, pulse: Pulse) -> Transactions:
        return Transactions(
            self.parts.connection,
            f"producer.{job}",
            pulse=pulse,
            ended=lambda _: None,
            outage=_UPLOAD_OUTAGE_SECONDS,
        )

    def _job_log(self, pulse: Pulse, kind: type[AnyJob]) -> JobLog[AnyJob]:
        parts = self.parts
        return JobLog(parts.connection, parts.admin, parts.topics.jobs, pulse, kind, OUTAGE_SECONDS)


class _Silent:
    """Wants to know nothing of how publishing goes."""

    def begins(self, start: int, *, closed: bool) -> None:
        """Nothing."""

    def reached(self, rows: int) -> None:
        """Nothing."""


def _set(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)


def job_name(client: str | None, key: str | None) -> str:
    """The name of a job: of the `Idempotency-Key`, so that a repeat has the same, or a new one."""
    if key is None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        return f"api-{stamp}-{secrets.token_hex(6)}"
    digest = hashlib.sha256(f"{client or ''}\0{key}".encode()).hexdigest()
    return f"api-{digest[:32]}"


def is_unkeyed(job: str) -> bool:
    """Whether it is the name of a job without a key, which nobody can send again."""
    return _UNKEYED.fullmatch(job) is not None


def is_same(found: OwnJob, wanted: OwnJob) -> bool:
    """Whether a job that is there is the one that is wanted."""
    return (found.deciding(), found.client) == (wanted.deciding(), wanted.client)
