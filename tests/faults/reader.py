"""An independent reader of a topic: it sees what any consumer with read_committed sees.

It uses none of the product's clients: what these get wrong, it must not.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

RowId: TypeAlias = tuple[str, int]

_AT_ONCE: Final = 2_000


class Reader:
    """Reads all partitions from the beginning, and keeps what it has read."""

    def __init__(self, consumer: Consumer, topic: str, partitions: int) -> None:
        self._consumer = consumer
        self._topic = topic
        self._next = dict.fromkeys(range(partitions), 0)
        self.records: list[Message] = []
        consumer.assign(
            [TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)]
        )

    def read(self) -> None:
        """Take what is there."""
        while messages := self._consumer.consume(_AT_ONCE, 0.05):
            for message in messages:
                self._take(message)

    def has_read(self, ends: dict[int, int]) -> bool:
        """Read on; whether it has come to these offsets.

        Records and markers of transactions that are open stand in its way until they end.
        """
        self.read()
        return all(self._next[number] >= end for number, end in ends.items())

    def _take(self, message: Message) -> None:
        error, number, offset = message.error(), message.partition(), message.offset()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            return  # brokers come and go here; what is missed is noticed in the end
        assert number is not None
        assert offset is not None
        if error is not None:
            self._next[number] = max(self._next[number], offset)
            return
        assert offset >= self._next[number], "a consumer is given no record twice"
        self._next[number] = offset + 1
        self.records.append(message)


class Scores(Reader):
    """Reads `scores`: how often each row is there, and what came of it."""

    def __init__(self, consumer: Consumer, topic: str, partitions: int) -> None:
        super().__init__(consumer, topic, partitions)
        self._counted = 0
        self._places: dict[RowId, list[str]] = {}
        self.times: Counter[RowId] = Counter()
        self.found: dict[RowId, dict[str, Any]] = {}

    def count(self, job: str) -> int:
        """Read on; how many different rows of a job there are."""
        self.read()
        for message in self.records[self._counted :]:
            value: dict[str, Any] = json.loads(message.value() or b"")
            row = (value["job"], value["row"])
            self.times[row] += 1
            self._places.setdefault(row, []).append(_place(message))
            self.found[row] = value
        self._counted = len(self.records)
        return sum(1 for name, _ in self.found if name == job)

    def duplicated(self, job: str) -> int:
        """How many records there are more than rows."""
        return sum(times - 1 for (name, _), times in self.times.items() if name == job)

    def copies(self, job: str) -> list[str]:
        """Where the rows are that are there more than once."""
        return [
            f"row {row} is at {', '.join(places)}"
            for (name, row), places in self._places.items()
            if name == job and len(places) > 1
        ]

    def beyond(self, job: str, rows: int) -> list[int]:
        """The rows that are there and should not be."""
        return [row for name, row in self.found if name == job and row >= rows]

    def lost(self, job: str, rows: int) -> list[int]:
        """The rows that are not there."""
        return [row for row in range(rows) if (job, row) not in self.found]


def _place(message: Message) -> str:
    return f"{message.partition()}:{message.offset()} ({message.timestamp()[1]} ms)"


def client(bootstrap_servers: str) -> dict[str, str | int | float | bool]:
    """What every client of the scenarios has: brokers come and go, and that is not worth a line."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "reconnect.backoff.max.ms": 1_000,
        "metadata.max.age.ms": 5_000,
        "connections.max.idle.ms": 10_000,
        "log_level": 0,
    }


@contextmanager
def consumer(bootstrap_servers: str, group: str = "faults.reader") -> Iterator[Consumer]:
    """A consumer of committed records; it joins no group, but may ask for the offsets of one."""
    made = Consumer(
        {
            **client(bootstrap_servers),
            "group.id": group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 100,
        }
    )
    try:
        yield made
    finally:
        made.close()
