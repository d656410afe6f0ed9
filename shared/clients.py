"""Kafka clients, made in one place so that what the promise rests on is set in one place.

Properties of the user's (`PAIRSCORE_KAFKA__PROPERTIES`) come last in every client, but may not name
one of those: the settings refuse them.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ClusterMetadata, OffsetSpec

from pairscore import __version__
from pairscore.errors import EnvironmentFault, SettingsError
from shared.settings import KafkaSettings

Config: TypeAlias = dict[str, Any]
Client = TypeVar("Client")

CONNECT_SECONDS: Final = 20.0
TRANSACTION_SECONDS: Final = 30.0
"""A transaction that is left open (its process was killed) holds readers back no longer."""

OVERHEAD_BYTES: Final = 65_536
"""What a score or a dead letter may be longer than the row it is about."""

REDISCOVERY: Final = {"metadata.max.age.ms": 5_000, "connections.max.idle.ms": 10_000}
"""What a transactional client needs for finding a coordinator again once brokers were down.

Without it, `send_offsets_to_transaction` may wait for ever, whatever its timeout, for a coordinator
that was dropped from the metadata meanwhile (librdkafka issues 5456 and 5511). With it, what is
known of coordinators is forgotten after 5 s, and looked at again when an idle connection is closed.
"""

_log = logging.getLogger(__name__)
_REPEAT_SECONDS: Final = 10.0
_REFUSED: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})
# How librdkafka hints at a listener that speaks another protocol than is spoken to it.
_SECURITY: Final = re.compile(r"\b(SSL|SASL|security\.protocol)\b")
_HUNG_UP: Final = re.compile(r"\b(Send failed|Receive failed|Disconnected)\b")


class _NotTwice(logging.Filter):
    """Lets a line of librdkafka through once in 10 s, and none that `on_error` is told too."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage()
        if line.startswith(("FAIL ", "GETPID ")):
            return False
        now = time.monotonic()
        self._seen = {k: t for k, t in self._seen.items() if now - t < _REPEAT_SECONDS}
        return self._seen.setdefault(line, now) == now


def _make_logger() -> logging.Logger:
    # One of its own, not one by name: a filter on that would outlive the connection.
    logger = logging.Logger("librdkafka")  # noqa: LOG001
    logger.parent = _log
    logger.addFilter(_NotTwice())
    return logger


@dataclass(slots=True)
class Connection:
    """What librdkafka says of its connections: logged, and kept to explain why one does not come.

    One object serves all clients of a process.
    """

    settings: KafkaSettings
    last: KafkaError | None = None
    refused: KafkaError | None = None
    logger: logging.Logger = field(default_factory=_make_logger)
    _logged: dict[int, float] = field(default_factory=dict)

    def on_error(self, error: KafkaError) -> None:
        """Take note (librdkafka's error_cb); the same kind is logged every 10 s at most."""
        if self.last is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last = error
        if error.code() in _REFUSED:
            self.refused = error
        now = time.monotonic()
        if now - self._logged.get(error.code(), -_REPEAT_SECONDS) >= _REPEAT_SECONDS:
            self._logged[error.code()] = now
            _log.warning("kafka: %s", error.str())

    def fault(self, error: KafkaError | None = None) -> EnvironmentFault:
        """Why Kafka cannot be worked with, in one line that names the setting."""
        where = self.settings.bootstrap_servers
        why = self.refused or self.last or error
        said = f" ({_reason(why)})" if why is not None else ""
        if self.refused is not None or _SECURITY.search(said):
            return EnvironmentFault(
                f"setting PAIRSCORE_KAFKA__PROPERTIES: Kafka at {where} refused the connection"
                f"{said}; check security.protocol, the user and the password in it"
            )
        hung_up = self.last is not None and (
            # Something listens there, or there were another error.
            self.last.code() == KafkaError._ALL_BROKERS_DOWN or _HUNG_UP.search(said)
        )
        if hung_up:
            return EnvironmentFault(
                f"setting PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: what listens at {where} does not "
                "answer as Kafka does; correct the address, or if that is Kafka, set what it wants "
                "of TLS and login in PAIRSCORE_KAFKA__PROPERTIES"
            )
        return EnvironmentFault(
            f"setting PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: no Kafka broker answers at {where}{said};"
            " start one, or correct the address"
        )


def base_config(connection: Connection) -> Config:
    """What every client has, before the user's properties."""
    return {
        "bootstrap.servers": connection.settings.bootstrap_servers,
        "client.id": f"pairscore-{__version__}",
        "error_cb": connection.on_error,
        "logger": connection.logger,
        "log.connection.close": False,
        "reconnect.backoff.max.ms": 2_000,
        # Otherwise a transactional producer hangs in send_offsets for ever once its only broker was
        # away: librdkafka drops the broker, and keeps it as coordinator (confluentinc/librdkafka
        # issue 5511).
        "metadata.recovery.strategy": "none",
        "socket.connection.setup.timeout.ms": 10_000,
        "topic.metadata.refresh.interval.ms": 30_000,
        "allow.auto.create.topics": False,
    }


def make_admin(connection: Connection) -> AdminClient:
    """A client for topics and offsets.

    Raises:
        SettingsError: a property of the user's is unknown to librdkafka, or has a bad value.
    """
    return _made(connection, AdminClient, base_config(connection))


def make_consumer(
    connection: Connection, *, group: str, extra: Mapping[str, Any] | None = None
) -> Consumer:
    """A read_committed consumer that commits nothing by itself and starts at the earliest record.

    `group` is without the prefix; `extra` are properties of this one.

    Raises:
        SettingsError: as in `make_admin`.
    """
    settings = connection.settings
    config = {
        **base_config(connection),
        "group.id": settings.topic_prefix + group,
        "group.protocol": settings.group_protocol,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "fetch.message.max.bytes": 1_048_576,
        "queued.max.messages.kbytes": 65_536,
    }
    # By topic: an assignor that only counts partitions gives all of `pairs` to one member and the
    # retry tiers to another. It also lets the rows of one URL meet in one member, retries included.
    if settings.group_protocol == "consumer":
        config["group.remote.assignor"] = "range"
    else:
        config["partition.assignment.strategy"] = "range"
        config["session.timeout.ms"] = 10_000
        config["heartbeat.interval.ms"] = 2_000
    return _made(connection, Consumer, {**config, **(extra or {})})


def make_producer(
    connection: Connection, *, transactional_id: str | None, extra: Mapping[str, Any] | None = None
) -> Producer:
    """An idempotent producer; with a `transactional_id` (without the prefix), a transactional one.

    Keys go to the partitions that Kafka's Java clients would choose (murmur2), so that rows of one
    URL meet whoever publishes them.

    Raises:
        SettingsError: as in `make_admin`.
    """
    settings = connection.settings
    config = {
        **base_config(connection),
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "linger.ms": 20,
        "queue.buffering.max.messages": 200_000,
        "queue.buffering.max.kbytes": 262_144,
        "message.max.bytes": settings.max_message_bytes + 3 * OVERHEAD_BYTES,
        # A batch that is longer than a row may be is more than a topic takes.
        "batch.size": min(1_000_000, settings.max_message_bytes),
    }
    if transactional_id is not None:
        config.update(REDISCOVERY)
        config["transactional.id"] = settings.topic_prefix + transactional_id
        config["transaction.timeout.ms"] = int(TRANSACTION_SECONDS * 1000)
    return _made(connection, Producer, {**config, **(extra or {})})


def connect(
    connection: Connection, admin: AdminClient, seconds: float = CONNECT_SECONDS
) -> ClusterMetadata:
    """Wait until the brokers answer.

    Raises:
        EnvironmentFault: they do not within `seconds`, or refuse the login (said at once).
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return admin.list_topics(timeout=min(1.0, seconds))
        except KafkaException as error:
            admin.poll(0)  # serves on_error
            found: KafkaError = error.args[0]
            if connection.refused is not None or time.monotonic() >= deadline:
                raise connection.fault(found) from None


def end_offsets(
    admin: AdminClient, partitions: list[tuple[str, int]], *, committed: bool, seconds: float = 20.0
) -> dict[tuple[str, int], int]:
    """The next offset of each (topic, partition): the last stable one if `committed`.

    Raises:
        KafkaException: the brokers do not answer in time.
    """
    if not partitions:
        return {}
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    asked = {TopicPartition(*each): OffsetSpec.latest() for each in partitions}
    futures = admin.list_offsets(asked, isolation_level=level, request_timeout=seconds)
    return {(p.topic, p.partition): f.result(seconds).offset for p, f in futures.items()}


def _reason(error: KafkaError) -> str:
    """What librdkafka says, without which broker and when, in one line."""
    text = re.sub(r"^(?:\w+://)?[^ ]+/(?:bootstrap|\d+): ", "", error.str())
    return " ".join(re.sub(r" \(after \d+ms in state \w+\)", "", text).split())


def _made(connection: Connection, kind: Callable[[Config], Client], config: Config) -> Client:
    properties = connection.settings.properties
    try:
        return kind({**config, **properties})
    except (KafkaException, ValueError, TypeError) as error:
        found = error.args[0]
        said = found.str() if isinstance(found, KafkaError) else str(found)
        name = "PROPERTIES" if properties else "BOOTSTRAP_SERVERS"
        raise SettingsError(f"setting PAIRSCORE_KAFKA__{name}: {said}") from None
