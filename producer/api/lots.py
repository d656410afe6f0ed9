"""Publishing what requests bring, many requests in one transaction.

Whatever came while the last transaction was under way goes into the next. Rows of in-line requests
join a job of their client's, which is closed after a while; rows of a small job come with the job's
message, so that all of it is on Kafka or nothing.
"""

import logging
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty
from typing import Final, TypeAlias

from pairscore.errors import EnvironmentFault
from pairscore.inbox import Inbox
from producer.api.answers import Answers, Awaited
from producer.api.problems import IN_DOUBT, NOT_NOW, InDoubt, Unavailable
from producer.encoding import encode_pair
from producer.faults import TakenOver
from producer.job import OwnJob
from producer.job_log import JobLog
from producer.publication import MOST_BYTES
from producer.pulse import Pulse
from producer.transactions import NO_HEADERS, Transactions
from shared.messages import API, JobState, key_of
from shared.telemetry.health import Health
from shared.telemetry.traces import MESSAGES, PUBLISH, Span, Tracer, sending
from shared.topics import Topics

OUTAGE_SECONDS: Final = 8.0
"""A request that waits for Kafka for longer is refused."""

_INLINE: Final = re.compile(r"inline-(.*)-\d{8}T\d{6}-[0-9a-f]{8}\Z")
_PATIENCE: Final = 0.5
_MOST_ROWS: Final = 10_000
_ANEW_SECONDS: Final = 1.0
_JOIN_SECONDS: Final = 20.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the rows of a lot are: in that job, from row `first` on."""

    job: OwnJob
    first: int


@dataclass(frozen=True, slots=True, eq=False)
class Lot:
    """Rows that are published together or not at all.

    They are all of `job`, or, without one, join the in-line job of `client`. `awaited` gets their
    outcomes. `settle` is called once, from the publishing thread, with where they are, or with why
    they are not published.
    """

    pairs: Sequence[tuple[str, str]]
    settle: Callable[[Placed | EnvironmentFault], None]
    client: str | None = None
    job: OwnJob | None = None
    awaited: Awaited | None = None
    trace: str | None = None
    """The `traceparent` of the request that brought them."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When an in-line job is closed: after so many rows, or so many seconds."""

    rows: int
    seconds: float


_Doubt: TypeAlias = tuple[list[tuple[Lot, str, int]], list[OwnJob]]


class LotPublisher:
    """One thread with one transactional id, for all that is to be published at once.

    While Kafka is away `fault` says so, and lots are refused.
    """

    def __init__(
        self,
        name: str,
        *,
        make_transactions: Callable[[], Transactions],
        log: JobLog[OwnJob],
        topics: Topics,
        partition: int,
        answers: Answers,
        pace: Pace,
        pulse: Pulse,
        health: Health,
        published: Callable[[OwnJob, int], None],
        on_crash: Callable[[BaseException], None],
        tracer: Tracer,
    ) -> None:
        """Begin nothing yet.

        Args:
            name: of this process, the same when it comes back.
            make_transactions: makes a client of Kafka's.
            log: reads `jobs`.
            topics: of the fleet.
            partition: of `replies`, where outcomes that are waited for come.
            answers: who waits.
            pace: of in-line jobs.
            pulse: asked to end when no lots come any more.
            health: told whether rows can be published.
            published: told of each job that has new rows, and how many.
            on_crash: called with a defect that ends the thread.
            tracer: of what is published for requests that are in a trace.
        """
        self._name = name
        self._make = make_transactions
        self._log = log
        self._topics = topics
        self._reply_to = {"partition": partition, "key": answers.key}
        self._answers = answers
        self._pace = pace
        self._pulse = pulse
        self._health = health
        self._published = published
        self._on_crash = on_crash
        self._tracer = tracer
        self._transactions: Transactions | None = None
        self._jobs: dict[str | None, OwnJob] = {}
        # Lots whose transaction may have been committed without a word of it, and what it said.
        self._doubt: _Doubt | None = None
        self._inbox: Inbox[Lot | None] = Inbox()
        self._thread = threading.Thread(target=self._run, name="publish", daemon=True)
        self.fault: str | None = None

    def start(self) -> None:
        """Take the transactional id, close what an earlier process left open, begin the thread.

        Raises:
            EnvironmentFault: Kafka cannot be worked with.
        """
        self._begin()
        self._thread.start()

    def put(self, lot: Lot) -> None:
        """Take a lot; never waits."""
        self._inbox.put(lot)

    def close(self) -> None:
        """End the thread after what came before, and close the in-line jobs; `pulse` is asked."""
        self._inbox.put(None)
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        try:
            while True:
                lots, ends = self._next_lots()
                self._pulse.beat()
                self._step(lots, ends=ends)
                if ends:
                    return
        # The one place where a defect of this thread is turned into the end of the process.
        except BaseException as error:  # noqa: BLE001
            self._on_crash(error)

    def _next_lots(self) -> tuple[list[Lot], bool]:
        """What came, waited for a little; and whether it is the last."""
        lots: list[Lot] = []
        rows = size = 0
        with suppress(Empty):
            item = self._inbox.get(_PATIENCE)
            while item is not None:
                lots.append(item)
                rows += len(item.pairs)
                size += sum(len(url) + len(caption) for url, caption in item.pairs)
                if rows >= _MOST_ROWS or size >= MOST_BYTES:
                    return lots, False
                item = self._inbox.get_nowait()
            return lots, True
        return lots, False

    def _step(self, lots: list[Lot], *, ends: bool) -> None:
        try:
            if self._transactions is None:
                self._begin()
            if lots or ends or self._overdue():
                self._publish(lots, closing=ends)
        except TakenOver:
            taken = EnvironmentFault(
                "another API process of this name has taken over; where several run with one "
                "PAIRSCORE_API__ID, set another for each"
            )
            self._give_up(taken, lots)
            # The other has ended what was open.
            self._resolve()
            raise taken from None
        except (EnvironmentFault, KeyboardInterrupt) as error:
            fault = (
                error
                if isinstance(error, EnvironmentFault)
                else EnvironmentFault("the service is ending")
            )
            self._give_up(fault, lots)
            if not ends:
                self._pulse_pause()
            elif self._doubt is not None:
                for lot, *_ in self._doubt[0]:
                    self._refuse(lot, InDoubt(IN_DOUBT))

    def _pulse_pause(self) -> None:
        with suppress(KeyboardInterrupt):
            self._pulse.wait(_ANEW_SECONDS)

    def _give_up(self, fault: EnvironmentFault, lots: list[Lot]) -> None:
        """Refuse what came, and begin anew.

        But those of a transaction that may have been committed wait until that is known.
        """
        # Anew for each: an exception keeps the frames it has come through.
        why = str(fault)
        if self.fault is None:
            _log.warning("no rows are taken: %s", why)
        self.fault = why
        self._health.ready(False, why)
        self._transactions = None
        self._jobs.clear()
        doubtful = {id(lot) for lot, *_ in self._doubt[0]} if self._doubt is not None else set()
        with suppress(Empty):
            while (item := self._inbox.get_nowait()) is not None:
                lots.append(item)
            self._inbox.put(None)
        for lot in lots:
            if id(lot) not in doubtful:
                self._refuse(lot, Unavailable(NOT_NOW))

    def _refuse(self, lot: Lot, why: Unavailable) -> None:
        if lot.awaited is not None:
            self._answers.forget(lot.awaited)
        lot.settle(why)

    def _resolve(self) -> None:
        """Find out what a transaction came to that was in doubt; the id has been taken by now."""
        if self._doubt is None:
            return
        placed, said = self._doubt
        try:
            committed = self._settled(said)
        except TakenOver:
            committed = False
        self._doubt = None
        by_name = {job.job: job for job in said}
        for lot, name, first in placed:
            if committed:
                lot.settle(Placed(by_name[name], first))
            else:
                self._refuse(lot, Unavailable("Kafka did not take the rows; send them again"))

    def _begin(self) -> None:
        transactions = self._make()
        transactions.start()
        self._resolve()
        close_inline(transactions, self._log, self._topics.jobs, self._name)
        self._transactions = transactions
        if self.fault is not None:
            _log.info("rows are taken again")
        self.fault = None
        self._health.ready(True)

    def _publish(self, lots: list[Lot], *, closing: bool) -> None:
        transactions = self._transactions
        if transactions is None:
            raise RuntimeError("there is nothing to publish with")
        now = datetime.now(UTC)
        open_jobs = dict(self._jobs)
        whole: list[OwnJob] = []
        placed: list[tuple[Lot, str, int]] = []
        counts: dict[str, int] = {}
        spans: list[Span | None] = []
        if not (lots or open_jobs):
            return
        transactions.begin()
        for lot in lots:
            if lot.job is None:
                job = open_jobs.get(lot.client) or self._new_job(lot.client, now)
                first = job.rows_published
                open_jobs[lot.client] = job.published(first + len(lot.pairs))
            else:
                job, first = lot.job, 0
                whole.append(job.closed(len(lot.pairs)))
            if lot.awaited is not None:
                self._answers.expect(lot.awaited, job.job, first)
            spans.append(self._add_rows(transactions, lot, job.job, first, now))
            counts[job.job] = counts.get(job.job, 0) + len(lot.pairs)
            placed.append((lot, job.job, first))
        said = whole + [
            job.closed(job.rows_published) if closing or self._is_over(job, now) else job
            for job in open_jobs.values()
            if job.job in counts or closing or self._is_over(job, now)
        ]
        _add_jobs(transactions, self._topics.jobs, said)
        self._doubt = (placed, said)
        self._commit(transactions, said, spans)
        by_name = {job.job: job for job in said}
        self._jobs = {
            client: by_name.get(job.job, job)
            for client, job in open_jobs.items()
            if by_name.get(job.job, job).state is JobState.OPEN
        }
        for job in said:
            self._published(job, counts.get(job.job, 0))
        for lot, name, first in placed:
            lot.settle(Placed(by_name[name], first))

    def _commit(
        self, transactions: Transactions, said: Sequence[OwnJob], spans: Sequence[Span | None]
    ) -> None:
        """Commit what was added, and know whether there is any doubt about it."""
        why = "it is not known to be committed"
        try:
            transactions.commit(lambda: self._settled(said))
            why = ""
        finally:
            if not transactions.in_doubt:
                self._doubt = None
            for span in spans:
                if span is not None:
                    span.end(why)

    def _add_rows(
        self, transactions: Transactions, lot: Lot, job: str, first: int, now: datetime
    ) -> Span | None:
        """Publish the rows of a lot; the span of that, where its request has one."""
        topic = self._topics.pairs if lot.awaited is None else self._topics.interactive
        reply_to = None if lot.awaited is None else self._reply_to
        span = None
        if lot.trace is not None:
            attributes = {**sending((topic,)), MESSAGES: len(lot.pairs)}
            span = self._tracer.begin("publish pairs", PUBLISH, lot.trace, attributes=attributes)
        headers = NO_HEADERS if span is None else span.headers
        for row, (url, caption) in enumerate(lot.pairs, first):
            value = encode_pair(job, row, url, caption, now, reply_to)
            transactions.add(topic, key_of(url), value, headers)
        return span

    def _settled(self, said: Sequence[OwnJob]) -> bool:
        return _settled(self._log, said)

    def _new_job(self, client: str | None, now: datetime) -> OwnJob:
        stamp = now.strftime("%Y%m%dT%H%M%S")
        return OwnJob(
            job=f"inline-{self._name}-{stamp}-{secrets.token_hex(4)}",
            source=API,
            client=client,
            rows_published=0,
            state=JobState.OPEN,
            created_at=now,
        )

    def _is_over(self, job: OwnJob, now: datetime) -> bool:
        age = (now - job.created_at).total_seconds()
        return job.rows_published >= self._pace.rows or age >= self._pace.seconds

    def _overdue(self) -> bool:
        now = datetime.now(UTC)
        return any(self._is_over(job, now) for job in self._jobs.values())


def close_inline(
    transactions: Transactions, log: JobLog[OwnJob], topic: str, name: str
) -> list[OwnJob]:
    """Close the in-line jobs that a process of that name has left open; those that were.

    `transactions` have the process's transactional id. May raise what these, and `log`, may.
    """
    left = log.open_jobs(lambda job: owner_of(job) == name)
    closed = [job.closed(job.rows_published) for job in left]
    if closed:
        transactions.begin()
        _add_jobs(transactions, topic, closed)
        transactions.commit(lambda: _settled(log, closed))
        _log.info("closed %d in-line jobs that an API %s had left", len(closed), name)
    return closed


def _add_jobs(transactions: Transactions, topic: str, jobs: Sequence[OwnJob]) -> None:
    for job in jobs:
        transactions.add(topic, job.job.encode(), job.encode())


def _settled(log: JobLog[OwnJob], said: Sequence[OwnJob]) -> bool:
    """Whether a transaction that says this of jobs was committed.

    All of them are looked for: of a batch that an engine sends again, another process may say
    the same.

    Raises:
        TakenOver: another process has gone on with one.
    """
    return all(_is_said(log, job) for job in said)


def _is_said(log: JobLog[OwnJob], said: OwnJob) -> bool:
    found = log.latest(said.job)
    if found is None or found.rows_published < said.rows_published:
        return False
    if (found.rows_published, found.state) == (said.rows_published, said.state):
        return True
    if found.state is JobState.OPEN and found.rows_published == said.rows_published:
        return False
    raise TakenOver


def owner_of(job: str) -> str | None:
    """The name of the process whose in-line job it is; None where it is no such job."""
    found = _INLINE.match(job)
    return None if found is None else found[1]


def is_inline(job: str) -> bool:
    """Whether a job is one that in-line requests join."""
    return owner_of(job) is not None
