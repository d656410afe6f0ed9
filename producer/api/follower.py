"""Follows one partition of a topic on a thread of its own, through whatever Kafka goes through."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final, Literal

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from pairscore.errors import EnvironmentFault
from shared.clients import assign_at_once, end_offsets, make_consumer
from shared.connection import Connection, describe
from shared.shutdown import Deadline

_POLL_SECONDS: Final = 0.2
_AT_ONCE: Final = 1_000
_ASK_SECONDS: Final = 1.0
# A client of librdkafka may lose Kafka for good, and say nothing.
_LIFE_SECONDS: Final = 30.0
_ANEW_SECONDS: Final = 1.0
_JOIN_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


class Follower:
    """Reads committed records of (topic, partition) from its beginning or its end on.

    `take` is called in its thread with some records at a time, in order; each record comes at least
    once. A defect is handed to `on_crash`; trouble with Kafka is logged, and reading goes on where
    it was.
    """

    def __init__(
        self,
        connection: Connection,
        admin: AdminClient,
        place: tuple[str, int],
        *,
        begin: Literal["beginning", "end"],
        take: Callable[[Sequence[Message]], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._connection = connection
        self._admin = admin
        self._topic, self._partition = place
        self._begin = begin
        self._take = take
        self._on_crash = on_crash
        self._next = OFFSET_BEGINNING
        self._end = 0
        self._caught_up = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow-{self._topic}", daemon=True)

    def start(self, seconds: float) -> None:
        """Begin; return when all that was there by now has been taken.

        Raises:
            EnvironmentFault: Kafka does not hand it out within `seconds`.
        """
        deadline = Deadline(seconds)
        self._end = self._ask_for_end(deadline)
        if self._begin == "end":
            self._next = self._end
        self._thread.start()
        if not self._caught_up.wait(deadline.left()):
            self.close()
            raise EnvironmentFault(
                f"topic {self._topic} could not be read to its end within {seconds:.0f} s; try "
                "again, or see to the brokers"
            )

    def _ask_for_end(self, deadline: Deadline) -> int:
        place = (self._topic, self._partition)
        while True:
            try:
                seconds = max(_ASK_SECONDS, deadline.left())
                return end_offsets(self._admin, [place], committed=True, seconds=seconds)[place]
            except (KafkaException, TimeoutError) as error:
                # Such as a topic so new, or a broker so lately started, that none leads it yet.
                if deadline.passed:
                    why = error.args[0] if isinstance(error, KafkaException) else None
                    raise self._connection.fault(why) from None
            self._stopping.wait(_POLL_SECONDS)

    def close(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._follow()
                except KafkaException as error:
                    found: KafkaError = error.args[0]
                    _log.warning("reading %s anew: %s", self._topic, describe(found))
                    self._stopping.wait(_ANEW_SECONDS)
        # The one place where a defect of this thread is turned into the end of the process.
        except BaseException as error:  # noqa: BLE001
            self._on_crash(error)

    def _follow(self) -> None:
        consumer = make_consumer(
            self._connection, group="producer.api", extra={"enable.partition.eof": True}
        )
        try:
            assign_at_once(consumer, TopicPartition(self._topic, self._partition, self._next))
            life = Deadline(_LIFE_SECONDS)
            while not (life.passed or self._stopping.is_set()):
                records = self._read(consumer)
                if records:
                    self._take(records)
                    self._next = (records[-1].offset() or 0) + 1
                if self._next >= self._end:
                    self._caught_up.set()
        finally:
            consumer.close()

    def _read(self, consumer: Consumer) -> list[Message]:
        """What is there, waited for a little."""
        found: list[Message] = []
        message = consumer.poll(_POLL_SECONDS)
        while message is not None:
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._next = max(self._next, message.offset() or 0)
                break
            elif error.fatal() or not error.retriable():
                raise KafkaException(error)
            if len(found) >= _AT_ONCE:
                break
            message = consumer.poll(0)
        return found
