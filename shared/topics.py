"""The topics: their names, what they are like, and `python -m shared.topics create`."""

import argparse
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata, NewPartitions, NewTopic

from pairscore.errors import EnvironmentFault, SettingsError
from shared.clients import OVERHEAD_BYTES, connect, topic_error
from shared.connection import Connection, describe
from shared.service import run_service
from shared.settings import KafkaSettings, ServiceSettings, read_service_settings
from shared.shutdown import Deadline

MAX_BYTES: Final = "max.message.bytes"
"""What Kafka calls the limit of a topic's messages."""

CLEANUP: Final = "cleanup.policy"
"""What Kafka calls the way in which a topic forgets."""

_DAY_MS: Final = 24 * 3600 * 1000
_JOBS_BYTES: Final = 16 * 1024 * 1024
_TIMEOUT: Final = 20.0
_PATIENCE: Final = 5.0
_PAUSE: Final = 0.05


@dataclass(frozen=True, slots=True)
class RetryTier:
    """A topic whose records are due `delay` seconds after they were published to it."""

    topic: str
    delay: int


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of all topics, prefix included."""

    pairs: str
    interactive: str
    retries: tuple[RetryTier, ...]
    dead_letters: str
    scores: str
    replies: str
    jobs: str
    cancellations: str

    @classmethod
    def of(cls, settings: KafkaSettings) -> "Topics":
        """The topics of a fleet with these settings."""
        prefix = settings.topic_prefix
        return cls(
            pairs=f"{prefix}pairs",
            interactive=f"{prefix}pairs.interactive",
            retries=tuple(
                RetryTier(f"{prefix}pairs.retry.{delay}s", delay) for delay in settings.retry_delays
            ),
            dead_letters=f"{prefix}pairs.dlq",
            scores=f"{prefix}scores",
            replies=f"{prefix}replies",
            jobs=f"{prefix}jobs",
            cancellations=f"{prefix}cancellations",
        )

    @property
    def to_score(self) -> tuple[str, ...]:
        """The topics that workers read."""
        return (self.pairs, self.interactive, *(tier.topic for tier in self.retries))

    @property
    def of_outcomes(self) -> tuple[str, ...]:
        """The topics that workers publish to."""
        retries = (tier.topic for tier in self.retries)
        return (*retries, self.dead_letters, self.scores, self.replies)

    @property
    def all(self) -> tuple[str, ...]:
        """Every topic."""
        return (
            *self.to_score,
            self.dead_letters,
            self.scores,
            self.replies,
            self.jobs,
            self.cancellations,
        )


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What a topic should be like; `config` are Kafka's own names and values."""

    name: str
    partitions: int
    config: dict[str, str]


def specs(settings: KafkaSettings) -> tuple[TopicSpec, ...]:
    """What every topic should be like.

    `jobs` has one partition, so that it is read in order; `cancellations`, as it is small, and kept
    for a little longer than the rows that it is about.
    """
    topics = Topics.of(settings)
    row = settings.max_message_bytes + OVERHEAD_BYTES

    def kept(name: str, days: int, size: int = row) -> TopicSpec:
        config = {
            CLEANUP: "delete",
            "retention.ms": str(days * _DAY_MS),
            MAX_BYTES: str(size),
        }
        return TopicSpec(name, settings.partitions, config)

    return (
        kept(topics.pairs, 14),
        kept(topics.interactive, 1),
        *(kept(tier.topic, 14) for tier in topics.retries),
        kept(topics.dead_letters, 30, row + OVERHEAD_BYTES),
        kept(topics.scores, 7, row + OVERHEAD_BYTES),
        kept(topics.replies, 1, row + OVERHEAD_BYTES),
        # In short segments, as only whole ones are compacted: an API says anew, with each of its
        # transactions, how many rows it has published.
        TopicSpec(
            topics.jobs,
            1,
            {CLEANUP: "compact", "segment.ms": str(_DAY_MS), "segment.bytes": str(_JOBS_BYTES)},
        ),
        TopicSpec(
            topics.cancellations,
            1,
            {
                CLEANUP: "compact,delete",
                "retention.ms": str(15 * _DAY_MS),
                "segment.ms": str(_DAY_MS),
            },
        ),
    )


def create_topics(settings: KafkaSettings, admin: AdminClient, found: ClusterMetadata) -> list[str]:
    """Create what is missing and add partitions where there are too few; say what was done.

    Nothing is ever deleted, made smaller or configured anew. Safe to run by several at once.
    Returns when brokers know what was done: they learn of it after Kafka said that it was.

    Raises:
        EnvironmentFault: Kafka refuses, or has a `jobs` that cannot be used.
    """
    _check_jobs(settings, found)
    brokers = len(found.brokers)
    copies = settings.replication or min(3, brokers)
    if copies > brokers:
        raise SettingsError(
            f"setting PAIRSCORE_KAFKA__REPLICATION: {copies} copies need as many brokers, and "
            f"there are {brokers}"
        )
    durable = {"min.insync.replicas": "2"} if copies > 2 else {}
    wanted = specs(settings)
    new = [
        NewTopic(spec.name, spec.partitions, copies, config={**spec.config, **durable})
        for spec in wanted
        if spec.name not in found.topics
    ]
    grown = [
        NewPartitions(spec.name, spec.partitions)
        for spec in wanted
        if spec.name in found.topics and len(found.topics[spec.name].partitions) < spec.partitions
    ]
    done: list[str] = []
    within = {"operation_timeout": _TIMEOUT, "request_timeout": _TIMEOUT}
    if new:
        for name, future in admin.create_topics(new, **within).items():
            done += _settled(settings, name, future, "created", KafkaError.TOPIC_ALREADY_EXISTS)
    if grown:
        for name, future in admin.create_partitions(grown, **within).items():
            done += _settled(settings, name, future, "grown", KafkaError.INVALID_PARTITIONS)
    if new or grown:
        _await(settings, admin, wanted)
    return done


def check_topics(
    settings: KafkaSettings, admin: AdminClient, found: ClusterMetadata, names: Iterable[str]
) -> None:
    """Make sure that the topics of these names are there and have enough partitions.

    `found` is what this user may see.

    Raises:
        EnvironmentFault: one is not, or has not; says what to do.
    """
    _check_jobs(settings, found)
    wanted = {spec.name: spec.partitions for spec in specs(settings)}
    for name in names:
        topic = found.topics.get(name)
        if topic is None or topic.error is not None:
            raise EnvironmentFault(_absent(settings, name, topic_error(admin, name)))
        if len(topic.partitions) < wanted[name]:
            raise EnvironmentFault(
                f"setting PAIRSCORE_KAFKA__PARTITIONS: topic {name} has {len(topic.partitions)} "
                f"partitions, and {wanted[name]} are wanted; add them with "
                "`python -m shared.topics create`, or lower the setting"
            )


def _absent(settings: KafkaSettings, name: str, error: KafkaError | None) -> str:
    if _is_hidden(error):
        return (
            f"topic {name} at {settings.bootstrap_servers} may not be seen by this user; give it "
            "the rights that docs/operations.md lists (`kafka-acls.sh --topic`), or correct "
            "PAIRSCORE_KAFKA__TOPIC_PREFIX"
        )
    return (
        f"topic {name} does not exist at {settings.bootstrap_servers}; create it with "
        "`python -m shared.topics create`, or correct PAIRSCORE_KAFKA__TOPIC_PREFIX"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m shared.topics create`: the exit code."""
    parser = argparse.ArgumentParser(prog="python -m shared.topics", description=__doc__)
    parser.add_argument("command", choices=("create", "list"))
    command = parser.parse_args(arguments).command
    return run_service("topics", lambda: _main(command))


def _main(command: str) -> int:
    settings = read_service_settings(ServiceSettings).kafka
    connection = Connection(settings)
    admin, found = connect(connection)
    if command == "create":
        done = create_topics(settings, admin, found)
        lines = done or [f"all {len(specs(settings))} topics are there"]
    else:
        lines = [_describe(admin, found, spec) for spec in specs(settings)]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _check_jobs(settings: KafkaSettings, found: ClusterMetadata) -> None:
    """Make sure that `jobs` has no more than one partition: only the first is read."""
    name = Topics.of(settings).jobs
    topic = found.topics.get(name)
    if topic is not None and len(topic.partitions) > 1:
        raise EnvironmentFault(
            f"topic {name} at {settings.bootstrap_servers} has {len(topic.partitions)} partitions "
            "and must have one, or jobs would be published twice; a broker may have made it by "
            "itself (auto.create.topics.enable): if no job is under way, delete it and create it "
            "with `python -m shared.topics create`, or choose another PAIRSCORE_KAFKA__TOPIC_PREFIX"
        )


def _await(settings: KafkaSettings, admin: AdminClient, wanted: Iterable[TopicSpec]) -> None:
    deadline, pause = Deadline(_TIMEOUT), threading.Event()
    while not _known(admin, wanted):
        if deadline.passed:
            raise EnvironmentFault(
                f"the topics created at {settings.bootstrap_servers} have no leaders after "
                f"{_TIMEOUT:.0f} s; look at the brokers' logs"
            )
        pause.wait(_PAUSE)


def _known(admin: AdminClient, wanted: Iterable[TopicSpec]) -> bool:
    try:
        found = admin.list_topics(timeout=_PATIENCE).topics
    except KafkaException:
        return False
    return all(
        spec.name in found
        and len(found[spec.name].partitions) >= spec.partitions
        and all(each.leader >= 0 for each in found[spec.name].partitions.values())
        for spec in wanted
    )


def _settled(
    settings: KafkaSettings, name: str, future: object, what: str, harmless: int
) -> list[str]:
    try:
        future.result(_TIMEOUT + _PATIENCE)  # type: ignore[attr-defined]  # no type in the stubs
    except KafkaException as error:
        found: KafkaError = error.args[0]
        if found.code() == harmless:  # another one was faster
            return []
        raise EnvironmentFault(
            f"topic {name} cannot be {what} at {settings.bootstrap_servers}: {describe(found)}"
        ) from None
    return [f"{name}: {what}"]


def _describe(admin: AdminClient, found: ClusterMetadata, spec: TopicSpec) -> str:
    topic = found.topics.get(spec.name)
    if topic is not None:
        return f"{spec.name}: {len(topic.partitions)} partitions"
    hidden = _is_hidden(topic_error(admin, spec.name))
    return f"{spec.name}: {'may not be seen by this user' if hidden else 'missing'}"


def _is_hidden(error: KafkaError | None) -> bool:
    return error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


if __name__ == "__main__":
    sys.exit(main())
