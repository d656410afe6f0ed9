"""A fleet's topics for one test, and what anybody who reads them finds committed there."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from pairscore.csv_file.records import quote_cell
from pairscore.errors import EnvironmentFault
from shared.clients import connect, end_offsets, make_admin, make_consumer
from shared.connection import Connection
from shared.messages import AnyMessage, JobMessage, PairMessage, Rejection, decode
from shared.settings import KafkaSettings
from shared.topics import Topics, create_topics
from tests import commands
from tests.fetching import wait_until

DEADLINE = 60.0
COMMAND = [sys.executable, "-m", "producer", "csv"]


@dataclass(frozen=True)
class Place:
    """Topics of a prefix's own, and the command that publishes to them."""

    settings: KafkaSettings
    connection: Connection = field(init=False)
    admin: AdminClient = field(init=False)
    topics: Topics = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "connection", Connection(self.settings))
        object.__setattr__(self, "admin", make_admin(self.connection))
        object.__setattr__(self, "topics", Topics.of(self.settings))

    def create(self) -> "Place":
        """Create the topics, and wait until brokers lead them."""
        # One try may take 20 s, where a broker that was suspended has yet to register anew.
        wait_until(self._created, within=60.0)
        wait_until(self._led)
        return self

    def _created(self) -> bool:
        try:
            create_topics(self.settings, *connect(self.connection))
        except EnvironmentFault:  # by a broker that another test has only just let go on
            return False
        return True

    def _led(self) -> bool:
        try:
            self.left_open()
        except KafkaException:
            return False
        return True

    def environment(self, **more: str) -> dict[str, str]:
        """What the command finds in its environment."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PAIRSCORE_")}
        return {
            **clean,
            "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS": self.settings.bootstrap_servers,
            "PAIRSCORE_KAFKA__TOPIC_PREFIX": self.settings.topic_prefix,
            "PAIRSCORE_KAFKA__PARTITIONS": str(self.settings.partitions),
            "PAIRSCORE_KAFKA__MAX_MESSAGE_BYTES": str(self.settings.max_message_bytes),
            **more,
        }

    def run(self, *arguments: str | Path, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run the command to its end."""
        command = [*COMMAND, *map(str, arguments)]
        return commands.run(command, self.environment(**more), within=DEADLINE)

    @contextmanager
    def started(
        self,
        *arguments: str | Path,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        **more: str,
    ) -> "Iterator[subprocess.Popen[str]]":
        """The command while the block runs, and never longer."""
        command = [*COMMAND, *map(str, arguments)]
        environment = self.environment(**more)
        with commands.started(command, environment, stdout=stdout, stderr=stderr) as process:
            yield process

    def records(self, topic: str) -> list[Message]:
        """Every committed record of a topic, by partition and offset."""
        count = len(self.admin.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer = make_consumer(
            self.connection,
            group="test",
            extra={"enable.partition.eof": True, "fetch.wait.max.ms": 20},
        )
        found: list[Message] = []
        ended: set[int] = set()
        try:
            consumer.assign([TopicPartition(topic, i, OFFSET_BEGINNING) for i in range(count)])
            while len(ended) < count:
                record = consumer.poll(DEADLINE)
                assert record is not None, f"{topic} cannot be read"
                error = record.error()
                if error is None:
                    found.append(record)
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    ended.add(record.partition() or 0)
        finally:
            consumer.close()
        return found

    def pairs(self) -> list[PairMessage]:
        """Every committed row, by its number; those that are there twice come twice."""
        rows = [understood(PairMessage, record) for record in self.records(self.topics.pairs)]
        return sorted(rows, key=lambda row: row.row)

    def jobs(self) -> dict[str, JobMessage]:
        """The latest that is said of every job."""
        found = [understood(JobMessage, record) for record in self.records(self.topics.jobs)]
        return {job.job: job for job in found}

    def rows_published(self) -> int:
        """How many rows of all jobs there are, by what is said of them."""
        return sum(job.rows_published for job in self.jobs().values())

    def left_open(self) -> bool:
        """Whether a transaction is open on one of the topics."""
        names = (*self.topics.to_score[:1], self.topics.jobs)
        found = self.admin.list_topics(timeout=10).topics
        asked = [(name, number) for name in names for number in found[name].partitions]
        ends = end_offsets(self.admin, asked, committed=False)
        return ends != end_offsets(self.admin, asked, committed=True)


def place(servers: str, prefix: str, **settings: Any) -> Place:
    """A place whose topics are there."""
    return Place(
        KafkaSettings(
            **{"bootstrap_servers": servers, "topic_prefix": prefix, "partitions": 3} | settings
        )
    ).create()


def understood(kind: type[AnyMessage], record: Message) -> AnyMessage:
    found = decode(kind, record.value())
    assert not isinstance(found, Rejection), found
    return found


def text_of(row: PairMessage, delimiter: str) -> str:
    """The row's text, as the sink makes it."""
    if row.raw is not None:
        return row.raw
    return delimiter.join(quote_cell(cell, delimiter) for cell in row.columns)


def write_set(path: Path, rows: int, *, words: Mapping[int, str] | None = None) -> Path:
    """A CSV of so many rows; `words` are captions of some."""
    with path.open("w", newline="") as file:
        file.write("url,caption\n")
        for row in range(rows):
            caption = (words or {}).get(row, f"a caption of some words {row}")
            file.write(f"https://example.org/img/{row:06d}.jpg,{caption}\n")
    return path
