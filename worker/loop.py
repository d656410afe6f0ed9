"""The worker's loop: take rows, have them scored, publish what came of them, each exactly once.

One thread owns the consumer, the ledger and the transactional producer. It never sleeps, and never
waits for scoring: a full window pauses partitions, and polling goes on.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pairscore.errors import EnvironmentFault
from pairscore.pair import Failure, Reason
from shared.clients import LOST_SECONDS
from shared.connection import describe
from shared.messages import PairMessage
from shared.shutdown import Deadline
from shared.telemetry.traces import Tracer
from shared.topics import Topics
from worker.backpressure import Backpressure
from worker.cancellations import Cancelled
from worker.intake import Intake, Malformed, ToScore, timestamp
from worker.ledger import Ledger, Partition, Record
from worker.membership import Membership
from worker.meter import Meter
from worker.offsets import Offsets
from worker.parking import Parking
from worker.publication import Kind, Publication, Publisher, Traced
from worker.scoring import Scoring, Task
from worker.spans import BatchSpans
from worker.transactions import PUBLISH_SECONDS, Aborted, Fatal, Transactions

LAST_SECONDS: Final = 4.0
"""What publishing the last outcomes may take beyond the time for ending."""

MOST_BYTES: Final = 32_000_000
"""A transaction has so many bytes of rows at most, or one row.

With 2,000 of the longest rows, none would be done in its time where the link is slow.
"""

_log = logging.getLogger(__name__)

_READ_AT_ONCE: Final = 1_000
_MS: Final = 1e-3
_SHORTEST_POLL: Final = 0.02
_LONGEST_POLL: Final = 0.1
_POLL_SHARE: Final = 0.02  # of the time that what is in the scorer takes
_URGENT_POLL: Final = 0.003  # what comes out of the scorer does not end a poll
_URGENT_INTERVAL: Final = 0.02
_QUIET_SECONDS: Final = 0.25
_PREPARE_SECONDS: Final = 20.0
_REVOKED_SECONDS: Final = 20.0
_MOST_BACKOFF: Final = 2.0
_CANCELLED: Final = Failure(Reason.CANCELLED)
_GONE: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED})


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is taken, and when what is finished is published. Times are seconds.

    `window` rows or `window_bytes` fill the window; `rows` finished ones are published at once,
    fewer after `interval`, urgent ones at once; `shutdown` is how long ending may take.
    """

    window: int
    window_bytes: int
    rows: int
    interval: float
    shutdown: float


class Signal(Protocol):
    """Says when to end."""

    @property
    def asked(self) -> bool:
        """Whether the process was asked to end."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker is made of."""

    consumer: Consumer
    assign: Callable[[list[TopicPartition]], object]
    transactions: Transactions
    ledger: Ledger[Publication]
    scoring: Scoring
    parking: Parking[Task]
    backpressure: Backpressure
    intake: Intake
    cancelled: Cancelled
    publisher: Publisher
    meter: Meter
    tracer: Tracer


class Worker:
    """startup -> main loop -> shutdown; see `run`."""

    def __init__(
        self,
        parts: Parts,
        topics: Topics,
        pace: Pace,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`clock` measures, `wall` (seconds since the epoch) is compared with Kafka's times."""
        self._consumer = parts.consumer
        self._transactions = parts.transactions
        self._ledger = parts.ledger
        self._scoring = parts.scoring
        self._parking = parts.parking
        self._backpressure = parts.backpressure
        self._intake = parts.intake
        self._cancelled = parts.cancelled
        self._publisher = parts.publisher
        self._meter = parts.meter
        self._tracer = parts.tracer
        self._topics = topics
        self._pace = pace
        self._clock = clock
        self._wall = wall
        self._published_at = clock()
        self._hurried_at = self._published_at
        self._committed_at = self._published_at
        self._not_before = 0.0
        self._aborts = 0
        self._failing_since: float | None = None
        self._overdue: Task | None = None
        self._busy_since: float | None = None
        self._offsets = Offsets(
            self._consumer, self._transactions, self._ledger, self._meter, clock
        )
        self._membership = Membership(
            self._consumer,
            self._ledger,
            self._parking,
            self._backpressure,
            self._offsets,
            self._meter,
            assign=parts.assign,
            publish=self._publish_all,
        )

    def run(self, stop: Signal) -> None:
        """Work until asked to end, then finish what can be finished in time.

        Raises:
            Fatal: another worker has taken over, or Kafka cannot be worked with.
            ScorerCrashed: a defect in a stage of the scorer.
        """
        self._transactions.prepare(_PREPARE_SECONDS)
        self._membership.join(self._topics.to_score)
        while not stop.asked:
            self.step()
        self._drain(Deadline(self._pace.shutdown, self._clock))
        self._membership.leave()

    def step(self) -> None:
        """One round: read, collect, hand over, pause or resume, publish."""
        self._beat()
        self._cancelled.check()
        for message in self._poll():
            self._take(message)
        rows = self._collect()
        self._hand_over()
        self._tell_busy(rows)
        self._backpressure.apply(
            self._ledger.partitions,
            records=self._taken,
            size=self._taken_bytes,
            held=self._ledger.held,
            parked=lambda each: each in self._parking or self._offsets.waits(each),
        )
        self._publish_due(PUBLISH_SECONDS)
        self._offsets.renew()
        self._meter.show(
            self._ledger, self._scoring.in_flight, self._backpressure.paused, self._wall()
        )

    def _tell_busy(self, rows: int) -> None:
        """What one worker can do is measured where it has enough to do, from round to round."""
        now, was = self._clock(), self._busy_since
        if was is not None:
            self._meter.busy(now - was, rows)
        self._busy_since = now if self._scoring.is_full else None

    def _beat(self) -> None:
        """Say that all goes on; but where a row does not come out of the scorer, it does not.

        The row holds back its partition for ever, so the watchdog is to end the process.
        """
        overdue = self._scoring.overdue()
        if overdue is None:
            self._meter.beat()
        elif overdue is not self._overdue:
            record = overdue.record
            _log.error(
                "a row does not come out of the scorer, and its partition waits for it: %s "
                "partition %d, offset %d, job %s, row %d; if that goes on, the process ends",
                *(*record.partition, record.offset, overdue.pair.job, overdue.pair.row),
            )
        self._overdue = overdue

    def _poll(self) -> Iterator[Message]:
        """Read what is there, up to the room in the window, one record at least.

        One by one, since `consume` may hand over, after partitions have come, records of the time
        before. Rounds cost the scorer more than the CPU they take, as its threads wait for each
        other: so there are few while it has much to do, and more where somebody waits for a row.
        """
        message = self._consumer.poll(self._patience())
        rows = min(_READ_AT_ONCE, self._pace.window - self._taken)
        room = self._pace.window_bytes - self._taken_bytes
        while message is not None:
            yield message
            rows -= 1
            room -= len(message)
            if rows <= 0 or room <= 0:
                return
            message = self._consumer.poll(0)

    @property
    def _taken(self) -> int:
        """How many rows are in the window: those that are parked are beside it."""
        return self._ledger.unconfirmed - len(self._parking)

    @property
    def _taken_bytes(self) -> int:
        return self._ledger.unconfirmed_bytes - self._parking.size

    def _patience(self) -> float:
        """How long to wait for a record, in seconds, if none is there."""
        if not self._taken:
            return _LONGEST_POLL
        if self._scoring.urgent_in_flight or self._urgent_ready():
            return _URGENT_POLL
        share = self._scoring.seconds_left * _POLL_SHARE
        return min(_LONGEST_POLL, max(_SHORTEST_POLL, share))

    def _take(self, message: Message) -> None:
        topic, number, offset = message.topic(), message.partition(), message.offset()
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            self._complain(error, topic)
            return
        if topic is None or number is None or offset is None:
            return
        partition = (topic, number)
        if partition not in self._ledger:  # revoked within the call that read it
            return
        if self._offsets.redirect(partition, offset):
            return
        if error is not None:
            self._ledger.reached(partition, offset)
            self._meter.reached_end(partition)
            self._backpressure.reached_end(partition)
            return
        self._backpressure.has_more(partition)
        record = self._ledger.observe(partition, offset, len(message))
        self._meter.read(partition, timestamp(message) * _MS)
        if not self._ledger.is_published(record):
            self._begin(record, message)

    def _begin(self, record: Record[Publication], message: Message) -> None:
        """Have a row scored now, or once it is due; or settle what is not to be scored."""
        partition = record.partition
        arrival = self._intake.read(partition[0], message, self._wall())
        if isinstance(arrival, ToScore) and arrival.pair.job in self._cancelled:
            self._settle(record, arrival.pair, _CANCELLED, arrival.trace)
        elif isinstance(arrival, ToScore):
            task = Task(record, arrival.pair, arrival.urgent, arrival.trace)
            if arrival.due is not None and (
                arrival.due > self._wall() or partition in self._parking
            ):
                self._parking.put(partition, arrival.due, task, record.size)
            else:
                self._scoring.put(task)
        elif isinstance(arrival, Malformed):
            self._settle(record, arrival.pair, arrival.failure, arrival.trace)
        else:
            _log.warning(
                "a record goes to the dead-letter topic: %s: %s",
                arrival.rejection.defect.value,
                arrival.rejection.detail,
                extra={"topic": partition[0], "partition": partition[1], "offset": record.offset},
            )
            letter = self._publisher.rejection(arrival.rejection, arrival.origin)
            self._ledger.resolve(record, letter)

    def _settle(
        self,
        record: Record[Publication],
        pair: PairMessage,
        failure: Failure,
        trace: Traced | None,
    ) -> None:
        """Give a row the outcome that it has without being scored."""
        now = datetime.now(UTC)
        self._ledger.resolve(record, self._publisher.outcome(pair, failure, now, trace))
        self._meter.finished(pair, now)

    def _collect(self, seconds: float = 0.0) -> int:
        """Take what has come out of the scorer; how many rows have got their outcome."""
        now: datetime | None = None
        rows = 0
        for task, outcome in self._scoring.collect(seconds):
            now = now or datetime.now(UTC)
            publication = self._publisher.outcome(task.pair, outcome, now, task.trace)
            if publication.kind is Kind.RETRY and task.pair.job in self._cancelled:
                failure = replace(_CANCELLED, attempts=outcome.attempts)
                publication = self._publisher.outcome(task.pair, failure, now, task.trace)
            if not self._ledger.resolve(task.record, publication):
                self._meter.dropped()
            elif publication.kind is Kind.SCORE:
                rows += 1
                self._meter.finished(task.pair, now)
        return rows

    def _hand_over(self) -> None:
        for task in self._parking.take(self._wall()):
            self._scoring.put(task)
        self._scoring.submit(self._is_wanted)

    def _is_wanted(self, task: Task) -> bool:
        """Whether a row that has waited is still to be scored, and by this worker."""
        if not self._ledger.is_current(task.record):
            return False
        if task.pair.job not in self._cancelled:
            return True
        self._settle(task.record, task.pair, _CANCELLED, task.trace)
        return False

    def _publish_due(self, seconds: float) -> None:
        """Publish what is urgent, by itself so that it is soon done, and all if it is time."""
        may = self._clock() >= max(self._not_before, self._hurried_at + _URGENT_INTERVAL)
        if may and (urgent := self._urgent_ready()):
            self._publish(seconds, only=urgent)
            self._hurried_at = self._clock()
            self._beat()
        # Offsets alone have time: what comes right after a transaction waits for that to end.
        quiet = self._clock() - self._committed_at >= _QUIET_SECONDS
        if self._is_due() and (quiet or self._ledger.ready):
            self._publish(seconds)

    def _urgent_ready(self) -> list[Partition]:
        """The partitions with urgent rows of which some can be published."""
        return [
            partition
            for partition in self._ledger.partitions
            if partition[0] == self._topics.interactive and self._ledger.has_ready(partition)
        ]

    def _is_due(self) -> bool:
        now = self._clock()
        if now < self._not_before:
            return False
        idle = not self._scoring.in_flight and not self._scoring.waiting
        return (
            idle
            or self._ledger.ready >= self._pace.rows
            or self._ledger.ready_bytes >= MOST_BYTES
            or now - self._published_at >= self._pace.interval
        )

    def _publish(self, seconds: float, *, only: Collection[Partition] | None = None) -> bool:
        """Publish what is finished; False where that is aborted and stays for the next time.

        As much as one transaction takes, of all partitions or of those in `only`.
        """
        plan = self._ledger.plan(self._pace.rows, limit_bytes=MOST_BYTES, only=only)
        if not plan:
            if only is None:
                self._published_at = self._clock()
                self._failing_since = None
            return True
        started = self._clock()
        try:
            with BatchSpans(self._tracer, plan.outcomes) as spans:
                self._transactions.publish(spans.carried_by(plan), seconds)
        except Aborted as error:
            self._put_off(error)
            return False
        self._ledger.confirm(plan)
        now = self._committed_at = self._clock()
        self._meter.committed(plan, now - started, spans.trace_ids)
        # What some partitions could have says nothing of the others, whose time it is still.
        if only is None:
            self._aborts = 0
            self._failing_since = None
            self._published_at = now
        return True

    def _publish_all(self, partitions: Collection[Partition]) -> None:
        """Publish what is finished of partitions that are to go, unless Kafka takes too long."""
        deadline = Deadline(_REVOKED_SECONDS, self._clock)
        while self._ledger.plan(1, only=partitions) and not deadline.passed:
            self._meter.beat()
            if not self._publish(deadline.left(), only=partitions):
                return

    def _put_off(self, error: Aborted) -> None:
        """Try the transaction again in a while; but a client may never find its brokers again.

        How long the first one took does not count: the process may have been stopped in it.
        """
        now = self._clock()
        self._aborts += 1
        self._failing_since = now if self._failing_since is None else self._failing_since
        self._meter.aborted()
        failing = now - self._failing_since
        if failing >= LOST_SECONDS:
            raise Fatal(
                f"Kafka: all transactions were aborted for {failing:.0f} s, the last because: "
                f"{error}; the worker must start anew"
            )
        self._not_before = now + min(_MOST_BACKOFF, 0.05 * 2**self._aborts)

    def _drain(self, deadline: Deadline) -> None:
        """Finish what is in the scorer, for as long as there is time; begin nothing."""
        _log.info("asked to end: finishing %d rows", self._scoring.in_flight)
        self._scoring.drop_waiting()
        while self._scoring.in_flight and not deadline.passed:
            self._meter.beat()
            self._collect(min(0.1, deadline.left() or 0.001))
            self._publish_due(max(LAST_SECONDS, deadline.left()))
        last = Deadline(LAST_SECONDS, self._clock)
        while self._ledger.plan(1) and not last.passed:
            self._meter.beat()
            if not self._publish(last.left()):
                break  # who has lost the membership does not get it back without polling
        _log.info("ending: %d rows are left to other workers", self._ledger.unconfirmed)

    def _complain(self, error: KafkaError, topic: str | None) -> None:
        if error.fatal():
            raise Fatal(f"Kafka: {describe(error)}; the worker must start anew")
        if error.code() in _GONE:
            raise EnvironmentFault(
                f"topic {topic} cannot be read ({describe(error)}); create it with "
                "`python -m shared.topics create`, or see to the rights of this user"
            )
        _log.warning("kafka: %s", describe(error))


def pause_and_resume(
    consumer: Consumer,
) -> tuple[Callable[[list[Partition]], None], Callable[[list[Partition]], None]]:
    """What `Backpressure` calls; a partition that was revoked meanwhile is no error."""

    def wrap(step: Callable[[list[TopicPartition]], None]) -> Callable[[list[Partition]], None]:
        def call(partitions: list[Partition]) -> None:
            try:
                step([TopicPartition(*each) for each in partitions])
            except KafkaException as error:
                _log.debug("pausing or resuming: %s", error)

        return call

    return wrap(consumer.pause), wrap(consumer.resume)
