"""The Kafka client of a sink, and what every sink makes of what Kafka says.

A position that Kafka no longer has is an event, never a jump. Offsets are committed for Kafka's
tools to show a sink's lag; nothing is ever read from there, so whether that works is no matter.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pairscore.errors import EnvironmentFault
from shared.clients import make_consumer
from shared.connection import Connection, describe
from shared.shutdown import try_to_close

# A commit that Kafka does not answer would hold it up for 45 s or more.
_CLOSE_SECONDS: Final = 3.0
_GONE: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)
# Per partition: all of a backlog would fill memory, and be stored no sooner.
_AHEAD: Final = {
    "queued.max.messages.kbytes": 512,
    "fetch.queue.backoff.ms": 10,
    "fetch.message.max.bytes": 16_384,
}

_log = logging.getLogger(__name__)


def make_sink_consumer(
    connection: Connection, group: str, extra: Mapping[str, str | int | bool]
) -> Consumer:
    """A consumer of the sinks' group `group`; `extra` are properties of this kind of sink.

    Raises:
        SettingsError: a property of the user's is unknown to librdkafka, or has a bad value.
    """
    return make_consumer(
        connection,
        group=group,
        extra={**_AHEAD, "auto.offset.reset": "error", "on_commit": _on_commit, **extra},
    )


def show_progress(consumer: Consumer, next_offsets: list[TopicPartition]) -> None:
    """Tell Kafka how far the sink is."""
    try:
        if next_offsets:
            consumer.commit(offsets=next_offsets, asynchronous=True)
    except KafkaException as error:
        _log.debug("offsets were not committed: %s", error)


def close_consumer(consumer: Consumer) -> None:
    """Leave Kafka, unless it does not listen: everything that counts is stored."""
    try_to_close(consumer.close, "consumer", _CLOSE_SECONDS)


def refuse_what_is_final(
    topic: str | None, error: KafkaError, more: Collection[int] = frozenset()
) -> None:
    """Return from an error that may pass; `more` are codes that are final too.

    Raises:
        EnvironmentFault: the topic is gone, or may not be read.
    """
    if error.fatal() or error.code() in _GONE or error.code() in more:
        raise EnvironmentFault(f"topic {topic} cannot be read any more: {describe(error)}")


def _on_commit(error: KafkaError | None, _partitions: Any) -> None:  # noqa: ANN401
    if error is not None:
        _log.debug("offsets were not committed: %s", describe(error))
