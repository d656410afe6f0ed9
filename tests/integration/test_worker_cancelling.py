"""A job that is cancelled: what is not scored yet comes out as `cancelled`, each row once."""

import logging
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy import local
from deploy.local.ports import free_ports
from pairscore.errors import EnvironmentFault
from pairscore.pair import Reason
from shared.cancellations import cancel
from shared.clients import connect, make_producer
from shared.connection import Connection
from shared.settings import KafkaSettings
from shared.topics import Topics, create_topics
from tests.fetching import wait_until
from tests.services import had
from tests.working import PASSING, SCORE, WITHIN, Fleet, Told, said_by_worker, working
from worker import __main__ as worker
from worker import cancellations
from worker.__main__ import GROUP
from worker.cancellations import Cancellations

LONG = 90.0
Ends = Counter[tuple[str, Reason | None]]


@pytest.fixture
def fleet(kafka, topic_prefix) -> Fleet:
    return Fleet(kafka.bootstrap_servers, topic_prefix, retry_delays=(1,))


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level(logging.INFO)


def cancel_job(fleet: Fleet, job: str = "j") -> None:
    cancel(fleet.connection, fleet.producer, job, WITHIN)


def cancel_while_it_works(fleet: Fleet, caplog: pytest.LogCaptureFixture, job: str = "j") -> None:
    """Cancel a job, and wait until the worker has heard of it."""
    cancel_job(fleet, job)
    wait_until(lambda: f"job {job} is cancelled" in caplog.messages, within=WITHIN)


def ends(fleet: Fleet) -> Ends:
    """How many rows of each job have come to what end."""
    return Counter((score.job, score.error) for score in fleet.scores())


def test_rows_that_wait_come_out_as_cancelled_and_those_in_the_scorer_with_their_score(
    fleet, caplog
):
    scorer = Told(lambda _: None)
    fleet.publish(range(100))
    fleet.publish(range(100, 200), job="other")
    with working(fleet, scorer, worker={"id": "w", "in_flight": 20}):
        wait_until(lambda: len(scorer.kept) == 20, within=WITHIN)
        cancel_while_it_works(fleet, caplog)
        taken = set(scorer.rows())
        scorer.answer = lambda _: SCORE
        for future in scorer.kept:
            future.set_result(SCORE)
        wait_until(lambda: fleet.rows() == list(range(200)), within=WITHIN)
        fleet.publish(range(200, 210))
        wait_until(lambda: fleet.rows() == list(range(210)), within=WITHIN)
    inside = sum(row < 100 for row in taken)
    assert ends(fleet) == {
        ("j", None): inside,
        ("j", Reason.CANCELLED): 110 - inside,
        ("other", None): 100,
    }
    assert set(scorer.rows()) == taken | set(range(100, 200))


def test_job_that_was_cancelled_before_the_worker_began_is_never_scored(kafka, topic_prefix):
    # Its rows wait for no delay of a tier.
    fleet = Fleet(kafka.bootstrap_servers, topic_prefix, retry_delays=(600,))
    scorer = Told()
    fleet.publish(range(50))
    fleet.publish(range(50, 60), fleet.topics.interactive)
    fleet.publish(range(60, 70), fleet.topics.retries[0].topic, attempt=3)
    fleet.publish(range(70, 80), job="other")
    cancel_job(fleet)
    with working(fleet, scorer):
        wait_until(lambda: fleet.rows() == list(range(80)), within=WITHIN)
        wait_until(lambda: fleet.lag() == 0, within=WITHIN)
    assert ends(fleet) == {("j", Reason.CANCELLED): 70, ("other", None): 10}
    assert scorer.rows() == list(range(70, 80))
    attempts = {score.row: score.attempts for score in fleet.scores()}
    assert (attempts[0], attempts[60]) == (0, 2)


def test_worker_that_is_started_again_still_knows(fleet, caplog):
    first, second = Told(), Told()
    fleet.publish(range(10))
    with working(fleet, first):
        wait_until(lambda: fleet.rows() == list(range(10)), within=WITHIN)
        cancel_while_it_works(fleet, caplog)
    fleet.publish(range(10, 20))
    with working(fleet, second):
        wait_until(lambda: fleet.rows() == list(range(20)), within=WITHIN)
    assert ends(fleet) == {("j", None): 10, ("j", Reason.CANCELLED): 10}
    assert second.rows() == []


def test_failure_that_might_pass_is_not_tried_again(fleet, caplog):
    scorer = Told(lambda _: None)
    fleet.publish(range(5))
    with working(fleet, scorer):
        wait_until(lambda: len(scorer.kept) == 5, within=WITHIN)
        cancel_while_it_works(fleet, caplog)
        for future in scorer.kept[:3]:
            future.set_result(PASSING)
        for future in scorer.kept[3:]:
            future.set_result(SCORE)
        wait_until(lambda: fleet.rows() == list(range(5)), within=WITHIN)
    assert ends(fleet) == {("j", Reason.CANCELLED): 3, ("j", None): 2}
    assert {score.attempts for score in fleet.scores()} == {1}
    assert fleet.read(fleet.topics.retries[0].topic) == []


def test_rows_of_a_tier_that_were_read_before_are_not_scored_when_they_are_due(fleet, caplog):
    scorer = Told(lambda _: None)
    tier = fleet.topics.retries[0].topic
    [port] = free_ports(1)
    options = {"id": "w", "in_flight": 1}
    fleet.publish(range(1), job="other")
    with working(fleet, scorer, worker=options, telemetry={"port": port}):
        # The scorer is full, so that they are due long before there is room for them.
        wait_until(lambda: len(scorer.kept) == 1, within=WITHIN)
        fleet.publish(range(1, 20), tier, attempt=2)
        read = f"records_total/{tier}"
        wait_until(lambda: said_by_worker(port).get(read) == 19, within=WITHIN)
        cancel_while_it_works(fleet, caplog)
        scorer.kept[0].set_result(SCORE)
        wait_until(lambda: fleet.rows() == list(range(20)), within=WITHIN)
        assert said_by_worker(port)["outcomes_total/cancelled"] == 19
    assert ends(fleet) == {("other", None): 1, ("j", Reason.CANCELLED): 19}
    assert scorer.rows() == [0]


def test_what_is_no_cancellation_is_passed_over(fleet, caplog):
    topic = fleet.topics.cancellations
    for value in (b"{", b'{"v": 2}', None):
        fleet.producer.produce(topic, key=b"x", value=value, partition=0)
    fleet.producer.flush(WITHIN)
    cancel_job(fleet)
    with following(fleet.connection, fleet.topics) as cancelled:
        cancelled.wait(WITHIN)
        assert "j" in cancelled
        assert "x" not in cancelled
    assert sum("is ignored" in line for line in caplog.messages) == 3


def test_defect_in_following_ends_the_worker(fleet, monkeypatch):
    scorer = Told()
    fleet.publish(range(1))
    with pytest.raises(ZeroDivisionError):  # noqa: PT012, SIM117 - it is raised on leaving
        with working(fleet, scorer) as stop:
            wait_until(lambda: fleet.rows() == [0], within=WITHIN)
            monkeypatch.setattr(cancellations, "decode", lambda *_: 1 // 0)
            cancel_job(fleet)
            wait_until(lambda: stop.asked, within=WITHIN)


def test_worker_does_not_begin_before_it_knows_what_is_cancelled(fleet, monkeypatch):
    monkeypatch.setattr(cancellations.Cancellations, "_follow", lambda _: False)
    monkeypatch.setattr(worker, "READ_SECONDS", 0.1)
    scorer = Told()
    fleet.publish(range(1))
    with (
        pytest.raises(EnvironmentFault, match=r"cancellations at \S+ was not read to its end"),
        working(fleet, scorer) as stop,
    ):
        wait_until(lambda: stop.asked, within=WITHIN)
    assert scorer.rows() == []


def test_topic_that_was_made_anew_is_followed(fleet):
    cancel_job(fleet, "before")
    with following(fleet.connection, fleet.topics) as cancelled:
        cancelled.wait(WITHIN)
        for gone in fleet.admin.delete_topics([fleet.topics.cancellations]).values():
            gone.result(WITHIN)
        wait_until(lambda: made_anew(fleet), within=WITHIN)
        cancel_job(fleet, "after")
        wait_until(lambda: "after" in cancelled, within=LONG)
        assert "before" in cancelled


def made_anew(fleet: Fleet) -> bool:
    found = fleet.admin.list_topics(timeout=WITHIN)
    return bool(create_topics(fleet.settings, fleet.admin, found))


@pytest.fixture(scope="module")
def broker() -> Iterator[local.NativeKafka]:
    """One that may be killed and made to hang."""
    with had(local.kafka(native=True)) as kafka:
        yield kafka


@pytest.mark.parametrize("hangs", [False, True], ids=["killed", "suspended"])
def test_broker_that_was_away_is_heard_again(broker, topic_prefix, hangs, caplog):
    settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, topic_prefix=topic_prefix)
    connection, topics = Connection(settings), Topics.of(settings)
    create_topics(settings, *connect(connection))
    cancel(connection, make_producer(connection, transactional_id=None), "before", WITHIN)
    with following(connection, topics) as cancelled:
        cancelled.wait(WITHIN)
        (broker.pause if hangs else broker.kill)(1)
        wait_until(lambda: "cancelled lately is not known" in caplog.text, within=LONG)
        assert "before" in cancelled
        (broker.resume if hangs else broker.start)(1)
        wait_until(lambda: answers(settings), within=LONG)
        other = Connection(settings)
        cancel(other, make_producer(other, transactional_id=None), "after", LONG)
        wait_until(lambda: "after" in cancelled, within=LONG)
        cancelled.check()


def answers(settings: KafkaSettings) -> bool:
    """Whether a broker that was away takes part in its cluster again."""
    try:
        admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
        return bool(admin.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def test_kafka_that_is_away_cannot_be_told(topic_prefix):
    [port] = free_ports(1)
    settings = KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}", topic_prefix=topic_prefix)
    connection = Connection(settings)
    producer = make_producer(connection, transactional_id=None)
    with pytest.raises(EnvironmentFault, match="no Kafka broker answers at") as caught:
        cancel(connection, producer, "j", 2.0)
    assert "\n" not in str(caught.value)


def following(connection: Connection, topics: Topics) -> Cancellations:
    return Cancellations(connection, topics.cancellations, group=GROUP, life_seconds=5.0)
