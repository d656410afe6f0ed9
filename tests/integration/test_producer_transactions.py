"""Transactions come whole or not at all: through fences, outages, full queues and refusals."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest

from deploy import local
from pairscore.errors import EnvironmentFault
from producer import transactions as module
from producer.pulse import Pulse
from producer.transactions import TakenOver, Transactions
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from tests.fetching import wait_until
from tests.producing import Place, place
from tests.services import had


@pytest.fixture
def here(kafka, topic_prefix) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix)


@pytest.fixture(scope="module")
def broker() -> Iterator[local.NativeKafka]:
    """One that may be killed and made to hang."""
    with had(local.kafka(native=True)) as kafka:
        yield kafka


@pytest.fixture
def there(broker, topic_prefix) -> Place:
    return place(broker.bootstrap_servers, topic_prefix)


class Publisher:
    """Transactions of one transactional id, and what became of them."""

    def __init__(self, where: Place, **options) -> None:
        self.stop = StopSignal()
        self.ended: Counter[str] = Counter()
        self.topic = where.topics.pairs
        self.transactions = Transactions(
            where.connection,
            "an-id",
            pulse=Pulse(self.stop, Health()),
            ended=lambda result: self.ended.update([result]),
            **options,
        )

    def begin(self, *values: str) -> None:
        self.transactions.begin()
        self.add(*values)

    def add(self, *values: str) -> None:
        for value in values:
            self.transactions.add(self.topic, value.encode(), value.encode())

    def commit(self, settled=None) -> None:
        self.transactions.commit(settled or never)


def never() -> bool:
    raise AssertionError("there is no doubt about the transaction")


def values(where: Place) -> list[str]:
    return sorted((record.value() or b"").decode() for record in where.records(where.topics.pairs))


def test_what_is_committed_can_be_read_and_nothing_else(here):
    publisher = Publisher(here)
    publisher.transactions.start()
    with publisher.transactions:
        publisher.begin("a", "b")
        assert publisher.transactions.size == 4
        publisher.commit()
        assert publisher.transactions.size == 0
        publisher.begin("c")
        assert values(here) == ["a", "b"]
        publisher.commit()
    assert values(here) == ["a", "b", "c"]
    assert publisher.ended == {"committed": 2}


def test_leaving_early_aborts_what_is_open_and_holds_no_reader_back(here):
    publisher = Publisher(here)
    publisher.transactions.start()
    publisher.begin("a")
    with pytest.raises(ZeroDivisionError), publisher.transactions:
        _ = 1 // 0
    assert publisher.ended == {"aborted": 1}
    wait_until(lambda: not here.left_open(), within=5)
    assert values(here) == []


def test_a_second_one_fences_the_first_whose_rows_are_gone(here):
    first, second = Publisher(here), Publisher(here)
    first.transactions.start()
    first.begin("a")
    second.transactions.start()
    second.begin("b")
    second.commit()
    with pytest.raises(TakenOver, match="another producer has taken over the job"):
        first.commit()
    assert values(here) == ["b"]


def test_one_that_was_fenced_between_transactions_is_told_so(here):
    first, second = Publisher(here), Publisher(here)
    first.transactions.start()
    first.begin("a")
    first.commit()
    second.transactions.start()
    first.begin("b")
    with pytest.raises(TakenOver):
        first.commit()
    second.begin("c")
    second.commit()
    assert values(here) == ["a", "c"]


def test_more_rows_than_the_clients_queue_takes_go_through(kafka, topic_prefix):
    small = place(
        kafka.bootstrap_servers,
        topic_prefix,
        properties={"queue.buffering.max.messages": "100"},
    )
    publisher = Publisher(small)
    publisher.transactions.start()
    rows = [f"{row:04d}" for row in range(1000)]
    publisher.begin(*rows)
    publisher.commit()
    assert values(small) == rows


def test_what_a_topic_refuses_for_good_is_said_and_not_tried_for_ever(here):
    publisher = Publisher(here)
    publisher.transactions.start()
    publisher.begin("a")
    publisher.transactions.add(here.topics.pairs, b"k", b"x" * 5_000_000)
    with (
        pytest.raises(EnvironmentFault, match=r"does not take the rows: .*too large"),
        publisher.transactions,
    ):
        publisher.commit()
    assert values(here) == []


@pytest.mark.parametrize("committed", [False, True])
def test_one_that_kafka_gave_up_is_begun_anew_unless_it_was_committed(here, committed):
    publisher = Publisher(here, timeout=1.0)
    publisher.transactions.start()
    publisher.begin("a", "b")
    wait_until(here.left_open)
    wait_until(lambda: not here.left_open(), within=30)  # Kafka looks every 10 s
    asked: list[bool] = []

    def settled() -> bool:
        asked.append(True)
        return bool(committed)

    publisher.commit(settled)
    assert values(here) == ([] if committed else ["a", "b"])
    assert asked
    publisher.begin("c")
    publisher.commit()
    assert values(here)[-1] == "c"


def test_whoever_was_overtaken_while_its_own_timed_out_does_not_fence_the_other(here):
    first, second = Publisher(here, timeout=1.0), Publisher(here)
    first.transactions.start()
    first.begin("a")
    wait_until(here.left_open)
    wait_until(lambda: not here.left_open(), within=30)
    second.transactions.start()
    second.begin("b")

    def settled() -> bool:
        raise TakenOver

    with pytest.raises(TakenOver):
        first.commit(settled)
    second.commit()
    assert values(here) == ["b"]


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


class paused:  # noqa: N801 - read as a verb
    """A broker that hangs while the block runs, if nobody resumes it before."""

    def __init__(self, broker: local.NativeKafka) -> None:
        self._broker = broker

    def __enter__(self) -> None:
        self._broker.pause(1)

    def __exit__(self, *_: object) -> None:
        psutil.Process(self._broker.pid(1)).send_signal(signal.SIGCONT)
