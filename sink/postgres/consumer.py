"""The Kafka client of the sinks' group: who takes part, and how much is fetched ahead."""

import logging
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError

from shared.clients import Connection, make_consumer

GROUP: Final = "sink-postgres"

# A sink keeps what it has when another comes or goes, whichever protocol it is.
_STICKY: Final = {
    "consumer": {"group.remote.assignor": "uniform"},
    "classic": {"partition.assignment.strategy": "cooperative-sticky"},
}
# Per partition: all of a backlog would fill memory, and be stored no sooner.
_AHEAD: Final = {
    "queued.min.messages": "2000",
    "queued.max.messages.kbytes": "2048",
    "fetch.message.max.bytes": "32768",
    "fetch.queue.backoff.ms": "10",
}

_log = logging.getLogger(__name__)


def make_group_consumer(connection: Connection) -> Consumer:
    """A member of the group, once it subscribes.

    A position that Kafka no longer has is an event, never a jump. Offsets are committed for people
    to see; whether that works is no matter of the sink's.

    Raises:
        SettingsError: a property of the user's is unknown to librdkafka, or has a bad value.
    """
    return make_consumer(
        connection,
        group=GROUP,
        extra={
            **_STICKY[connection.settings.group_protocol],
            **_AHEAD,
            "auto.offset.reset": "error",
            "on_commit": _on_commit,
        },
    )


def _on_commit(error: KafkaError | None, _partitions: Any) -> None:  # noqa: ANN401
    if error is not None:
        _log.debug("offsets were not committed: %s", error.str())
