"""The scripts, run as an operator runs them, and what a fleet's topics and groups hold for them."""

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from confluent_kafka import Consumer, Message, TopicPartition

from shared.clients import end_offsets, make_consumer, make_producer
from shared.connection import Connection
from shared.dead_letter import dead_letter_headers
from shared.messages import Defect, PairMessage, Rejection, key_of
from tests import commands
from tests.fetching import wait_until
from tests.producing import Place

SCRIPTS = commands.ROOT / "scripts"
WITHIN = 60.0
THEN = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)


def run(
    fleet: Place, script: str, *arguments: str, **more: str
) -> "subprocess.CompletedProcess[str]":
    return commands.run(_command(script, arguments), fleet.environment(**more), within=WITHIN)


def started(
    fleet: Place, script: str, *arguments: str
) -> "AbstractContextManager[subprocess.Popen[str]]":
    """A script while the block runs, and never longer."""
    return commands.started(_command(script, arguments), fleet.environment())


def _command(script: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, str(SCRIPTS / script), *arguments]


def row(number: int) -> PairMessage:
    url = f"https://images.example/{number}.jpg"
    return PairMessage(job="j", row=number, url=url, caption="a cat", created_at=THEN)


def publish(fleet: Place, topic: str, *rows: PairMessage, age_ms: int = 0) -> None:
    producer = make_producer(fleet.connection, transactional_id=None)
    for each in rows:
        at = int(time.time() * 1000) - age_ms
        producer.produce(topic, each.encode(), key_of(each.url), timestamp=at)
    assert producer.flush(WITHIN) == 0


def bury(fleet: Place, value: bytes, defect: Defect, size: int | None = None) -> None:
    """Publish a dead letter as a worker does, between one that it takes back and a marker."""
    headers = dead_letter_headers(
        Rejection(defect, "for a test"),
        topic=fleet.topics.pairs,
        partition=0,
        offset=7,
        timestamp_ms=-1,
        worker="w",
        size=len(value) if size is None else size,
    )
    producer = make_producer(fleet.connection, transactional_id="worker.w")
    producer.init_transactions(WITHIN)
    producer.begin_transaction()
    producer.produce(fleet.topics.dead_letters, b"taken back")
    producer.flush(WITHIN)
    producer.abort_transaction(WITHIN)
    producer.begin_transaction()
    more: list[tuple[str, str | bytes | None]] = [*headers, ("traceparent", b"00-1-2-01")]
    producer.produce(fleet.topics.dead_letters, value, b"key", headers=more)
    producer.commit_transaction(WITHIN)


def values(records: list[Message]) -> list[bytes]:
    return sorted(record.value() or b"" for record in records)


def committed(fleet: Place, group: str, topic: str) -> int:
    """How many records before the group's next offsets there are, markers included."""
    consumer = make_consumer(fleet.connection, group=group)
    try:
        places = [TopicPartition(topic, n) for n in range(fleet.settings.partitions)]
        return sum(max(0, p.offset) for p in consumer.committed(places, WITHIN))
    finally:
        consumer.close()


def end(fleet: Place, topic: str) -> int:
    places = [(topic, n) for n in range(fleet.settings.partitions)]
    return sum(end_offsets(fleet.admin, places, committed=True).values())


def shown(fleet: Place, text: str) -> dict[str, list[str]]:
    """The table's cells by group and topic, without the prefix."""
    lines = [line.split(maxsplit=3) for line in text.splitlines()[1:]]
    return {
        " ".join(c.removeprefix(fleet.settings.topic_prefix) for c in f[:2]): f[2:] for f in lines
    }


def join_as_a_worker(fleet: Place, protocol: str) -> Consumer:
    """A member of the workers' group that reads what workers read now."""
    settings = fleet.settings.model_copy(update={"group_protocol": protocol})
    consumer = make_consumer(Connection(settings), group="worker")
    consumer.subscribe(list(fleet.topics.to_score))

    def has_partitions() -> bool:
        consumer.poll(0.1)
        return bool(consumer.assignment())

    wait_until(has_partitions, WITHIN)
    return consumer
