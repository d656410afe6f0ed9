"""The worker's loop against real Kafka, with a scorer that does what a test tells it to."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from queue import SimpleQueue

import pytest
from confluent_kafka import Message, TopicPartition

from pairscore.errors import PairscoreError
from pairscore.pair import Failure, Outcome, Pair, Reason, Score
from pairscore.settings import Settings
from shared.clients import (
    Connection,
    connect,
    end_offsets,
    make_admin,
    make_consumer,
    make_producer,
)
from shared.messages import PairMessage, ScoreMessage, decode, key_of
from shared.settings import KafkaSettings, WorkerSettings
from shared.shutdown import StopSignal
from shared.topics import Topics, create_topics
from tests.fetching import wait_until
from worker import loop
from worker.__main__ import GROUP, run
from worker.ledger import Plan
from worker.publication import Publication
from worker.transactions import Transactions

WITHIN = 30.0
SCORE = Score(25.0, 0.25, caption_truncated=False, image_sha256="0" * 64, attempts=1)
PASSING = Failure(Reason.HTTP_ERROR, "503", attempts=1, retryable=True)


class Told:
    """Answers at once with what `answer` gives; keeps the pair until told where that is None."""

    fingerprint = "told"

    def __init__(self, answer: Callable[[Pair], Outcome | None] = lambda _: SCORE) -> None:
        self.answer = answer
        self.asked: SimpleQueue[tuple[float, Pair]] = SimpleQueue()
        self.seen: list[tuple[float, str]] = []
        self.kept: list[Future[Outcome]] = []

    def submit(self, pair: Pair) -> Future[Outcome]:
        self.seen.append((time.time(), pair.url))
        future: Future[Outcome] = Future()
        outcome = self.answer(pair)
        if outcome is None:
            self.kept.append(future)
        else:
            future.set_result(outcome)
        return future

    def close(self) -> None:
        pass


class Fleet:
    """Topics of one test, and what is on them."""

    def __init__(self, bootstrap: str, prefix: str, **kafka: object) -> None:
        self.settings = KafkaSettings(
            bootstrap_servers=bootstrap, topic_prefix=prefix, partitions=3, **kafka
        )
        self.topics = Topics.of(self.settings)
        self.connection = Connection(self.settings)
        self.admin = make_admin(self.connection)
        create_topics(self.settings, self.admin, connect(self.connection, self.admin))
        self.producer = make_producer(self.connection, transactional_id=None)

    def publish(self, rows: range, topic: str | None = None, **changes: object) -> None:
        for row in rows:
            url = f"http://e.org/{row}.jpg"
            pair = PairMessage(
                job="j", row=row, url=url, caption="a", created_at=datetime.now(UTC)
            ).model_copy(update=changes)
            self.producer.produce(topic or self.topics.pairs, key=key_of(url), value=pair.encode())
        self.producer.flush(WITHIN)

    def publish_bytes(self, value: bytes, key: bytes | None = None) -> None:
        self.producer.produce(self.topics.pairs, key=key, value=value)
        self.producer.flush(WITHIN)

    def read(self, topic: str) -> list[Message]:
        """Everything that a read_committed reader sees."""
        numbers = self.admin.list_topics(topic, timeout=WITHIN).topics[topic].partitions
        consumer = make_consumer(
            self.connection, group="test", extra={"enable.partition.eof": True}
        )
        consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
        left, found = set(numbers), []
        while left:
            message = consumer.poll(WITHIN)
            assert message is not None
            if message.error() is None:
                found.append(message)
            else:
                left.discard(message.partition())
        consumer.close()
        return found

    def scores(self) -> list[ScoreMessage]:
        decoded = [
            decode(ScoreMessage, message.value()) for message in self.read(self.topics.scores)
        ]
        scores = [each for each in decoded if isinstance(each, ScoreMessage)]
        assert len(scores) == len(decoded)
        return scores

    def rows(self) -> list[int]:
        return sorted(score.row for score in self.scores())

    def lag(self) -> int:
        partitions = [(topic, n) for topic in self.topics.to_score for n in range(3)]
        consumer = make_consumer(self.connection, group=GROUP)
        committed = consumer.committed([TopicPartition(*each) for each in partitions], WITHIN)
        consumer.close()
        ends = end_offsets(self.admin, partitions, committed=True)
        return sum(ends[c.topic, c.partition] - max(0, c.offset) for c in committed)


@contextmanager
def working(
    fleet: Fleet,
    scorer: Told,
    *,
    transactions: type[Transactions] = Transactions,
    **settings: object,
) -> Iterator[StopSignal]:
    """A worker in a thread; what ends it is raised on leaving."""
    options = {
        "kafka": fleet.settings,
        "worker": {"id": "w"},
        "telemetry": {"port": 0},
        "window": 1_000,
    }
    made = WorkerSettings(**(options | settings))  # type: ignore[arg-type]
    stop = StopSignal()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run(made, stop, make_scorer=lambda _: scorer, make_transactions=transactions)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)
            stop.ask()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield stop
    finally:
        stop.ask()
        thread.join(WITHIN)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


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


def test_urgent_rows_overtake_those_that_wait(fleet):
    scorer = Told(lambda pair: None if pair.url.startswith("http://e.org") else SCORE)
    fleet.publish(range(500))
    with working(fleet, scorer, window=100, worker={"id": "w", "in_flight": 50}):
        wait_until(lambda: len(scorer.seen) == 50, within=WITHIN)
        fleet.publish(range(500, 510), fleet.topics.interactive, url="http://urgent.org/")
        scorer.kept[0].set_result(SCORE)
        wait_until(lambda: fleet.rows()[-10:] == list(range(500, 510)), within=WITHIN)
        assert len(scorer.seen) <= 61
        scorer.answer = lambda _: SCORE
        for future in scorer.kept[1:]:
            future.set_result(SCORE)
        wait_until(lambda: fleet.rows() == list(range(510)), within=WITHIN)


def test_full_window_takes_no_more_until_there_is_room(fleet):
    scorer = Told(lambda _: None)
    fleet.publish(range(600))
    with working(fleet, scorer, window=100, worker={"id": "w", "in_flight": 1_000}):
        wait_until(lambda: len(scorer.seen) >= 100, within=WITHIN)
        fleet.publish(range(600, 601))
        assert len(scorer.seen) <= 101
        scorer.answer = lambda _: SCORE
        for future in scorer.kept:
            future.set_result(SCORE)
        wait_until(lambda: fleet.rows() == list(range(601)), within=WITHIN)


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


def test_asked_to_end_it_finishes_what_it_can_and_leaves_the_rest(fleet):
    scorer = Told(lambda _: None)
    fleet.publish(range(40))
    with working(fleet, scorer, worker={"id": "w", "shutdown_seconds": 1}) as stop:
        wait_until(lambda: len(scorer.kept) == 40, within=WITHIN)
        first = {url: future for (_, url), future in zip(scorer.seen, scorer.kept, strict=True)}
        stop.ask()
        for row in range(0, 40, 2):
            first[f"http://e.org/{row}.jpg"].set_result(SCORE)
    done = fleet.rows()
    assert set(done) <= set(range(0, 40, 2))
    with working(fleet, Told()):
        wait_until(lambda: fleet.rows() == list(range(40)), within=WITHIN)


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


def test_offsets_of_quiet_partitions_are_committed_again(fleet, monkeypatch):
    monkeypatch.setattr(loop, "_RENEW_SECONDS", 0.3)
    renewed: list[dict[tuple[str, int], int]] = []

    class Watched(Transactions):
        def publish(self, plan: Plan[Publication], seconds: float) -> None:
            super().publish(plan, seconds)
            if not plan.outcomes and len(plan.offsets) > 1:
                renewed.append(dict(plan.offsets))

    fleet.publish(range(60))
    ends = {(fleet.topics.pairs, number) for number in range(3)}
    with working(fleet, Told(), transactions=Watched):
        wait_until(lambda: fleet.rows() == list(range(60)), within=WITHIN)
        renewed.clear()
        wait_until(lambda: len(renewed) >= 2, within=WITHIN)
    assert ends <= renewed[-1].keys()
    with working(fleet, second := Told()):
        wait_until(lambda: fleet.lag() == 0, within=WITHIN)
    assert second.seen == []


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
    assert (given[0].fetch.attempts, given[0].fetch.queue_timeout) == (1, 7)
