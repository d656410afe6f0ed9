"""The CSV sink is killed, and comes back: every row is written once."""

import random
import signal

import pytest

from tests.fetching import wait_until
from tests.sinking import DEADLINE, Place, place, plain_job

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
