"""Cancelling a job: one message on `cancellations`, which every worker follows."""

from datetime import UTC, datetime
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pairscore.errors import EnvironmentFault
from shared.connection import Connection, describe
from shared.messages import CancellationMessage
from shared.shutdown import Deadline
from shared.topics import Topics

CANCEL_SECONDS: Final = 20.0
"""So long Kafka is waited for."""

PARTITION: Final = 0
"""The only one that is written and read, should the topic have more by mistake."""

_POLL_SECONDS: Final = 0.1
_AWAY: Final = frozenset({KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError._TRANSPORT})


def cancel(
    connection: Connection, producer: Producer, job: str, seconds: float = CANCEL_SECONDS
) -> None:
    """Have workers score no more rows of a job; when this returns, Kafka has been told.

    Rows that are not scored yet come out with `Reason.CANCELLED`, those that are published later
    too; what is in a scorer at that moment comes out with its score. Safe to do twice, whether or
    not there is such a job; nothing takes it back.

    Args:
        connection: to the brokers.
        producer: of `make_producer` without a transactional id; any thread may use it meanwhile.
        job: its name, of which `check_job` has been asked.
        seconds: how long to wait for Kafka's acknowledgement.

    Raises:
        EnvironmentFault: Kafka does not answer, or refuses. The job may be cancelled all the same
            where it did not answer.
    """
    settled: list[KafkaError | None] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        settled.append(error)

    topic = Topics.of(connection.settings).cancellations
    message = CancellationMessage(job=job, cancelled_at=datetime.now(UTC))
    deadline = Deadline(seconds)
    try:
        producer.produce(
            topic,
            key=job.encode(),
            value=message.encode(),
            partition=PARTITION,
            on_delivery=delivered,
        )
    except KafkaException as error:
        raise _fault(connection, topic, job, error.args[0]) from None
    while not settled:
        if deadline.passed:
            raise connection.fault()
        producer.poll(min(_POLL_SECONDS, deadline.left()))
    if settled[0] is not None:
        raise _fault(connection, topic, job, settled[0])


def _fault(connection: Connection, topic: str, job: str, error: KafkaError) -> EnvironmentFault:
    if error.code() in _AWAY:
        return connection.fault(error)
    return EnvironmentFault(
        f"topic {topic} at {connection.settings.bootstrap_servers} does not take it that job {job} "
        f"is cancelled: {describe(error)}"
    )
