"""A broker that dies, hangs or stays away loses and doubles no row, and holds nobody up."""

import signal
import threading
from collections.abc import Iterator

import psutil
import pytest

from deploy import local
from pairscore.errors import EnvironmentFault
from producer import transactions as module
from tests.fetching import wait_until
from tests.producing import Place, place, write_set
from tests.publishing import Publisher, Run, values
from tests.services import had


@pytest.fixture(scope="module")
def broker() -> Iterator[local.NativeKafka]:
    """One that may be killed and made to hang."""
    with had(local.kafka(native=True)) as kafka:
        yield kafka


@pytest.fixture
def there(broker, topic_prefix) -> Place:
    return place(broker.bootstrap_servers, topic_prefix)


def test_a_broker_that_dies_and_comes_back_loses_and_doubles_nothing(there, broker):
    publisher = Publisher(there)
    publisher.transactions.start()
    publisher.begin(*(f"a{row:03d}" for row in range(100)))
    publisher.commit()
    publisher.begin(*(f"b{row:03d}" for row in range(50)))
    wait_until(there.left_open)
    broker.kill(1)
    publisher.add(*(f"b{row:03d}" for row in range(50, 100)))
    revival = threading.Timer(2, broker.start, (1,))
    revival.start()
    publisher.commit()
    revival.join(60)
    publisher.begin("c")
    publisher.commit()
    assert values(there) == [f"{x}{row:03d}" for x in "ab" for row in range(100)] + ["c"]


def test_a_broker_that_hangs_for_a_while_loses_and_doubles_nothing(there, broker):
    publisher = Publisher(there)
    publisher.transactions.start()
    publisher.begin("a")
    wait_until(there.left_open)
    with paused(broker):
        publisher.add("b")
        threading.Timer(3, broker.resume, (1,)).start()
        publisher.commit()
    assert values(there) == ["a", "b"]


def test_a_broker_that_stays_away_is_one_line(there, broker, monkeypatch):
    monkeypatch.setattr(module, "OUTAGE_SECONDS", 2.0)
    monkeypatch.setattr(module, "START_SECONDS", 2.0)
    monkeypatch.setattr(module, "CLOSING_SECONDS", 0.5)
    publisher = Publisher(there)
    publisher.transactions.start()
    publisher.begin("a")
    with paused(broker):
        with (
            pytest.raises(EnvironmentFault, match="BOOTSTRAP_SERVERS: no Kafka broker answers at"),
            publisher.transactions,
        ):
            publisher.commit()
        fresh = Publisher(there)
        with pytest.raises(EnvironmentFault, match="no Kafka broker answers at"):
            fresh.transactions.start()


def test_who_is_asked_to_end_leaves_soon_though_the_broker_hangs(there, broker, monkeypatch):
    monkeypatch.setattr(module, "CLOSING_SECONDS", 0.5)
    publisher = Publisher(there)
    publisher.transactions.start()
    publisher.begin("a")
    with paused(broker):
        threading.Timer(0.5, publisher.stop.ask).start()
        with pytest.raises(KeyboardInterrupt), publisher.transactions:
            publisher.commit()


def test_a_job_whose_broker_stays_away_says_what_is_published_and_goes_on_later(
    there, broker, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "OUTAGE_SECONDS", 2.0)
    monkeypatch.setattr(module, "START_SECONDS", 2.0)
    monkeypatch.setattr(module, "CLOSING_SECONDS", 0.5)
    source = write_set(tmp_path / "in.csv", 100)

    class Cut(Run):
        def reached(self, rows: int) -> None:
            super().reached(rows)
            broker.pause(1)

    with paused(broker, now=False), pytest.raises(EnvironmentFault) as caught:
        Cut(there, source, transaction_rows=40).run()
    assert str(caught.value).endswith(
        "40 of 100 rows of job a-job are published; the same command goes on from there"
    )
    assert "no Kafka broker answers at" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert Run(there, source).run().start in {40, 80}  # the second may have come through after all
    assert [row.row for row in there.pairs()] == list(range(100))


def test_a_command_whose_broker_hangs_ends_soon_when_it_is_asked_to(there, broker, tmp_path):
    source = write_set(tmp_path / "in.csv", 1000)
    with there.started(source, "--job", "a-job", "--limit-rate", "200") as process:
        wait_until(lambda: there.rows_published() > 0, within=60)
        with paused(broker):
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=25)
    assert process.returncode == 130
    assert "the same command goes on from there" in said
    assert there.run(source, "--job", "a-job").returncode == 0
    assert [row.row for row in there.pairs()] == list(range(1000))


def test_a_broker_that_is_restarted_is_not_noticed_by_the_rows(there, broker, tmp_path):
    source = write_set(tmp_path / "in.csv", 3000)
    with there.started(source, "--limit-rate", "500") as process:
        wait_until(lambda: there.rows_published() > 0, within=60)
        for _ in range(2):
            broker.kill(1)
            broker.start(1)
        assert process.wait(120) == 0
    assert [row.row for row in there.pairs()] == list(range(3000))


class paused:  # noqa: N801 - read as a verb
    """A broker that hangs while the block runs, if nobody resumes it before."""

    def __init__(self, broker: local.NativeKafka, *, now: bool = True) -> None:
        self._broker = broker
        self._now = now

    def __enter__(self) -> None:
        if self._now:
            self._broker.pause(1)

    def __exit__(self, *_: object) -> None:
        psutil.Process(self._broker.pid(1)).send_signal(signal.SIGCONT)
