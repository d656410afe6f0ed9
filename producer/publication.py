"""Publishing rows as a job: each row once, in transactions, from where it stopped.

A transaction carries rows and, on `jobs`, how many of the job's rows are published with it: both or
neither can be read. What `jobs` says is therefore where the next run goes on, whatever ended the
last one.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Generic, Protocol, TypeVar

from pairscore.errors import EnvironmentFault, InputError
from producer.faults import TakenOver
from producer.job import AnyJob, continue_job
from producer.job_log import JobLog
from producer.pace import Pace
from producer.pulse import Pulse
from producer.transactions import NO_HEADERS, Transactions
from shared.messages import JobState
from shared.settings import ProducerOptions
from shared.telemetry.traces import (
    MESSAGES,
    PUBLISH,
    Headers,
    Span,
    Tracer,
    current,
    links_to,
    sending,
)
from shared.topics import Topics

MOST_BYTES: Final = 32_000_000
"""A transaction ends when it has so many, however few the rows: it is kept in memory."""

_LOOK_EVERY: Final = 10_000
Record = TypeVar("Record")


class RowsChanged(Exception):
    """The rows are not what they were when they were checked."""


class FileChanged(InputError):
    """The rows changed while they were published, or cannot be read any more."""


class Rows(Protocol[Record]):
    """The rows of a job, which were checked and can be read again from the first one on."""

    @property
    def name(self) -> str:
        """Where they are, for people."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def open(self) -> AbstractContextManager[Iterator[Record]]:
        """All of them in order.

        Raises:
            RowsChanged: upon opening, or from the iterator, at its end at the latest.
        """
        ...

    def encode(self, row: int, record: Record, created_at: datetime) -> tuple[bytes, bytes]:
        """The key and the value of a row's message."""
        ...


@dataclass(frozen=True, slots=True)
class Published:
    """A closed job of `rows` rows, those from row `start` on published by this run."""

    job: str
    rows: int
    start: int
    created_at: datetime
    was_closed: bool


class Watcher(Protocol):
    """Told how publishing goes."""

    def begins(self, start: int, *, closed: bool) -> None:
        """The first `start` rows are published already, and all of them if the job is closed."""

    def reached(self, rows: int) -> None:
        """Now the first `rows` are."""


class Publication(Generic[Record, AnyJob]):
    """One run of publishing rows as a job."""

    def __init__(
        self,
        rows: Rows[Record],
        job: AnyJob,
        *,
        transactions: Transactions,
        log: JobLog[AnyJob],
        topics: Topics,
        options: ProducerOptions,
        pulse: Pulse,
        watcher: Watcher,
        tracer: Tracer,
        is_new: bool = False,
        then: str = "the same command goes on from there",
    ) -> None:
        """`job` is what will be said of it on `jobs`, unless something is said already.

        Of one that is new, by a name that nobody else has, nothing can be. `then` is what to say of
        one that is published in part.
        """
        self._tracer = tracer
        self._span: Span | None = None
        self._within = current()
        self._is_new = is_new
        self._then = then
        self._start = 0
        self.begun = False
        """Whether something may have been published."""
        self._rows = rows
        self._job = job
        self._transactions = transactions
        self._log = log
        self._topics = topics
        self._options = options
        self._pulse = pulse
        self._watcher = watcher

    def run(self) -> Published:
        """Publish what is not published yet, and close the job.

        Raises:
            FileChanged: the rows have changed.
            InputError: the job was published from something else.
            EnvironmentFault: Kafka stayed away or refuses, or another producer took over.
            KeyboardInterrupt: asked to end.
        """
        try:
            with self._rows.open():
                pass
        except RowsChanged:
            raise FileChanged(
                f"{self._rows.name}: the file has changed since it was checked; try again"
            ) from None
        # Taking the id ends whoever has it: not before it is known that the file is the same.
        continue_job(self._said(settled=False), self._job)
        self._transactions.start()
        self.begun = True
        self._job = continue_job(self._said(settled=True), self._job)
        start, was_closed = self._job.rows_published, self._job.state is JobState.CLOSED
        self._start = start
        self._watcher.begins(start, closed=was_closed)
        if not was_closed:
            try:
                with self._transactions:
                    self._publish(start)
            except TakenOver:
                raise
            except EnvironmentFault as fault:
                raise EnvironmentFault(f"{fault}; {self.progress}") from None
            finally:
                self._end_span(0, "it is not known to be committed")
        rows = self._job.rows_published
        return Published(self._job.job, rows, start, self._job.created_at, was_closed)

    def _said(self, *, settled: bool) -> AnyJob | None:
        return None if self._is_new else self._log.latest(self._job.job, settled=settled)

    @property
    def added(self) -> int:
        """How many rows this run has published so far."""
        return self._job.rows_published - self._start

    @property
    def progress(self) -> str:
        """What is published, and how to go on, in words."""
        return (
            f"{self._job.rows_published:,} of {self._rows.count:,} rows of job {self._job.job} "
            f"are published; {self._then}"
        )

    def _publish(self, start: int) -> None:
        try:
            with self._rows.open() as records:
                self._skip(records, start)
                rate = self._options.limit_rate
                pace = None if rate is None else Pace(rate, self._pulse.clock)
                first, more = start, True
                while more:
                    end, more = self._fill(records, first, pace)
                    if more:
                        self._commit(self._job.published(end), begun=end > first)
                    elif end != self._rows.count:
                        raise RowsChanged
                    else:
                        self._commit(self._job.closed(end), begun=end > first)
                    first = end
        except RowsChanged:
            raise self._changed() from None

    def _skip(self, records: Iterator[Record], count: int) -> None:
        for index in range(count):
            if index % _LOOK_EVERY == 0:
                self._pulse.check()
            if next(records, None) is None:
                raise RowsChanged

    def _fill(self, records: Iterator[Record], first: int, pace: Pace | None) -> tuple[int, bool]:
        """Put rows from `first` on into a transaction; the row after them, and if more may come."""
        transactions, encode, pairs = self._transactions, self._rows.encode, self._topics.pairs
        clock, check = self._pulse.clock, self._pulse.check
        row, last, headers = first, first + self._options.transaction_rows, NO_HEADERS
        due, now = math.inf, datetime.now(UTC)
        while row < last and transactions.size < MOST_BYTES and clock() < due:
            check()
            if pace is not None and not self._wait_for_turn(pace, due):
                break
            record = next(records, None)
            if record is None:
                return row, False
            if row == first:
                transactions.begin()
                headers = self._begin_span()
                due, now = clock() + self._options.transaction_seconds, datetime.now(UTC)
            key, value = encode(row, record, now)
            transactions.add(pairs, key, value, headers)
            row += 1
        return row, True

    def _wait_for_turn(self, pace: Pace, due: float) -> bool:
        """Wait until another row may be published; at once False if that is not before `due`."""
        wait = pace.wait()
        if wait > 0:
            if self._pulse.clock() + wait >= due:
                return False
            self._pulse.wait(wait)
        pace.take()
        return True

    def _commit(self, job: AnyJob, *, begun: bool) -> None:
        """Commit the rows of the transaction, and with them what `jobs` will say."""
        if not begun:
            self._transactions.begin()
        self._transactions.add(self._topics.jobs, job.job.encode(), job.encode())
        self._transactions.commit(lambda: self._settled(job))
        self._end_span(job.rows_published - self._job.rows_published)
        self._job = job
        self._watcher.reached(job.rows_published)

    def _begin_span(self) -> Headers:
        """Begin the trace of a batch; the headers of its rows."""
        self._span = self._tracer.begin(
            "publish pairs",
            PUBLISH,
            links=[*links_to([self._within] if self._within else []).values()],
            attributes=sending((self._topics.pairs,)),
        )
        return NO_HEADERS if self._span is None else self._span.headers

    def _end_span(self, rows: int, why: str = "") -> None:
        if self._span is not None:
            self._span.end(why, {MESSAGES: rows})
            self._span = None

    def _settled(self, job: AnyJob) -> bool:
        """Whether a transaction that ends with `job` was committed.

        Raises:
            TakenOver: another producer has gone on from somewhere else.
        """
        found = self._log.latest(job.job)
        state = None if found is None else (found.state, found.rows_published)
        if state == (job.state, job.rows_published):
            return True
        if state == (self._job.state, self._job.rows_published):
            return False
        if state is None and self._job.rows_published == 0:
            return False
        raise TakenOver

    def _changed(self) -> FileChanged:
        return FileChanged(
            f"{self._rows.name}: the file changed while it was being published; "
            f"{self._job.rows_published:,} rows of what it was are job {self._job.job}, which "
            "stays open; publish what it is now as another, with --job"
        )
