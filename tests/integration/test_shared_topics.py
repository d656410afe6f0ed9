"""Topics on a real broker: made once, grown, never shrunk, and missed in one line."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka.admin import ClusterMetadata, ConfigResource, NewTopic, ResourceType

from deploy.local import Kafka
from pairscore.errors import EnvironmentFault, SettingsError
from shared.clients import connect, make_admin
from shared.connection import Connection
from shared.settings import KafkaSettings
from shared.topics import Topics, check_topics, create_topics, specs
from tests.fetching import wait_until

SECONDS = 60.0


class Fleet:
    """Topics of a test's own on the broker of all tests."""

    def __init__(self, kafka: Kafka, prefix: str, **settings: Any) -> None:
        self.settings = KafkaSettings(
            **{
                "bootstrap_servers": kafka.bootstrap_servers,
                "topic_prefix": prefix,
                "partitions": 3,
                "retry_delays": (5, 60),
                **settings,
            }
        )
        self.connection = Connection(self.settings)
        self.admin = make_admin(self.connection)
        self.topics = Topics.of(self.settings)

    def found(self) -> ClusterMetadata:
        return connect(self.connection)[1]

    def create(self) -> list[str]:
        return create_topics(self.settings, self.admin, self.found())

    def partitions(self) -> dict[str, int]:
        found = self.found().topics
        return {name: len(found[name].partitions) for name in self.topics.all if name in found}

    def config(self, name: str) -> dict[str, str]:
        [future] = self.admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)]).values()
        return {entry.name: entry.value for entry in future.result(SECONDS).values()}


@pytest.fixture
def fleet(kafka: Kafka, topic_prefix: str) -> Fleet:
    return Fleet(kafka, topic_prefix)


def command(fleet: Fleet, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {
        "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS": fleet.settings.bootstrap_servers,
        "PAIRSCORE_KAFKA__TOPIC_PREFIX": fleet.settings.topic_prefix,
        "PAIRSCORE_KAFKA__PARTITIONS": "3",
        "PAIRSCORE_KAFKA__RETRY_DELAYS": "5,60",
    }
    return subprocess.run(
        [sys.executable, "-m", "shared.topics", *arguments],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def single(fleet: Fleet) -> dict[str, int]:
    """The topics of one partition."""
    return {fleet.topics.jobs: 1, fleet.topics.cancellations: 1}


def test_topics_are_made_as_they_should_be(fleet):
    done = fleet.create()
    assert sorted(done) == sorted(f"{name}: created" for name in fleet.topics.all)
    assert fleet.partitions() == dict.fromkeys(fleet.topics.all, 3) | single(fleet)
    for spec in specs(fleet.settings):
        assert spec.config.items() <= fleet.config(spec.name).items()
    check_topics(fleet.settings, fleet.admin, fleet.found(), fleet.topics.all)


def test_making_them_again_changes_nothing(fleet):
    fleet.create()
    before = fleet.partitions()
    assert fleet.create() == []
    assert fleet.partitions() == before


def test_what_is_missing_is_made_and_what_is_small_grows(kafka, topic_prefix):
    Fleet(kafka, topic_prefix).create()
    larger = Fleet(kafka, topic_prefix, partitions=5, retry_delays=(5, 60, 600))
    done = larger.create()
    names = set(larger.topics.all)
    new = f"{topic_prefix}pairs.retry.600s"
    assert f"{new}: created" in done
    grown = names - {new, *single(larger)}
    assert sorted(done) == sorted([f"{new}: created", *(f"{name}: grown" for name in grown)])
    wait_until(lambda: larger.partitions() == dict.fromkeys(names, 5) | single(larger))


def test_no_topic_shrinks(kafka, topic_prefix):
    Fleet(kafka, topic_prefix, partitions=5).create()
    smaller = Fleet(kafka, topic_prefix, partitions=2)
    assert smaller.create() == []
    assert smaller.partitions()[smaller.topics.pairs] == 5
    check_topics(smaller.settings, smaller.admin, smaller.found(), smaller.topics.all)


def test_several_may_make_them_at_once(kafka, topic_prefix):
    fleets = [Fleet(kafka, topic_prefix) for _ in range(4)]
    found = [fleet.found() for fleet in fleets]
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(
                lambda pair: create_topics(pair[0].settings, pair[0].admin, pair[1]),
                zip(fleets, found, strict=True),
            )
        )
    lines = [line for each in done for line in each]
    assert sorted(lines) == sorted(f"{name}: created" for name in fleets[0].topics.all)


def test_several_may_grow_them_at_once(kafka, topic_prefix):
    Fleet(kafka, topic_prefix).create()
    fleets = [Fleet(kafka, topic_prefix, partitions=6) for _ in range(4)]
    found = [fleet.found() for fleet in fleets]
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda pair: create_topics(pair[0].settings, pair[0].admin, pair[1]),
                zip(fleets, found, strict=True),
            )
        )
    wait_until(lambda: fleets[0].partitions()[fleets[0].topics.scores] == 6)


def test_a_topic_that_is_missing_is_one_line(fleet):
    with pytest.raises(EnvironmentFault) as error:
        check_topics(fleet.settings, fleet.admin, fleet.found(), [fleet.topics.scores])
    assert str(error.value) == (
        f"topic {fleet.topics.scores} does not exist at {fleet.settings.bootstrap_servers}; create "
        "it with `python -m shared.topics create`, or correct PAIRSCORE_KAFKA__TOPIC_PREFIX"
    )


def test_too_few_partitions_are_one_line(kafka, topic_prefix):
    Fleet(kafka, topic_prefix).create()
    larger = Fleet(kafka, topic_prefix, partitions=12)
    with pytest.raises(EnvironmentFault) as error:
        check_topics(larger.settings, larger.admin, larger.found(), [larger.topics.pairs])
    assert str(error.value) == (
        f"setting PAIRSCORE_KAFKA__PARTITIONS: topic {larger.topics.pairs} has 3 partitions, and "
        "12 are wanted; add them with `python -m shared.topics create`, or lower the setting"
    )


def test_jobs_of_more_than_one_partition_are_refused_by_all(fleet):
    jobs = fleet.topics.jobs
    for future in fleet.admin.create_topics([NewTopic(jobs, 3)]).values():
        future.result(SECONDS)
    wait_until(lambda: fleet.partitions() == {jobs: 3})
    said = rf"^topic {jobs} at \S+ has 3 partitions and must have one, .*delete it and create it"
    with pytest.raises(EnvironmentFault, match=said):
        fleet.create()
    assert fleet.partitions() == {jobs: 3}
    with pytest.raises(EnvironmentFault, match=said):
        check_topics(fleet.settings, fleet.admin, fleet.found(), [jobs])


def test_more_copies_than_brokers_are_one_line(kafka, topic_prefix):
    with pytest.raises(SettingsError, match=r"^setting PAIRSCORE_KAFKA__REPLICATION: 99 copies "):
        Fleet(kafka, topic_prefix, replication=99).create()


def test_what_kafka_refuses_is_one_line(kafka, topic_prefix):
    long = Fleet(kafka, topic_prefix.rstrip(".") + "x" * 80 + ".")
    found = long.found()
    with pytest.raises(EnvironmentFault) as error:
        create_topics(long.settings.model_copy(update={"topic_prefix": "a/b."}), long.admin, found)
    line = str(error.value)
    assert line.startswith("topic a/b.")
    assert f"cannot be created at {long.settings.bootstrap_servers}: " in line
    assert line.isprintable()


def test_the_command_makes_them_and_lists_them(fleet):
    listed = command(fleet, "list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.splitlines() == [f"{name}: missing" for name in fleet.topics.all]
    made = command(fleet, "create")
    assert (made.returncode, made.stderr) == (0, "")
    assert sorted(made.stdout.splitlines()) == sorted(
        f"{name}: created" for name in fleet.topics.all
    )
    again = command(fleet, "create")
    said = f"all {len(fleet.topics.all)} topics are there\n"
    assert (again.returncode, again.stdout) == (0, said)
    listed = command(fleet, "list")
    assert f"{fleet.topics.pairs}: 3 partitions" in listed.stdout.splitlines()
    assert f"{fleet.topics.jobs}: 1 partitions" in listed.stdout.splitlines()


def test_the_command_says_in_one_line_that_nobody_answers(fleet):
    addresses = ["127.0.0.1:1", "no.such.host.invalid:9092"]
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        ended = pool.map(
            lambda each: command(fleet, "create", PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS=each),
            addresses,
        )
        for address, each in zip(addresses, ended, strict=True):
            assert (each.returncode, each.stdout) == (3, "")
            [line] = each.stderr.splitlines()
            assert line.startswith(
                "topics: setting PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: no Kafka broker answers at "
                f"{address} ("
            )
    assert time.monotonic() - began < 25


def test_the_command_says_in_one_line_what_is_set_wrong(fleet):
    ended = command(fleet, "create", PAIRSCORE_KAFKA__PARTITIONS="none")
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert line.startswith("topics: setting PAIRSCORE_KAFKA__PARTITIONS: ")
