"""Postgres sinks are killed, come and go, and hang, while rows come: each is stored once.

Outcomes that are published twice are counted as such, so that a sink that took rows a second time
after a fault would be found out by that count.
"""

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest
from pydantic import SecretStr

from shared.messages import ScoreMessage
from shared.results.postgres import PostgresResults
from tests.faults.telling import teller
from tests.fetching import wait_until
from tests.postgres_sinks import Sinks, ask, database, hang, sinks
from tests.sinking import DEADLINE, Job, Place, Sink, place, plain_job

SETTLE = 90.0


@pytest.fixture
def where(kafka, topic_prefix, tmp_path) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix, tmp_path, partitions=6)


@pytest.fixture
def url(postgres_service) -> Iterator[str]:
    with database(postgres_service.url) as found:
        yield found


@pytest.fixture
def long(pytestconfig) -> bool:
    return bool(pytestconfig.getoption("long_faults", default=False))


@pytest.fixture
def tell(request) -> Callable[[object], None]:
    """Show a line at the end of the run."""
    return teller(request)


def pause(seconds: float) -> None:
    """A moment at random, which is what such a fault comes at."""
    threading.Event().wait(random.uniform(0, seconds))


class Feed:
    """Publishes a job in portions, some of its rows twice."""

    def __init__(self, place: Place, job: Job, portions: int, again: int = 0) -> None:
        """`again` is how many rows were published twice by earlier ones."""
        self.job = job
        self.again = again
        self._place = place
        self._size = -(-len(job.scores) // portions)
        self._published = 0
        place.publish([job.begun])

    def portion(self) -> None:
        """The next rows."""
        rows = self.job.scores[self._published : self._published + self._size]
        self._published += len(rows)
        twice: list[ScoreMessage] = random.sample(rows, min(5, len(rows)))
        self.again += len(twice)
        self._place.publish([*rows, *twice], at_once=200)

    def rest(self) -> None:
        """All that is left, and that this is all."""
        while self._published < len(self.job.scores):
            self.portion()
        self._place.publish([self.job.closed])


def assert_once(fleet: Sinks, job: Job, again: int, tell: Callable[[object], None]) -> None:
    """Every row is stored once, and was taken no oftener than it was published."""
    fleet.finish(job.name, within=SETTLE)
    with closing(PostgresResults(SecretStr(fleet.url))) as results:
        wait_until(lambda: results.duplicates() == again, within=DEADLINE)
    stored = Counter(each.row for each in fleet.outcomes(job.name, 2 * len(job.scores)))
    lost, duplicated = len(job.scores) - len(stored), stored.total() - len(stored)
    tell(
        f"lost {lost}, duplicated {duplicated} (in the table: {len(stored):,} of "
        f"{len(job.scores):,}; {again} that were published twice came again)"
    )
    fleet.assert_exact(job)


def test_sinks_are_killed_while_rows_come(where, url, tmp_path, long, tell):
    kills = 50 if long else 10
    job = plain_job("killed", 400 * (kills + 1), tmp_path / "in")
    feed = Feed(where, job, kills + 1)
    with sinks(where, url, tmp_path) as fleet:
        running = [fleet.start() for _ in range(3)]
        wait_until(fleet.ready, within=DEADLINE)
        stored = 0
        for _ in range(kills):
            feed.portion()
            # Not before something of it is stored: it would be a test of starting.
            fleet.more_than(stored)
            stored = fleet.stored()
            pause(0.3)
            victim = running.pop(random.randrange(3))
            victim.process.kill()
            assert victim.process.wait(DEADLINE) == -signal.SIGKILL
            running.append(fleet.start())
        feed.rest()
        assert_once(fleet, job, feed.again, tell)
        assert fleet.stored() == len(job.scores)
        assert [sink.terminate() for sink in running] == [0, 0, 0]


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_sinks_come_and_go_while_rows_come(where, url, tmp_path, protocol, tell):
    changes = 6
    job = plain_job("moving", 600 * (changes + 1), tmp_path / "in")
    feed = Feed(where, job, changes + 1)
    with sinks(where, url, tmp_path, PAIRSCORE_KAFKA__GROUP_PROTOCOL=protocol) as fleet:
        running = [fleet.start()]
        wait_until(fleet.ready, within=DEADLINE)
        stored = 0
        for change in range(changes):
            feed.portion()
            fleet.more_than(stored)
            stored = fleet.stored()
            pause(0.3)
            if len(running) == 3 or (len(running) == 2 and change % 2):
                assert running.pop(0).terminate() == 0
            else:
                running.append(fleet.start())
        feed.rest()
        assert_once(fleet, job, feed.again, tell)
        assert {sink.terminate() for sink in running} == {0}


def test_a_sink_that_hung_while_another_took_over_stores_nothing_twice(where, url, tmp_path, tell):
    first = plain_job("first", 3_000, tmp_path / "in")
    second = plain_job("second", 1_000, tmp_path / "in")
    with sinks(where, url, tmp_path) as fleet:
        feed = Feed(where, first, 6)
        zombie, other = fleet.start(), fleet.start()
        wait_until(lambda: has_partitions(zombie) and has_partitions(other), within=DEADLINE)
        feed.portion()
        wait_until(lambda: fleet.stored() > 100, within=DEADLINE)
        feed.portion()
        hang(zombie)
        # All of it is stored while one hangs with partitions, records, perhaps a transaction.
        feed.rest()
        assert_once(fleet, first, feed.again, tell)
        os.kill(zombie.process.pid, signal.SIGCONT)
        more = Feed(where, second, 4, again=feed.again)
        more.portion()
        pause(0.3)
        more.rest()
        assert_once(fleet, second, more.again, tell)
        assert fleet.stored() == 4_000
        assert [zombie.terminate(), other.terminate()] == [0, 0]


def test_a_sink_that_hangs_in_the_middle_of_a_transaction_is_not_waited_for(
    where, url, tmp_path, tell
):
    job = plain_job("blocked", 600, tmp_path / "in")
    feed = Feed(where, job, 3)
    with sinks(where, url, tmp_path) as fleet:
        zombie = fleet.start()
        feed.portion()
        wait_until(lambda: fleet.ready() and fleet.stored() == 200, within=DEADLINE)
        with psycopg.connect(url) as blocking:
            blocking.execute("LOCK TABLE pairscore.counts IN EXCLUSIVE MODE")
            feed.portion()
            wait_until(lambda: ask(url, WAITING) == [(1,)], within=DEADLINE)
            hang(zombie)
        # Its partitions are locked by a transaction that it does not end.
        wait_until(lambda: ask(url, OPEN) == [(1,)], within=DEADLINE)
        other = fleet.start()
        feed.rest()
        assert_once(fleet, job, feed.again, tell)
        assert ask(url, OPEN) == [(0,)]
        os.kill(zombie.process.pid, signal.SIGCONT)
        more = Feed(where, plain_job("after", 300, tmp_path / "in"), 2, again=feed.again)
        more.rest()
        assert_once(fleet, more.job, more.again, tell)
        assert [zombie.terminate(), other.terminate()] == [0, 0]


_OF_SINKS = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE application_name = 'pairscore sink' AND datname = current_database() AND "
)
WAITING = f"{_OF_SINKS} wait_event_type = 'Lock'"
OPEN = f"{_OF_SINKS} state = 'idle in transaction'"


def has_partitions(sink: Sink) -> bool:
    return any(line["message"] == "partitions were assigned" for line in sink.lines)
