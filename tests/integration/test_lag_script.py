"""scripts/lag.py tells what is unread and how old it is, against real Kafka."""

import pytest
from confluent_kafka import TopicPartition

from deploy.local import Kafka
from shared.clients import end_offsets, make_consumer
from tests.operating import publish, row, run, shown
from tests.producing import Place, place

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def fleet(kafka: Kafka, topic_prefix: str) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix)


def test_lag_counts_what_is_unread_and_tells_how_old_it_is(fleet):
    publish(fleet, fleet.topics.pairs, *map(row, range(5)), age_ms=6 * DAY_MS)
    publish(fleet, fleet.topics.interactive, row(5), age_ms=DAY_MS // 4)
    found = run(fleet, "lag.py")
    assert (found.returncode, found.stderr) == (0, "")
    table = shown(fleet, found.stdout)
    assert table["worker pairs"][0] == "5"
    assert table["worker pairs"][1].split() == ["6", "d", "14", "d"]
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
