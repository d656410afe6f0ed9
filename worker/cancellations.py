"""Which jobs are cancelled: `cancellations` is read from its beginning, and followed.

On a thread of its own. A client of librdkafka may lose Kafka for good, or go on with a topic that
was deleted, and say nothing: so another one begins again every minute, which costs little.
"""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from pairscore.errors import EnvironmentFault
from shared.cancellations import PARTITION
from shared.clients import make_consumer
from shared.connection import Connection, describe
from shared.messages import CancellationMessage, Rejection, decode
from shared.shutdown import Deadline, try_to_close

READ_SECONDS: Final = 20.0
"""So long a worker waits for the topic to be read, before it begins."""

_LIFE_SECONDS: Final = 60.0
_ASK_SECONDS: Final = 3.0
_PAUSE_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.5
_CLOSE_SECONDS: Final = 1.0
_REFUSED: Final = frozenset(
    {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED}
)
_READING: Final = {"enable.partition.eof": True, "queued.max.messages.kbytes": 1_024}

_log = logging.getLogger(__name__)


class Cancelled(Protocol):
    """The jobs that are cancelled."""

    def __contains__(self, job: str) -> bool:
        """Whether a job is; asked of every row."""
        ...

    def check(self) -> None:
        """Raise what has ended the following of cancellations, if anything has."""
        ...


class Cancellations:
    """Follows `cancellations` while entered; any thread may ask.

    Kafka may be away meanwhile: what was read stays, and what comes is read when it is back. What
    Kafka forgets is known for as long as the process lives.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        *,
        group: str,
        life_seconds: float = _LIFE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Touch nothing yet.

        Args:
            connection: to the brokers.
            topic: its name.
            group: without the prefix; nothing is committed, and no member made.
            life_seconds: how long one client is used.
            clock: monotonic, in seconds.
        """
        self._connection = connection
        self._topic = topic
        self._group = group
        self._life_seconds = life_seconds
        self._clock = clock
        self._jobs: set[str] = set()
        self._read = False
        self._refused: KafkaError | None = None
        self._crash: BaseException | None = None
        self._settled = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cancellations", daemon=True)

    def __contains__(self, job: str) -> bool:
        return job in self._jobs

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._thread.join(2 * _CLOSE_SECONDS)

    def wait(self, seconds: float) -> None:
        """Wait until all is known that was said before; a row scored in vain is not to be had back.

        Raises:
            EnvironmentFault: the topic cannot be read in time, or not by this user.
        """
        self._settled.wait(seconds)
        self.check()
        if self._refused is not None:
            raise EnvironmentFault(
                f"topic {self._topic} cannot be read: {describe(self._refused)}; give this user "
                "the rights that docs/operations.md lists"
            )
        if not self._read:
            raise EnvironmentFault(
                f"topic {self._topic} at {self._connection.settings.bootstrap_servers} was not "
                f"read to its end in {seconds:.0f} s, so it is not known which jobs are cancelled; "
                "see whether a broker leads it (`kafka-topics.sh --describe`)"
            )

    def check(self) -> None:
        """Raise the defect that has ended the thread, if one has."""
        if self._crash is not None:
            raise self._crash

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                if not self._follow():
                    self._closing.wait(_PAUSE_SECONDS)
        # The one place where a defect of this thread is turned into the end of the worker's.
        except BaseException as error:  # noqa: BLE001
            self._crash = error
            self._settled.set()

    def _follow(self) -> bool:
        """Read from the beginning and go on for a while; whether what there was came to its end."""
        consumer = make_consumer(self._connection, group=self._group, extra=_READING)
        is_read = False
        try:
            consumer.assign([TopicPartition(self._topic, PARTITION, self._beginning(consumer))])
            life = Deadline(self._life_seconds, self._clock)
            while not life.passed and not self._closing.is_set():
                record = consumer.poll(_POLL_SECONDS)
                if record is None:
                    continue
                error = record.error()
                if error is None:
                    self._take(record.value())
                elif error.code() == KafkaError._PARTITION_EOF:
                    is_read = self._read = True
                    self._settled.set()
                else:
                    self._complain(error)
                    return False
        finally:
            try_to_close(consumer.close, "the reader of cancellations", _CLOSE_SECONDS)
        if not is_read and not self._closing.is_set():
            self._complain(None)
        return is_read

    def _beginning(self, consumer: Consumer) -> int:
        """Where to begin; a consumer that is to find it by itself takes half a second more."""
        try:
            first, _ = consumer.get_watermark_offsets(
                TopicPartition(self._topic, PARTITION), timeout=_ASK_SECONDS
            )
        except KafkaException:  # as of a topic so new that none leads it yet
            return OFFSET_BEGINNING
        return int(first)

    def _take(self, value: bytes | None) -> None:
        message = decode(CancellationMessage, value)
        if isinstance(message, Rejection):
            _log.warning("a record of %s is ignored: %s", self._topic, message.detail)
        elif message.job not in self._jobs:
            self._jobs.add(message.job)
            _log.info("job %s is cancelled", message.job)

    def _complain(self, error: KafkaError | None) -> None:
        if error is not None and error.code() in _REFUSED and not self._read:
            self._refused = error
            self._settled.set()
        said = "Kafka does not give them" if error is None else describe(error)
        _log.warning("which jobs were cancelled lately is not known: %s", said)
