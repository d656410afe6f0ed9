"""scripts/lag.py and scripts/replay.py, run as an operator runs them, against real Kafka."""

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from deploy.local import Kafka
from shared.clients import Connection, end_offsets, make_consumer, make_producer
from shared.dead_letter import dead_letter_headers
from shared.messages import Defect, PairMessage, Rejection, key_of
from tests.fetching import wait_until
from tests.producing import Place, place

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
WITHIN = 60.0
DAY_MS = 24 * 3600 * 1000
THEN = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
OLD_TIER = "pairs.retry.7s"


@pytest.fixture
def fleet(kafka: Kafka, topic_prefix: str) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix)


def run(
    fleet: Place, script: str, *arguments: str, **more: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(SCRIPTS / script), *arguments],
        env=fleet.environment(**more),
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )


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


def test_dead_letters_go_back_once_and_those_that_were_cut_stay(fleet):
    bury(fleet, b"first", Defect.UNKNOWN_VERSION)
    bury(fleet, b"second", Defect.INVALID)
    bury(fleet, b"the beginning of", Defect.OVERSIZED, size=5_000_000)

    counted = run(fleet, "replay.py", "pairs.dlq", "--dry-run")
    assert (counted.returncode, counted.stderr) == (0, "")
    assert counted.stdout == (
        "2 records would be moved to pairs (1 invalid, 1 unknown_version); "
        "1 that were cut when they became dead letters stay where they are\n"
    )
    assert fleet.records(fleet.topics.pairs) == []

    moved = run(fleet, "replay.py", "pairs.dlq")
    assert (moved.returncode, moved.stderr) == (0, "")
    assert moved.stdout == counted.stdout.replace("would be moved", "moved")
    found = fleet.records(fleet.topics.pairs)
    assert values(found) == [b"first", b"second"]
    assert {record.key() for record in found} == {b"key"}
    assert [record.headers() for record in found] == [[("traceparent", b"00-1-2-01")]] * 2

    assert run(fleet, "replay.py", "pairs.dlq").stdout == "0 records moved to pairs\n"
    bury(fleet, b"third", Defect.INVALID)
    assert run(fleet, "replay.py", "pairs.dlq").stdout == "1 record moved to pairs (1 invalid)\n"
    assert values(fleet.records(fleet.topics.pairs)) == [b"first", b"second", b"third"]


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


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_a_tier_that_nobody_reads_is_emptied_while_workers_run(fleet, protocol):
    settings = fleet.settings
    old = place(settings.bootstrap_servers, settings.topic_prefix, retry_delays=(7,))
    tier = old.topics.retries[0].topic
    assert tier == f"{settings.topic_prefix}{OLD_TIER}"
    rows = [row(number) for number in range(20)]
    publish(fleet, tier, *rows)
    reader = make_consumer(fleet.connection, group="worker")
    reader.assign([TopicPartition(tier, n, 0) for n in range(fleet.settings.partitions)])
    taken = reader.consume(8, WITHIN)
    offsets = {each.partition() or 0: (each.offset() or 0) + 1 for each in taken}
    reader.commit(
        offsets=[TopicPartition(tier, n, offset) for n, offset in offsets.items()],
        asynchronous=False,
    )
    reader.close()
    left = sorted({each.encode() for each in rows} - {each.value() for each in taken})
    assert len(left) == 12
    assert shown(fleet, run(fleet, "lag.py").stdout)[f"worker {OLD_TIER}"][0] == "12"

    worker = join_as_a_worker(fleet, protocol)
    try:
        moved = run(fleet, "replay.py", OLD_TIER, "--group", "worker")
    finally:
        worker.close()
    assert (moved.stdout, moved.stderr) == ("12 records moved to pairs\n", "")
    assert values(fleet.records(fleet.topics.pairs)) == left
    assert committed(fleet, "worker", tier) == end(fleet, tier)
    again = run(fleet, "replay.py", OLD_TIER, "--group", "worker")
    assert again.stdout == "0 records moved to pairs\n"


def test_what_cannot_be_replayed_is_one_line(fleet):
    unknown = run(fleet, "replay.py", "nothing")
    name = f"{fleet.settings.topic_prefix}nothing"
    where = fleet.settings.bootstrap_servers
    assert unknown.stderr == f"replay: topic {name} does not exist at {where}\n"
    assert unknown.returncode == 2
    itself = run(fleet, "replay.py", "pairs")
    assert itself.returncode == 2
    assert "cannot be moved to itself" in itself.stderr


def test_lag_counts_what_is_unread_and_tells_how_old_it_is(fleet):
    publish(fleet, fleet.topics.pairs, *map(row, range(5)), age_ms=6 * DAY_MS)
    publish(fleet, fleet.topics.interactive, row(5), age_ms=DAY_MS // 4)
    found = run(fleet, "lag.py")
    assert (found.returncode, found.stderr) == (0, "")
    table = shown(fleet, found.stdout)
    assert table["worker pairs"][0] == "5"
    assert table["worker pairs"][1].startswith("6 days, 0:")
    assert table["worker pairs"][1].endswith("14 days, 0:00:00")
    assert table["worker pairs.interactive"][0] == "1"
    assert table["worker pairs.retry.5s"][0] == "0"
    assert not any(name.startswith("sink") for name in table)


def test_lag_fails_when_half_of_the_time_that_a_record_is_kept_is_over(fleet, topic_prefix):
    publish(fleet, fleet.topics.pairs, row(0), age_ms=8 * DAY_MS)
    publish(fleet, fleet.topics.interactive, row(1), age_ms=DAY_MS // 4)
    found = run(fleet, "lag.py")
    assert found.returncode == 1
    assert found.stderr == (
        f"lag: group {topic_prefix}worker has left records of {fleet.topics.pairs} unread for more "
        "than half of the time that they are kept\n"
    )
    consumer = make_consumer(fleet.connection, group="worker")
    places = [TopicPartition(fleet.topics.pairs, n) for n in range(fleet.settings.partitions)]
    ends = end_offsets(fleet.admin, [(p.topic, p.partition) for p in places], committed=True)
    consumer.commit(offsets=[TopicPartition(*p, at) for p, at in ends.items()], asynchronous=False)
    consumer.close()
    found = run(fleet, "lag.py")
    assert (found.returncode, found.stderr) == (0, "")
    assert shown(fleet, found.stdout)["worker pairs"][0] == "0"


def test_lag_shows_the_sinks_that_read(fleet):
    publish(fleet, fleet.topics.scores, *map(row, range(4)))
    consumer = make_consumer(fleet.connection, group="sink-csv")
    consumer.commit(offsets=[TopicPartition(fleet.topics.scores, 0, 0)], asynchronous=False)
    consumer.close()
    table = shown(fleet, run(fleet, "lag.py").stdout)
    assert table["sink-csv scores"][0] == "4"
    assert "sink-postgres scores" not in table
