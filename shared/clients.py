"""Kafka clients, made in one place so that what the promise rests on is set in one place.

Properties of the user's (`PAIRSCORE_KAFKA__PROPERTIES`) come last in every client, but may not name
one of those: the settings refuse them.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import as_completed
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from pairscore import __version__
from pairscore.errors import SettingsError
from shared.connection import Connection
from shared.shutdown import Deadline

Config: TypeAlias = dict[str, Any]
Client = TypeVar("Client")

CONNECT_SECONDS: Final = 20.0
TRANSACTION_SECONDS: Final = 30.0
"""When a transaction that was left open is given up; Kafka looks every 10 s, readers wait so long.
"""

FENCED: Final = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
    }
)
"""The transactional id is in other hands, or Kafka has given a transaction of its up."""

OVERHEAD_BYTES: Final = 65_536
"""What a score or a dead letter may be longer than the row it is about."""

# What is known of a partition's leader is out of date, or was not known to the leader yet.
_MOVING: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
_MOVING_SECONDS: Final = 0.1
_TRY_SECONDS: Final = 1.0
_SLACK_SECONDS: Final = 2.0
_NAME_SECONDS: Final = 3.0
_ASKED: Final = 5
# A client that was told of no broker may never find one again (librdkafka 2.16). A broker that was
# suspended tells so, until its cluster counts on it again.
_ANEW_SECONDS: Final = 5.0
_TOLD_OF_NONE_SECONDS: Final = 0.1

REDISCOVERY: Final = {
    "metadata.max.age.ms": 5_000,
    "connections.max.idle.ms": 10_000,
    "metadata.recovery.strategy": "none",
}
"""What a transactional client needs for finding a coordinator again once brokers were down.

Without it, `send_offsets_to_transaction` may wait for ever, whatever its timeout, for a coordinator
that was dropped from the metadata meanwhile (librdkafka issues 5456 and 5511). With it, what is
known of coordinators is forgotten after 5 s, and looked at again when an idle connection is closed;
and an only broker that was away is not dropped while it is kept as coordinator. The price is a
producer that never finds a broker again whose metadata left out all of them, as those do that were
suspended for 9 s: see `LOST_SECONDS`.
"""

LOST_SECONDS: Final = 25.0
"""After so long without a transaction that came through, a client has lost Kafka for good.

Another finds it: a worker starts anew, the CSV producer goes on with one. Seen after a suspension,
and, on a busy machine, once in some hundred starts, with a commit that stayed unanswered.
"""


def base_config(connection: Connection) -> Config:
    """What every client has, before the user's properties."""
    return {
        "bootstrap.servers": connection.settings.bootstrap_servers,
        "client.id": f"pairscore-{__version__}",
        "error_cb": connection.on_error,
        "logger": connection.logger,
        "log.connection.close": False,
        "reconnect.backoff.max.ms": 2_000,
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
        # One full queue puts off what is fetched from its broker, for 1 s by default: an urgent row
        # waited for that.
        "fetch.queue.backoff.ms": 20,
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


def assign_at_once(consumer: Consumer, place: TopicPartition) -> None:
    """Have a new consumer read a partition, without the half second that it else waits first.

    Librdkafka looks for a partition's leader at such intervals, unless it has heard of the topic.
    """
    with suppress(KafkaException):  # it goes on looking
        consumer.list_topics(place.topic, timeout=_NAME_SECONDS)
    consumer.assign([place])


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
        # One that follows another at once is put off until Kafka has ended that, in some 10 ms.
        config["retry.backoff.ms"] = 10
    return _made(connection, _Producer, {**config, **(extra or {})})


class _Producer(Producer):
    """One whose calls raise `KafkaException` where confluent-kafka fails to.

    It raises for a fatal error out of a callback, goes on to reports of deliveries, and Python
    then says of either "returned a result with an exception set".
    """

    def poll(self, timeout: float = -1) -> int:
        with _as_meant():
            return super().poll(timeout)

    def flush(self, timeout: float = -1) -> int:
        with _as_meant():
            return super().flush(timeout)

    def commit_transaction(self, timeout: float = -1) -> None:
        with _as_meant():
            super().commit_transaction(timeout)

    def abort_transaction(self, timeout: float = -1) -> None:
        with _as_meant():
            super().abort_transaction(timeout)


@contextmanager
def _as_meant() -> Iterator[None]:
    try:
        yield
    except SystemError as error:
        cause: BaseException | None = error
        while isinstance(cause, SystemError):
            cause = cause.__cause__
        if isinstance(cause, KafkaException):
            raise cause from None
        raise


def connect(
    connection: Connection, seconds: float = CONNECT_SECONDS
) -> tuple[AdminClient, ClusterMetadata]:
    """A client for topics and offsets once the brokers answer, and what they say of the cluster.

    They have to answer at the addresses that they advertise, too.

    Raises:
        EnvironmentFault: they do not within `seconds`, or refuse the login (said at once).
        SettingsError: as in `make_admin`.
    """
    deadline = time.monotonic() + seconds
    patience = min(_TRY_SECONDS, seconds)
    while True:
        admin = make_admin(connection)
        renewal = time.monotonic() + _ANEW_SECONDS
        while time.monotonic() < renewal:
            try:
                found = admin.list_topics(timeout=patience)
                if not found.brokers:
                    time.sleep(_TOLD_OF_NONE_SECONDS)
                    break
                # That may have come by way of a bootstrap address.
                _ask_one(admin, found, patience)
            except (KafkaException, TimeoutError) as error:
                admin.poll(0)  # serves on_error
                why = error.args[0] if isinstance(error, KafkaException) else None
                if connection.refused is not None or time.monotonic() >= deadline:
                    raise connection.fault(why) from None
            else:
                connection.reached = True
                return admin, found
        if time.monotonic() >= deadline:
            raise connection.fault()


def _ask_one(admin: AdminClient, found: ClusterMetadata, seconds: float) -> None:
    """Have a broker answer where it says that it is, be it that it refuses to say anything.

    That is not asked with `describe_cluster`, upon whose answer librdkafka 2.16 aborts the process
    where a cluster is without any broker that counts.

    Raises:
        KafkaException, TimeoutError: none of some does.
    """
    some = random.sample(sorted(found.brokers), min(len(found.brokers), _ASKED))
    resources = [ConfigResource(ResourceType.BROKER, str(each)) for each in some]
    asked = [
        future
        for resource in resources
        for future in admin.describe_configs([resource], request_timeout=seconds).values()
    ]
    failure: BaseException = TimeoutError()
    for future in as_completed(asked, seconds + _SLACK_SECONDS):
        error = future.exception()
        if error is None or _code(error) == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            return
        failure = error
    raise failure


def _code(error: BaseException) -> int | None:
    return error.args[0].code() if isinstance(error, KafkaException) else None


def topic_error(admin: AdminClient, topic: str) -> KafkaError | None:
    """Why Kafka shows nothing of a topic, asked by its name; None if it does, or does not answer.

    Who may not see a topic does not find it among all, and is told so only if asking for it.
    """
    try:
        return admin.list_topics(topic, timeout=_NAME_SECONDS).topics[topic].error
    except KafkaException:
        return None


def end_offsets(
    admin: AdminClient, partitions: list[tuple[str, int]], *, committed: bool, seconds: float = 20.0
) -> dict[tuple[str, int], int]:
    """The next offset of each (topic, partition): the last stable one if `committed`.

    A partition whose leader has changed, or is of a new topic, is looked for anew: of itself an
    admin client may go on for a minute with what it knew (librdkafka 2.16).

    Raises:
        KafkaException: the brokers do not answer in time.
    """
    deadline = Deadline(seconds)
    while partitions:
        try:
            return _end_offsets(admin, partitions, committed=committed, seconds=seconds)
        except KafkaException as error:
            if error.args[0].code() not in _MOVING or deadline.passed:
                raise
        time.sleep(_MOVING_SECONDS)
        with suppress(KafkaException):  # what is wrong comes up in the next round
            for topic in {topic for topic, _ in partitions}:
                admin.list_topics(topic, timeout=deadline.left())
    return {}


def _end_offsets(
    admin: AdminClient, partitions: list[tuple[str, int]], *, committed: bool, seconds: float
) -> dict[tuple[str, int], int]:
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    asked = {TopicPartition(*each): OffsetSpec.latest() for each in partitions}
    futures = admin.list_offsets(asked, isolation_level=level, request_timeout=seconds)
    # The client has the last word on what is late, since it knows why.
    most = seconds + _SLACK_SECONDS
    return {(p.topic, p.partition): f.result(most).offset for p, f in futures.items()}


def _made(connection: Connection, kind: Callable[[Config], Client], config: Config) -> Client:
    properties = connection.settings.properties
    try:
        return kind({**config, **properties})
    except (KafkaException, ValueError, TypeError) as error:
        found = error.args[0]
        said = found.str() if isinstance(found, KafkaError) else str(found)
        name = "PROPERTIES" if properties else "BOOTSTRAP_SERVERS"
        raise SettingsError(f"setting PAIRSCORE_KAFKA__{name}: {said}") from None
