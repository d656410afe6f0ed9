"""The worker's loop against real Kafka, with a scorer that does what a test tells it to."""

import itertools
import json
import logging
import threading
import time
from datetime import UTC, datetime

import pytest
from confluent_kafka import KafkaError, KafkaException

from pairscore.errors import PairscoreError
from pairscore.pair import Failure, Reason
from pairscore.settings import Settings
from shared.clients import make_consumer
from shared.messages import PairMessage, ReplyTo, key_of
from shared.settings import WorkerSettings
from shared.shutdown import Deadline, StopSignal
from tests.fetching import wait_until
from tests.working import PASSING, SCORE, WITHIN, Fleet, Told, url_of, working
from worker import loop
from worker.__main__ import GROUP, run
from worker.ledger import Plan
from worker.publication import Publication
from worker.transactions import Aborted, Fatal, Transactions


@pytest.fixture
def fleet(kafka, topic_prefix):
    return Fleet(kafka.bootstrap_servers, topic_prefix, retry_delays=(1,))


def test_every_row_is_scored_once_and_nothing_lags_behind(fleet):
    fleet.publish(range(300))
    with working(fleet, Told()):
        wait_until(lambda: fleet.rows() == list(range(300)), within=WITHIN)
        wait_until(lambda: fleet.lag() == 0, within=WITHIN)
    assert fleet.rows() == list(range(300))


def test_lone_row_is_not_kept_waiting(fleet):
    with working(fleet, Told(), worker={"id": "w", "commit_interval": 20}):
        fleet.publish(range(1))
        wait_until(lambda: fleet.rows() == [0], within=WITHIN)
        started = time.monotonic()
        fleet.publish(range(1, 2))
        wait_until(lambda: fleet.rows() == [0, 1], within=WITHIN)
        assert time.monotonic() - started < 3


def test_failure_that_may_pass_is_tried_again_when_its_tier_is_due(fleet):
    scorer = Told(lambda _: PASSING)
    fleet.publish(range(5))
    with working(fleet, scorer):
        wait_until(lambda: fleet.rows() == list(range(5)), within=WITHIN)
    assert {(score.error, score.attempts) for score in fleet.scores()} == {(Reason.HTTP_ERROR, 4)}
    for row in range(5):
        times = [when for when, url in scorer.seen if url.endswith(f"/{row}.jpg")]
        assert len(times) == 4
        assert all(later - earlier >= 0.99 for earlier, later in itertools.pairwise(times))


def test_row_that_waits_for_its_tier_holds_up_no_other(fleet):
    slow = Fleet(
        fleet.settings.bootstrap_servers, fleet.settings.topic_prefix + "slow.", retry_delays=(600,)
    )
    scorer = Told(lambda pair: PASSING if pair.url.endswith("/0.jpg") else SCORE)
    slow.publish(range(1))
    with working(slow, scorer, window=10):
        wait_until(lambda: len(slow.read(slow.topics.retries[0].topic)) == 1, within=WITHIN)
        slow.publish(range(1, 100))
        wait_until(lambda: slow.rows() == list(range(1, 100)), within=WITHIN)


def test_urgent_rows_come_out_at_once_while_window_and_scorer_are_full_of_others(fleet):
    scorer = Told(lambda pair: None if pair.url.startswith("http://e.org") else SCORE)
    fleet.publish(range(5_000))
    options = {"id": "w", "in_flight": 50, "commit_interval": 20}
    with working(fleet, scorer, window=100, worker=options):
        wait_until(lambda: len(scorer.seen) == 50, within=WITHIN)
        started = time.monotonic()
        fleet.publish(range(5_000, 5_200), fleet.topics.interactive, url="http://urgent.org/")
        wait_until(lambda: fleet.rows() == list(range(5_000, 5_200)), within=WITHIN)
        assert time.monotonic() - started < 15, "it did not wait for the interval"
        assert len(scorer.seen) == 250
        assert scorer.urgent == ["http://urgent.org/"] * 200
        scorer.answer = lambda _: SCORE
        for future in scorer.kept:
            future.set_result(SCORE)
        # The last of them are published when the interval is over.
        wait_until(lambda: fleet.rows() == list(range(5_200)), within=20 + WITHIN)
    assert len(scorer.urgent) == 200


def test_urgent_rows_are_published_by_themselves_and_others_at_their_interval(fleet):
    kept = url_of(0)
    scorer = Told(lambda pair: None if pair.url == kept else SCORE)
    options = {"id": "w", "commit_interval": 3}
    published: list[set[str]] = []

    class Noting(Transactions):
        def publish(self, plan: Plan[Publication], seconds: float) -> None:
            super().publish(plan, seconds)
            published.append({topic for topic, _ in plan.offsets})

    stop = threading.Event()

    def hurry() -> None:
        for row in itertools.count(1_000):
            fleet.publish(range(row, row + 1), fleet.topics.interactive)
            if stop.wait(0.05):
                return

    thread = threading.Thread(target=hurry)
    with working(fleet, scorer, worker=options, transactions=Noting):
        fleet.publish(range(1))  # so that it is never idle
        wait_until(lambda: len(scorer.kept) == 1, within=WITHIN)
        thread.start()
        try:
            wait_until(lambda: published.count({fleet.topics.interactive}) > 20, within=WITHIN)
            fleet.publish(range(1, 100))
            mixed = [fleet.topics.pairs in topics for topics in published]
            before = len(published)
            # Of the three partitions, the kept row holds back its own.
            wait_until(lambda: len(set(fleet.rows()) & set(range(100))) > 20, within=WITHIN)
            after = published[before:]
        finally:
            stop.set()
            thread.join(WITHIN)
        assert not any(mixed)
        with_others = [topics for topics in after if fleet.topics.pairs in topics]
        assert 1 <= len(with_others) < len(after)
        scorer.finish(range(1))
        wait_until(lambda: fleet.lag() == 0, within=WITHIN)
    rows = fleet.rows()
    assert len(rows) == len(set(rows))


def test_who_waits_for_a_row_gets_a_copy_of_its_outcome_in_a_partition_of_its_own(fleet):
    failing = Failure(Reason.HTTP_ERROR, "404", attempts=1)
    scorer = Told(lambda pair: failing if pair.url == url_of(3) else SCORE)
    fleet.publish(range(2))
    fleet.publish(range(2, 4), reply_to=ReplyTo(partition=2, key="me"))
    # Of a fleet that has more partitions: nobody could be told there.
    fleet.publish(range(4, 5), reply_to=ReplyTo(partition=3, key="me"))
    with working(fleet, scorer):
        wait_until(lambda: fleet.rows() == list(range(5)), within=WITHIN)
    found = {
        message.value(): (message.partition(), message.key())
        for message in fleet.read(fleet.topics.replies)
    }
    scores = {each.value() for each in fleet.read(fleet.topics.scores)}
    assert set(found) < scores
    assert sorted(json.loads(value)["row"] for value in found) == [2, 3]
    assert set(found.values()) == {(2, b"me")}


def test_rows_behind_an_unfinished_one_are_published_after_it(fleet):
    scorer = Told(lambda pair: None if pair.url.endswith("/0.jpg") else SCORE)
    same = {"url": "http://e.org/0.jpg"}
    fleet.publish(range(1), **same)
    key = key_of(same["url"])
    with working(fleet, scorer):
        wait_until(lambda: len(scorer.kept) == 1, within=WITHIN)
        other = PairMessage(
            job="j", row=1, url="http://e.org/1.jpg", caption="a", created_at=datetime.now(UTC)
        )
        fleet.publish_bytes(other.encode(), key)  # into the same partition
        wait_until(lambda: len(scorer.seen) == 2, within=WITHIN)
        fleet.publish(range(2, 50))
        wait_until(lambda: len(fleet.rows()) > 10, within=WITHIN)
        assert not {0, 1} & set(fleet.rows())
        scorer.kept[0].set_result(SCORE)
        wait_until(lambda: fleet.rows() == list(range(50)), within=WITHIN)


def test_what_is_no_message_is_put_aside_and_the_rest_goes_on(fleet):
    fleet.publish_bytes(b"{", b"k")
    fleet.publish_bytes(b'{"v": 2, "job": "j"}')
    fleet.publish_bytes(b'{"v": 1, "job": "../j", "row": 0}')
    fleet.publish_bytes(bytes(20_000))
    fleet.publish(range(3))
    strict = fleet.settings.model_copy(update={"max_message_bytes": 10_000})
    with working(fleet, Told(), kafka=strict):
        wait_until(lambda: fleet.rows() == [0, 1, 2], within=WITHIN)
        wait_until(lambda: len(fleet.read(fleet.topics.dead_letters)) == 4, within=WITHIN)
    letters = fleet.read(fleet.topics.dead_letters)
    reasons = sorted(dict(letter.headers() or [])["pairscore.reason"] for letter in letters)
    assert reasons == [b"invalid", b"oversized", b"undecodable", b"unknown_version"]


def test_row_of_another_width_than_its_header_is_malformed_and_never_scored(fleet):
    scorer = Told()
    fleet.publish(range(1), columns=("http://e.org/0.jpg", "a", "b"), width=2)
    with working(fleet, scorer):
        wait_until(lambda: fleet.rows() == [0], within=WITHIN)
    (score,) = fleet.scores()
    assert (score.error, score.error_detail) == (Reason.MALFORMED_ROW, "3 cells under 2 columns")
    assert scorer.seen == []


def draining(caplog) -> bool:
    return any(record.message.startswith("asked to end") for record in caplog.records)


def test_asked_to_end_it_goes_on_publishing_what_finishes(fleet, caplog):
    caplog.set_level(logging.INFO)
    scorer = Told(lambda _: None)
    fleet.publish(range(40))
    with working(fleet, scorer, worker={"id": "w", "commit_interval": 0.2}) as stop:
        wait_until(lambda: len(scorer.kept) == 40, within=WITHIN)
        stop.ask()
        wait_until(lambda: draining(caplog), within=WITHIN)
        scorer.finish(range(20))
        wait_until(lambda: fleet.rows() == list(range(20)), within=WITHIN)
        scorer.finish(range(20, 40))
    assert fleet.rows() == list(range(40))


def test_asked_to_end_it_publishes_at_last_what_it_has_finished_and_leaves_the_rest(fleet, caplog):
    caplog.set_level(logging.INFO)
    first, second = Told(lambda _: None), Told()
    fleet.publish(range(40))
    ending = {"id": "w", "shutdown_seconds": 1, "commit_interval": 20}
    with working(fleet, first, worker=ending) as stop:
        wait_until(lambda: len(first.kept) == 40, within=WITHIN)
        stop.ask()
        wait_until(lambda: draining(caplog), within=WITHIN)
        first.finish(range(20))
    assert fleet.rows() == list(range(20))
    with working(fleet, second):
        wait_until(lambda: fleet.rows() == list(range(40)), within=WITHIN)
    assert second.rows() == list(range(20, 40))


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_what_is_finished_of_partitions_that_move_is_published_before_they_do(
    kafka, topic_prefix, protocol
):
    fleet = Fleet(kafka.bootstrap_servers, topic_prefix, group_protocol=protocol)
    first, second = Told(lambda pair: None if pair.url.endswith("/29.jpg") else SCORE), Told()
    fleet.publish(range(30))
    # With a row in the scorer and so long an interval, nothing else has it publish.
    with working(fleet, first, worker={"id": "w", "commit_interval": 20}):
        wait_until(lambda: len(first.seen) == 30, within=WITHIN)
        assert fleet.rows() == []
        first.answer = lambda _: SCORE
        with working(fleet, second, worker={"id": "v"}):
            wait_until(lambda: fleet.members() == 2, within=WITHIN)
            assert fleet.rows() != []
            fleet.publish(range(30, 60))
            first.finish(range(29, 30))
            wait_until(lambda: set(fleet.rows()) == set(range(60)), within=WITHIN)
    assert fleet.rows() == list(range(60))
    finished = [row for row in first.rows() + second.rows() if row < 29]
    assert sorted(finished) == list(range(29))
    assert not set(second.rows()) & set(range(29))


def test_as_much_as_a_transaction_takes_waits_for_nothing(fleet, monkeypatch):
    monkeypatch.setattr(loop, "MOST_BYTES", 1_000)
    scorer = Told(lambda pair: None if pair.url == url_of(59) else SCORE)
    fleet.publish(range(60))
    least = min(len(message.value() or b"") for message in fleet.read(fleet.topics.pairs))
    with working(fleet, scorer, worker={"id": "w", "commit_interval": 20}):
        wait_until(lambda: len(scorer.seen) == 60, within=WITHIN)
        wait_until(lambda: len(fleet.rows()) >= 59 - 1_000 // least, within=10)
        scorer.finish(range(59, 60))
    assert fleet.rows() == list(range(60))


def test_more_than_one_transaction_takes_is_published_in_several_when_partitions_go(
    fleet, monkeypatch
):
    monkeypatch.setattr(loop, "MOST_BYTES", 1_000)
    plans: list[int] = []

    class Leaving(Transactions):
        """Its consumer is to give everything back as soon as the first transaction is done."""

        def publish(self, plan: Plan[Publication], seconds: float) -> None:
            super().publish(plan, seconds)
            plans.append(len(plan.outcomes))
            self._consumer.unsubscribe()

    # All in one partition, of which nothing is finished before its first row is.
    same = {"url": url_of(0)}
    fleet.publish(range(31), **same)
    least = min(len(message.value() or b"") for message in fleet.read(fleet.topics.pairs))
    first, second = Told(lambda _: None), Told()
    with working(fleet, first, transactions=Leaving):
        wait_until(lambda: len(first.kept) == 31, within=WITHIN)
        for future in reversed(first.kept):
            future.set_result(SCORE)
        wait_until(lambda: fleet.rows() == list(range(31)), within=WITHIN)
    assert max(plans) <= 1_000 // least
    with working(fleet, second):
        fleet.publish(range(31, 32))
        wait_until(lambda: fleet.rows() == list(range(32)), within=WITHIN)
    assert second.rows() == [31]


def test_defect_of_the_scorer_ends_the_worker(fleet):
    broken = Told(lambda _: None)
    fleet.publish(range(20))
    with pytest.raises(ZeroDivisionError):  # noqa: PT012, SIM117 - it is raised on leaving
        with working(fleet, broken) as stop:
            wait_until(lambda: len(broken.kept) == 20, within=WITHIN)
            for future in broken.kept[:5]:
                future.set_result(SCORE)
            broken.kept[10].set_exception(ZeroDivisionError())
            wait_until(lambda: stop.asked, within=WITHIN)


def test_second_worker_of_the_same_id_ends_the_first(fleet):
    first, second = Told(), Told()
    fleet.publish(range(10))
    rows = itertools.count(10)

    def publish_until(stop: StopSignal) -> bool:
        row = next(rows)
        fleet.publish(range(row, row + 1))
        return stop.asked

    with pytest.raises(PairscoreError, match="WORKER__ID"):  # noqa: PT012, SIM117
        with working(fleet, first) as stop:
            wait_until(lambda: fleet.rows() == list(range(10)), within=WITHIN)
            with working(fleet, second):
                wait_until(lambda: publish_until(stop), within=WITHIN)


def test_commit_that_kafka_stumbles_over_names_who_may_have_taken_over(fleet):
    """What Kafka 4.3 answers to one that it is about to fence; that cannot be had at will."""

    class Stumbling(Transactions):
        def commit(self, deadline: Deadline) -> None:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN))

    fleet.publish(range(10))
    with pytest.raises(Fatal, match=r"taken over.*must start anew.*WORKER__ID"):  # noqa: SIM117
        with working(fleet, Told(), transactions=Stumbling) as stop:
            wait_until(lambda: stop.asked, within=WITHIN)


def test_worker_that_cannot_commit_for_long_ends(fleet, monkeypatch):
    """As when its client, after an outage, never finds a broker again."""
    monkeypatch.setattr(loop, "LOST_SECONDS", 2.0)
    failures = itertools.count()

    class Failing(Transactions):
        def flush(self, deadline: Deadline) -> None:
            super().flush(deadline)
            if fleet.rows():
                next(failures)
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    fleet.publish(range(10))
    with pytest.raises(Fatal, match=r"all transactions .* for \d+ s, .*Timed out.* start anew"):  # noqa: PT012, SIM117
        with working(fleet, Told(), transactions=Failing) as stop:
            wait_until(lambda: fleet.rows() == list(range(10)), within=WITHIN)
            fleet.publish(range(10, 20))
            wait_until(lambda: stop.asked, within=WITHIN)
    assert next(failures) > 1, "it was tried again before"
    assert fleet.rows() == list(range(10))


def test_settings_of_the_scorer_leave_further_attempts_to_the_tiers(fleet):
    given: list[Settings] = []

    def make(settings: Settings) -> Told:
        given.append(settings)
        return Told()

    stop = StopSignal()
    stop.ask()
    settings = WorkerSettings(
        kafka=fleet.settings, worker={"id": "w"}, telemetry={"port": 0}, fetch={"timeout": 7}
    )
    run(settings, stop, make_scorer=make)
    assert given[0].fetch.attempts == 1
    assert given[0].fetch.queue_timeout == 7 / 6


def test_offsets_are_committed_as_a_member_or_not_at_all(fleet):
    aborted: list[Aborted] = []

    class AtFirstAsNobody(Transactions):
        """With the metadata of a consumer that has no id, whose offsets Kafka does not check."""

        def publish(self, plan: Plan[Publication], seconds: float) -> None:
            member = self._consumer
            if len(aborted) < 3:
                self._consumer = make_consumer(fleet.connection, group=GROUP)
            try:
                super().publish(plan, seconds)
            except Aborted as error:
                aborted.append(error)
                assert fleet.rows() == []
                raise
            finally:
                self._consumer = member

    fleet.publish(range(10))
    with working(fleet, Told(), transactions=AtFirstAsNobody):
        wait_until(lambda: fleet.rows() == list(range(10)), within=WITHIN)
    assert len(aborted) == 3
