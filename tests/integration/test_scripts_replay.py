"""scripts/replay.py moves each record once, and refuses what would be scored twice."""

import signal

import pytest
from confluent_kafka import TopicPartition

from deploy.local import Kafka
from shared.clients import make_consumer
from shared.messages import Defect
from tests.fetching import wait_until
from tests.operating import (
    WITHIN,
    bury,
    committed,
    end,
    join_as_a_worker,
    publish,
    row,
    run,
    shown,
    started,
    values,
)
from tests.producing import Place, place

OLD_TIER = "pairs.retry.7s"
ROWS = 4_000
KILLS = 5


@pytest.fixture
def fleet(kafka: Kafka, topic_prefix: str) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix)


def with_old_tier(fleet: Place) -> Place:
    """The fleet as it was with another tier, whose topic is there since."""
    settings = fleet.settings
    old = place(settings.bootstrap_servers, settings.topic_prefix, retry_delays=(7,))
    assert old.topics.retries[0].topic == f"{settings.topic_prefix}{OLD_TIER}"
    return old


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


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_a_tier_that_nobody_reads_is_emptied_while_workers_run(fleet, protocol):
    tier = with_old_tier(fleet).topics.retries[0].topic
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
        moved = run(fleet, "replay.py", OLD_TIER)
    finally:
        worker.close()
    assert (moved.stdout, moved.stderr) == ("12 records moved to pairs\n", "")
    assert values(fleet.records(fleet.topics.pairs)) == left
    assert committed(fleet, "worker", tier) == end(fleet, tier)
    again = run(fleet, "replay.py", OLD_TIER)
    assert again.stdout == "0 records moved to pairs\n"


@pytest.mark.parametrize("source", ["pairs.dlq", OLD_TIER])
def test_a_replay_that_is_killed_again_and_again_moves_each_record_once(fleet, source):
    with_old_tier(fleet)
    rows = [row(number) for number in range(ROWS)]
    publish(fleet, f"{fleet.settings.topic_prefix}{source}", *rows)
    for _ in range(KILLS):
        begun = end(fleet, fleet.topics.pairs)
        with started(fleet, "replay.py", source) as process:
            wait_until(lambda: end(fleet, fleet.topics.pairs) > begun, WITHIN)  # noqa: B023
            process.kill()
            assert process.wait(WITHIN) == -signal.SIGKILL
    last = run(fleet, "replay.py", source)
    assert (last.returncode, last.stderr) == (0, "")
    assert 0 < int(last.stdout.split()[0].replace(",", "")) < ROWS
    assert values(fleet.records(fleet.topics.pairs)) == sorted(each.encode() for each in rows)


def test_one_that_is_at_it_gives_way_to_the_next(fleet):
    rows = [row(number) for number in range(3 * ROWS)]
    publish(fleet, fleet.topics.dead_letters, *rows)
    with started(fleet, "replay.py", "pairs.dlq") as first:
        wait_until(lambda: end(fleet, fleet.topics.pairs) > 0, WITHIN)
        # In the middle of it for sure: else it may be done before the other has begun.
        first.send_signal(signal.SIGSTOP)
        second = run(fleet, "replay.py", "pairs.dlq")
        assert (second.returncode, second.stderr) == (0, "")
        first.send_signal(signal.SIGCONT)
        assert first.wait(WITHIN) == 3
        assert first.stderr is not None
        assert first.stderr.read().startswith("replay: Kafka: ")
    assert values(fleet.records(fleet.topics.pairs)) == sorted(each.encode() for each in rows)


def test_a_tier_that_workers_with_other_settings_still_read_is_refused(fleet):
    old = with_old_tier(fleet)
    publish(fleet, old.topics.retries[0].topic, row(0))
    worker = join_as_a_worker(old, "consumer")
    try:
        refused = run(fleet, "replay.py", OLD_TIER)
    finally:
        worker.close()
    assert refused.returncode == 2
    prefix = fleet.settings.topic_prefix
    assert refused.stderr == (
        f"replay: topic {prefix}{OLD_TIER} is still read by group {prefix}worker (members that "
        "read it: 1), so what is on it will be scored, and moved it would be scored twice; start "
        "the workers again with a PAIRSCORE_KAFKA__RETRY_DELAYS that does not name it\n"
    )
    assert fleet.records(fleet.topics.pairs) == []
    assert run(fleet, "replay.py", OLD_TIER).stdout == "1 record moved to pairs\n"


REFUSED = {
    ("pairs",): "is read by workers",
    ("pairs.interactive",): "is read by workers",
    ("pairs.retry.5s",): "is read by workers",
    ("scores",): "cannot be replayed",
    ("jobs",): "cannot be replayed",
    ("nothing",): "cannot be replayed",
    ("pairs.retry.9s",): "does not exist",
    ("pairs.dlq", "--to", "scores"): "nothing can be moved to scores",
    ("pairs.dlq", "--to", "pairs.retry.5s"): "nothing can be moved to pairs.retry.5s",
    ("pairs.dlq", "--to", "pairs.dlq"): "nothing can be moved to pairs.dlq",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_would_be_scored_twice_or_is_no_row_is_refused_in_one_line(fleet, arguments):
    for topic in ("pairs", "pairs.retry.5s", "scores", "jobs"):
        publish(fleet, f"{fleet.settings.topic_prefix}{topic}", row(0))
    single = {fleet.topics.jobs, fleet.topics.cancellations}
    before = {topic: end(fleet, topic) for topic in fleet.topics.all if topic not in single}
    refused = run(fleet, "replay.py", *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1
    assert REFUSED[arguments] in refused.stderr
    assert {topic: end(fleet, topic) for topic in before} == before


def test_interactive_rows_may_be_filled_too(fleet):
    bury(fleet, b"first", Defect.INVALID)
    moved = run(fleet, "replay.py", "pairs.dlq", "--to", "pairs.interactive")
    assert moved.stdout == "1 record moved to pairs.interactive (1 invalid)\n"
    assert values(fleet.records(fleet.topics.interactive)) == [b"first"]


def test_a_source_that_has_lost_records_is_not_passed_over_in_silence(fleet):
    consumer = make_consumer(fleet.connection, group="replay")
    consumer.commit(offsets=[TopicPartition(fleet.topics.dead_letters, 1, 7)], asynchronous=False)
    consumer.close()
    lost = run(fleet, "replay.py", "pairs.dlq")
    assert lost.returncode == 3
    assert lost.stderr.startswith(
        f"replay: {fleet.topics.dead_letters} partition 1 was read up to offset 7, and Kafka ends "
        "at 0: it has lost records"
    )
