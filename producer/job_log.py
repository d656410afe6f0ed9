"""What the topic `jobs` says of a job."""

import logging
from collections.abc import Callable
from typing import Final, Generic

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from pairscore.errors import EnvironmentFault, InputError
from producer.job import AnyJob, refuse_stranger
from producer.pulse import Pulse
from shared.clients import assign_at_once, end_offsets, make_consumer
from shared.connection import Connection, describe
from shared.messages import JobMessage, JobState, Rejection, decode
from shared.shutdown import Deadline

READ_SECONDS: Final = 45.0
"""An open transaction, of another job's, ends by itself within 40 s."""

_ASK_SECONDS: Final = 20.0
_SAY_AFTER: Final = 3.0
_POLL_SECONDS: Final = 0.2
_GRACE_SECONDS: Final = 1.0
_GRACE_POLL_SECONDS: Final = 0.05
_REFUSED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)

_log = logging.getLogger(__name__)


class JobLog(Generic[AnyJob]):
    """Reads `jobs`, which has one partition, for jobs of one kind.

    A read gives all that was committed before it began, however long somebody else's transaction
    stands in front of it: up to the last stable offset alone, a message of ours behind such a one
    would be missed, and its rows published twice.
    """

    def __init__(
        self,
        connection: Connection,
        admin: AdminClient,
        topic: str,
        pulse: Pulse,
        kind: type[AnyJob],
        outage: float = READ_SECONDS,
    ) -> None:
        """Touch nothing yet; `outage` is how many seconds Kafka is waited for that says nothing."""
        self._outage = outage
        self._kind = kind
        self._connection = connection
        self._admin = admin
        self._topic = topic
        self._pulse = pulse

    def latest(self, job: str, *, settled: bool = True) -> AnyJob | None:
        """The latest message of a job; None if there is none.

        Args:
            job: its name.
            settled: wait for open transactions that a message may stand behind; False gives what
                can be read within a second.

        Raises:
            InputError: the job is of another kind, or of another version.
            EnvironmentFault: Kafka does not answer, or a transaction stays open for too long.
            KeyboardInterrupt: asked to stop.
        """
        value = self._read(lambda name: name == job, settled=settled).get(job)
        return None if value is None else _understood(self._kind, job, value)

    def find(self, job: str) -> JobMessage | None:
        """The latest message of a job of any kind, whoever publishes it; None if there is none.

        Raises:
            InputError: it cannot be understood.
            EnvironmentFault, KeyboardInterrupt: as in `latest`.
        """
        value = self._read(lambda name: name == job, settled=True).get(job)
        found = None if value is None else decode(JobMessage, value)
        if isinstance(found, Rejection):
            raise InputError(
                f"job {job} is on topic {self._topic} and cannot be understood ({found.detail}); "
                "use the version of pairscore that it was published with, or a later one"
            )
        return found

    def open_jobs(self, wanted: Callable[[str], bool]) -> list[AnyJob]:
        """The jobs of such names that are open; other kinds and versions are left out.

        Raises:
            EnvironmentFault, KeyboardInterrupt: as `latest`.
        """
        values = self._read(wanted, settled=True).values()
        found = (decode(self._kind, value) for value in values)
        return [
            job for job in found if not isinstance(job, Rejection) and job.state is JobState.OPEN
        ]

    def _read(self, wanted: Callable[[str], bool], *, settled: bool) -> dict[str, bytes]:
        """The latest value of each job of such a name."""
        try:
            return self._read_all(wanted, settled=settled)
        except KafkaException as error:
            found: KafkaError = error.args[0]
            if found.code() in _REFUSED:
                raise EnvironmentFault(
                    f"topic {self._topic} cannot be read: {describe(found)}; let this user read it"
                ) from None
            raise self._connection.fault(found) from None
        except TimeoutError:
            raise self._connection.fault() from None

    def _read_all(self, wanted: Callable[[str], bool], *, settled: bool) -> dict[str, bytes]:
        end = self._end(settled=settled)
        if end == 0:
            return {}
        consumer = make_consumer(
            self._connection,
            group="producer",
            extra={"enable.partition.eof": True, "fetch.wait.max.ms": 50},
        )
        try:
            assign_at_once(consumer, TopicPartition(self._topic, 0, OFFSET_BEGINNING))
            return self._read_to(consumer, wanted, end)
        finally:
            consumer.close()

    def _end(self, *, settled: bool) -> int:
        """The next offset, behind open transactions or before the first of them."""
        deadline = self._pulse.deadline(self._outage)
        # Of what was committed this very moment, readers hear a little later.
        grace = self._pulse.deadline(_GRACE_SECONDS)
        while True:
            self._pulse.check()
            try:
                end = self._ask_for_end(committed=not settled)
                if settled or grace.passed or end == self._ask_for_end(committed=False):
                    return end
            except KafkaException as error:
                # Such as a topic so new, or a broker so lately started, that none leads it yet.
                if error.args[0].code() in _REFUSED or deadline.passed:
                    raise
            self._pulse.wait(_POLL_SECONDS if settled else _GRACE_POLL_SECONDS)

    def _ask_for_end(self, *, committed: bool) -> int:
        place = (self._topic, 0)
        seconds = min(_ASK_SECONDS, self._outage)
        return end_offsets(self._admin, [place], committed=committed, seconds=seconds)[place]

    def _read_to(
        self, consumer: Consumer, wanted: Callable[[str], bool], end: int
    ) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        deadline, patience = self._deadlines()
        held_up = False
        while True:
            record = consumer.poll(_POLL_SECONDS)
            self._pulse.check()
            if record is not None and record.error() is None:
                name = _text(record.key())
                if (value := record.value()) is None:
                    found.pop(name, None)
                elif wanted(name):
                    found[name] = value
                deadline, patience = self._deadlines()
                continue
            if record is not None and (reached := _end_reached(record)) is not None:
                if reached >= end:
                    return found
                held_up = True
                deadline = self._pulse.deadline(READ_SECONDS)
            if deadline.passed:
                raise self._fault(held_up=held_up)
            if patience is not None and patience.passed:
                patience = None
                self._say_why(held_up=held_up)

    def _deadlines(self) -> tuple[Deadline, Deadline | None]:
        return self._pulse.deadline(self._outage), self._pulse.deadline(_SAY_AFTER)

    def _say_why(self, *, held_up: bool) -> None:
        if held_up:
            _log.warning(
                "waiting for another producer's transaction on %s to end, which it does within"
                " %.0f s",
                self._topic,
                READ_SECONDS,
            )
        else:
            _log.warning("waiting for Kafka to hand out %s", self._topic)

    def _fault(self, *, held_up: bool) -> EnvironmentFault:
        if held_up:
            return EnvironmentFault(
                f"topic {self._topic}: a transaction has been open for more than "
                f"{READ_SECONDS:.0f} s, so that what is behind it cannot be read; try again, or "
                "end it with Kafka's `kafka-transactions.sh abort`"
            )
        return self._connection.fault()


def _text(key: str | bytes | None) -> str:
    return key.decode(errors="replace") if isinstance(key, bytes) else key or ""


def _end_reached(record: Message) -> int | None:
    """The next offset, where the event says that all before it is read."""
    error = record.error()
    if error is not None and error.code() == KafkaError._PARTITION_EOF:
        return record.offset()
    if error is not None and (error.code() in _REFUSED or error.fatal()):
        raise KafkaException(error)
    return None


def _understood(kind: type[AnyJob], job: str, value: bytes) -> AnyJob:
    found = decode(kind, value)
    if not isinstance(found, Rejection):
        return found
    known = decode(JobMessage, value)
    if isinstance(known, Rejection):
        raise refuse_stranger(job, f"cannot be understood ({found.detail})")
    raise refuse_stranger(job, f"comes from {known.source!r}, not from such a file")
