"""The CSV sink is killed, and comes back: every row is written once."""

import random
import signal

import pytest

from deploy import local
from tests.fetching import wait_until
from tests.services import had
from tests.sinking import DEADLINE, Place, get, place, plain_job

ROWS = 4_000


@pytest.fixture
def where(kafka, topic_prefix, tmp_path):
    return place(kafka.bootstrap_servers, topic_prefix, tmp_path)


def stored(where: Place) -> int:
    return sum(status.done for status in where.status.values())


@pytest.mark.timeout(900)
def test_a_sink_killed_again_and_again_writes_every_row_once(where, tmp_path, request):
    kills = 50 if request.config.getoption("long_faults", default=False) else 10
    chance = random.Random(4)
    jobs = [plain_job(f"killed{i}", ROWS, tmp_path / "in") for i in range(2)]
    messages = [score for job in jobs for score in job.scores]
    chance.shuffle(messages)
    where.publish([job.begun for job in jobs])
    share = len(messages) // kills
    for kill in range(kills):
        where.publish(messages[kill * share : (kill + 1) * share], at_once=100)
        wanted = min(stored(where) + chance.randint(1, share), len(messages))
        # Small batches, so that kills meet many of them at every stage.
        with where.sink(PAIRSCORE_SINK__COMMIT_ROWS="37") as sink:
            wait_until(lambda: stored(where) >= wanted, within=DEADLINE)  # noqa: B023
            sink.process.kill()
            assert sink.process.wait(DEADLINE) == -signal.SIGKILL
    where.publish([*messages[kills * share :], *(job.closed for job in jobs)])
    with where.sink() as sink:
        wait_until(lambda: where.complete(*(job.name for job in jobs)), within=DEADLINE)
        assert sink.terminate() == 0
    for job in jobs:
        where.assert_exact(job)


def test_a_broker_that_is_killed_and_comes_back_loses_no_row(topic_prefix, tmp_path):
    with had(local.kafka(native=True)) as own:
        where = place(own.bootstrap_servers, topic_prefix, tmp_path)
        job = plain_job("outage", ROWS, tmp_path / "in")
        where.publish(job.scores[: ROWS // 2])
        with where.sink() as sink:
            wait_until(lambda: stored(where) == ROWS // 2, within=DEADLINE)
            (node,) = own.nodes
            own.kill(node)
            wait_until(lambda: sink.said("kafka: "), within=DEADLINE)
            assert get(sink, "/livez")[0] == 200
            own.start(node)
            where.publish([*job.scores[ROWS // 2 :], job.closed])
            wait_until(lambda: where.complete("outage"), within=DEADLINE)
            assert sink.terminate() == 0
            warnings = [line["message"] for line in sink.lines if line["level"] != "info"]
        where.assert_exact(job)
        assert len(warnings) < 20, warnings
