"""What an API does now and then for all of them: no job stays open for ever, few are kept for ever.

An in-line job is closed by the process whose it is, or by the next one of its name. Of one that
never comes back, as a pod's, another closes it. An upload without a key that was broken off is
cancelled and closed. And what `jobs` says of old jobs whose names cannot be sent again is taken
back, or every process would have to read and to remember all there ever were.
"""

import logging
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pairscore.errors import EnvironmentFault
from producer.api.batch import is_batch
from producer.api.jobs import JobBook
from producer.api.lots import close_inline, is_inline, owner_of
from producer.api.service import is_unkeyed
from producer.faults import TakenOver
from producer.job import OwnJob
from producer.job_log import JobLog
from producer.pulse import Pulse
from producer.transactions import Transactions
from shared.clients import make_producer
from shared.connection import Connection
from shared.messages import API, JobMessage, JobState
from shared.results import Results

ORPHANED: Final = timedelta(days=2)
"""So old, a job that is open was left behind: `PAIRSCORE_API__INLINE_SECONDS` is a day at most."""

_FIRST_SECONDS: Final = 60.0
_EVERY_SECONDS: Final = 3_600.0
_AT_ONCE: Final = 10_000
_FLUSH_SECONDS: Final = 20.0
_JOIN_SECONDS: Final = 5.0
_CREATED: Final = re.compile(rb'"created_at":"([^"]+)"')

_log = logging.getLogger(__name__)


class Housekeeping:
    """A thread that looks every hour."""

    def __init__(
        self,
        name: str,
        connection: Connection,
        book: JobBook,
        results: Results,
        *,
        topic: str,
        log: JobLog[OwnJob],
        pulse: Pulse,
        make_transactions: Callable[[str], Transactions],
        end: Callable[[str], object],
        days: int,
        on_crash: Callable[[BaseException], None],
        first_seconds: float = _FIRST_SECONDS,
    ) -> None:
        """Begin nothing yet.

        Args:
            name: of this process.
            connection: to the brokers.
            book: what is known of jobs.
            results: what is stored of them.
            topic: `jobs`.
            log: reads it.
            pulse: asked to end with the process.
            make_transactions: makes a client with the transactional id of the API of that name.
            end: cancels and closes a job that nobody was promised.
            days: a job that is complete and older is forgotten.
            on_crash: called with a defect that ends the thread.
            first_seconds: when to look first.
        """
        self._name = name
        self._connection = connection
        self._book = book
        self._results = results
        self._topic = topic
        self._log = log
        self._pulse = pulse
        self._make = make_transactions
        self._end = end
        self._kept = timedelta(days=days)
        self._on_crash = on_crash
        self._first_seconds = first_seconds
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        wait = self._first_seconds
        try:
            while not self._closing.wait(wait):
                wait = _EVERY_SECONDS
                with suppress(KeyboardInterrupt):  # the process is ending
                    self._look(datetime.now(UTC))
        # The one place where a defect of this thread is turned into the end of the process.
        except BaseException as error:  # noqa: BLE001
            self._on_crash(error)

    def _look(self, now: datetime) -> None:
        left = [job.job for job in self._old(now - ORPHANED) if job.state is JobState.OPEN]
        for owner in sorted({owner_of(job) or self._name for job in left} - {self._name}):
            self._trying(lambda: self._close_orphans(owner, now - ORPHANED))  # noqa: B023
        for job in left:
            if is_unkeyed(job):
                self._trying(lambda: self._end(job))  # noqa: B023
        self._trying(lambda: self._forget(now - self._kept))

    def _trying(self, step: Callable[[], object]) -> None:
        self._pulse.check()
        try:
            step()
        except (EnvironmentFault, KafkaException) as error:
            _log.warning("old jobs are seen to later: %s", error)

    def _close_orphans(self, owner: str, before: datetime) -> None:
        # As it is now: what is remembered may be as old as this process has been suspended, and
        # whoever has the name is ended by what follows.
        open_now = self._log.open_jobs(lambda job: owner_of(job) == owner)
        if not any(job.created_at < before for job in open_now):
            return
        try:
            transactions = self._make(owner)
            transactions.start()
            with transactions:
                for job in close_inline(transactions, self._log, self._topic, owner):
                    self._book.know(job)
        except TakenOver:
            _log.info("API %s is back, and closes its jobs itself", owner)

    def _forget(self, before: datetime) -> None:
        old = [job.job for job in self._old(before) if self._is_over(job)]
        if not old:
            return
        producer = make_producer(self._connection, transactional_id=None)
        for first in range(0, len(old), _AT_ONCE):
            self._pulse.check()
            self._take_back(producer, old[first : first + _AT_ONCE])
        _log.info("forgot %d jobs that were begun before %s", len(old), before.isoformat())

    def _is_over(self, job: JobMessage) -> bool:
        """Whether a job is of no use to anybody.

        One with an `Idempotency-Key` is, for as long as that key can be sent again.
        """
        name = job.job
        if not (is_inline(name) or is_unkeyed(name) or is_batch(name)):
            return False
        if job.state is not JobState.CLOSED:
            return False
        status = self._results.job(name)
        return status is None or status.state == "complete"

    def _take_back(self, producer: Producer, jobs: Sequence[str]) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self._book.forget((message.key() or b"").decode())

        for job in jobs:
            producer.produce(self._topic, key=job.encode(), value=None, on_delivery=delivered)
        if producer.flush(_FLUSH_SECONDS):
            raise self._connection.fault()

    def _old(self, before: datetime) -> list[OwnJob]:
        """The jobs of APIs that were begun before then."""
        text = before.isoformat().encode()

        def is_old(value: bytes) -> bool:
            # Times of one form, so that they compare as text; decoding all would take minutes.
            created = _CREATED.search(value)
            return created is not None and created[1] < text

        return [job for job in self._book.select(is_old, OwnJob) if job.source == API]
