"""Transactions come whole or not at all: through fences, timeouts, full queues and refusals."""

import time
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from pairscore.errors import EnvironmentFault
from producer import transactions as module
from producer.faults import TakenOver
from tests.fetching import wait_until
from tests.producing import Place, place
from tests.publishing import Publisher, values


@pytest.fixture
def here(kafka, topic_prefix) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix)


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
    wait_until(here.left_open)
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


class Unanswered:
    """A client of Kafka that learns of no end of a transaction, though it may have come about."""

    def __init__(self, real: Producer, *, heard: bool) -> None:
        self._real = real
        self._heard = heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def commit_transaction(self, timeout: float) -> None:
        if self._heard:
            self._real.commit_transaction(20)
            self._heard = False
        self.abort_transaction(timeout)

    def abort_transaction(self, timeout: float) -> None:
        time.sleep(timeout)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer", retriable=True))


def unanswered(here: Place, monkeypatch: pytest.MonkeyPatch, *, heard: bool) -> Publisher:
    publisher = Publisher(here)
    transactions = publisher.transactions
    monkeypatch.setattr(transactions, "_producer", Unanswered(transactions._producer, heard=heard))
    transactions.start()
    return publisher


@pytest.mark.parametrize("heard", [False, True])
def test_a_client_that_gets_no_answer_any_more_is_replaced(here, monkeypatch, caplog, heard):
    monkeypatch.setattr(module, "LOST_SECONDS", 1.0)
    publisher = unanswered(here, monkeypatch, heard=heard)
    publisher.begin("a", "b")
    kafka_is_away = iter([True, False, False])

    def settled() -> bool:
        if next(kafka_is_away):
            raise EnvironmentFault("it is away")
        return values(here) == ["a", "b"]

    publisher.commit(settled)
    assert values(here) == ["a", "b"]
    assert publisher.ended == {"aborted": 1, "committed": 1}
    publisher.begin("c")
    publisher.commit()
    assert values(here) == ["a", "b", "c"]
    assert "going on with another client of Kafka" in caplog.text


def test_looking_for_what_became_of_it_ends_with_the_outage(here, monkeypatch):
    monkeypatch.setattr(module, "LOST_SECONDS", 1.0)
    monkeypatch.setattr(module, "OUTAGE_SECONDS", 2.0)
    publisher = unanswered(here, monkeypatch, heard=False)
    publisher.begin("a")

    def settled() -> bool:
        raise EnvironmentFault("it is away")

    with pytest.raises(EnvironmentFault, match="it is away"):
        publisher.commit(settled)
