"""The worker's pure parts: what comes of a record, where it waits, and who is paused."""

import logging
import os
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairscore.pair import Failure, Outcome, Pair, Reason, Score
from shared.identity import process_identity
from shared.messages import Defect, PairMessage, Rejection, ScoreMessage, decode
from shared.settings import KafkaSettings
from shared.telemetry.health import Health
from shared.telemetry.metrics import Metrics
from shared.topics import RetryTier
from worker.backpressure import Backpressure
from worker.ledger import Ledger, Record
from worker.meter import Meter
from worker.parking import Parking
from worker.publication import (
    LONGEST_DEFERRAL,
    Kind,
    Origin,
    Publication,
    Publisher,
    next_tier,
)
from worker.scoring import Scoring, Task

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PAIR = PairMessage(
    job="j",
    row=7,
    url="http://e.org/a.jpg",
    caption="a",
    columns=("http://e.org/a.jpg", "a"),
    raw='"http://e.org/a.jpg",a',
    width=2,
    created_at=NOW,
)
TIERS = (RetryTier("r5", 5), RetryTier("r60", 60), RetryTier("r600", 600))
PASSING = Failure(Reason.HTTP_ERROR, "503", attempts=1, retryable=True)
SCORE = Score(25.5, 0.255, caption_truncated=True, image_sha256="ab" * 32, attempts=1)


@pytest.fixture
def publisher():
    settings = KafkaSettings(topic_prefix="p.", retry_delays=(5, 60))
    return Publisher(settings, attempts=4, fingerprint="fp", worker="w1")


def test_score_carries_the_row_and_everything_that_is_known(publisher):
    made = publisher.outcome(PAIR.model_copy(update={"attempt": 3}), SCORE, NOW)
    assert (made.kind, made.label, made.topic, made.key) == (
        Kind.SCORE,
        "",
        "p.scores",
        b"http://e.org/a.jpg",
    )
    message = decode(ScoreMessage, made.value)
    assert isinstance(message, ScoreMessage)
    assert message.outcome == replace(SCORE, attempts=3)
    assert (message.job, message.row, message.columns, message.raw, message.model) == (
        "j",
        7,
        PAIR.columns,
        PAIR.raw,
        "fp",
    )


def test_failure_that_cannot_pass_is_the_outcome(publisher):
    failure = Failure(Reason.HTTP_ERROR, "404", attempts=1)
    made = publisher.outcome(PAIR, failure, NOW)
    assert (made.kind, made.label) == (Kind.SCORE, "http_error")
    message = decode(ScoreMessage, made.value)
    assert isinstance(message, ScoreMessage)
    assert message.outcome == failure


def test_failure_that_may_pass_goes_to_the_next_tier_with_its_attempts_counted(publisher):
    pair, topics = PAIR, []
    while (made := publisher.outcome(pair, PASSING, NOW)).kind is Kind.RETRY:
        topics.append((made.topic, made.label))
        again = decode(PairMessage, made.value)
        assert isinstance(again, PairMessage)
        assert again == pair.model_copy(update={"attempt": pair.attempt + 1})
        pair = again
    assert topics == [
        ("p.pairs.retry.5s", "5"),
        ("p.pairs.retry.60s", "60"),
        ("p.pairs.retry.60s", "60"),
    ]
    message = decode(ScoreMessage, made.value)
    assert isinstance(message, ScoreMessage)
    assert (message.error, message.attempts) == (Reason.HTTP_ERROR, 4)


@pytest.mark.parametrize(
    ("attempt", "asked", "delay"),
    [(1, None, 5), (2, None, 60), (3, None, 600), (1, 30.0, 60), (1, 61.0, 600), (1, 9e9, 600)],
)
def test_server_that_asks_for_longer_gets_a_slower_tier(attempt, asked, delay):
    pair = PAIR.model_copy(update={"attempt": attempt})
    tier = next_tier(pair, replace(PASSING, retry_after=asked), TIERS, 4, NOW)
    assert tier is not None
    assert tier.delay == delay


def test_row_nobody_was_asked_for_is_deferred_for_a_day_without_counting(publisher):
    deferred = Failure(Reason.TIMEOUT, "slow", retryable=True, deferred=True)
    last = PAIR.model_copy(update={"attempt": 4})
    first = NOW + timedelta(days=13)  # it had waited behind others for so long
    made = publisher.outcome(last, deferred, first)
    assert made.kind is Kind.RETRY
    again = decode(PairMessage, made.value)
    assert isinstance(again, PairMessage)
    assert again == last.model_copy(update={"deferred_since": first})
    assert publisher.outcome(again, deferred, first + LONGEST_DEFERRAL).kind is Kind.RETRY
    late = first + LONGEST_DEFERRAL + timedelta(seconds=1)
    assert publisher.outcome(again, deferred, late).kind is Kind.SCORE
    asked = publisher.outcome(again.model_copy(update={"attempt": 1}), PASSING, late)
    found = decode(PairMessage, asked.value)
    assert isinstance(found, PairMessage)
    assert (found.attempt, found.deferred_since) == (2, None)


def test_without_tiers_a_failure_is_the_outcome():
    assert next_tier(PAIR, PASSING, (), 4, NOW) is None


def test_dead_letter_keeps_the_bytes_and_says_where_they_were(publisher):
    origin = Origin("p.pairs", 3, 41, 1234, b"key", b"\xff{")
    made = publisher.rejection(Rejection(Defect.UNDECODABLE, "no JSON"), origin)
    assert (made.kind, made.label, made.topic) == (Kind.DEAD_LETTER, "undecodable", "p.pairs.dlq")
    assert (made.key, made.value) == (b"key", b"\xff{")
    headers = dict(made.headers)
    assert headers["pairscore.reason"] == b"undecodable"
    assert headers["pairscore.topic"] == b"p.pairs"
    assert (headers["pairscore.partition"], headers["pairscore.offset"]) == (b"3", b"41")
    assert headers["pairscore.worker"] == b"w1"


def test_dead_letter_that_no_topic_could_hold_is_cut_and_says_so():
    settings = KafkaSettings(max_message_bytes=10_000)
    publisher = Publisher(settings, attempts=4, fingerprint="fp", worker="w")
    origin = Origin("pairs", 0, 0, 0, None, bytes(1_000_000))
    made = publisher.rejection(Rejection(Defect.OVERSIZED, "big"), origin)
    assert made.value is not None
    assert 10_000 <= len(made.value) < 100_000
    assert dict(made.headers)["pairscore.size"] == b"1000000"


A, B = ("retry", 0), ("retry", 1)


def test_parked_rows_come_out_when_due_and_in_order():
    parking: Parking[str] = Parking()
    parking.put(A, 10.0, "a1")
    parking.put(A, 9.0, "a2")  # a clock that went back: still behind the one before it
    parking.put(B, 11.0, "b1")
    assert list(parking.take(9.5)) == []
    assert list(parking.take(10.0)) == ["a1", "a2"]
    assert A not in parking
    assert B in parking
    assert len(parking) == 1
    parking.put(B, 12.0, "b2", 30)
    assert parking.size == 30
    parking.forget(B)
    assert parking.size == 0
    assert list(parking.take(99.0)) == []


class Paused:
    """What a consumer would have paused."""

    def __init__(self):
        self.now: set[tuple[str, int]] = set()

    def pause(self, partitions):
        assert not self.now & set(partitions)
        self.now |= set(partitions)

    def resume(self, partitions):
        self.now -= set(partitions)


def backpressure(paused):
    return Backpressure(
        limit=100,
        limit_bytes=1_000,
        reserve=50,
        urgent="urgent",
        pause=paused.pause,
        resume=paused.resume,
    )


ALL = (("pairs", 0), ("urgent", 0), ("retry", 0))


def test_full_window_pauses_all_but_what_is_urgent_until_there_is_some_room():
    paused = Paused()
    pressure = backpressure(paused)
    steps = [
        (99, set()),
        (100, {("pairs", 0), ("retry", 0)}),
        (76, {("pairs", 0), ("retry", 0)}),
        (74, set()),
        (150, set(ALL)),
        (113, set(ALL)),
        (112, {("pairs", 0), ("retry", 0)}),
        (0, set()),
    ]
    for records, expected in steps:
        pressure.apply(ALL, records=records, size=0, held=lambda _: 0, parked=lambda _: False)
        assert (records, paused.now) == (records, expected)


def test_big_messages_fill_the_window_too():
    paused = Paused()
    backpressure(paused).apply(ALL, records=1, size=1_000, held=lambda _: 0, parked=lambda _: False)
    assert paused.now == {("pairs", 0), ("retry", 0)}


def test_partition_whose_head_is_not_due_is_paused_alone():
    paused = Paused()
    pressure = backpressure(paused)
    pressure.apply(ALL, records=0, size=0, held=lambda _: 0, parked=lambda p: p == ("retry", 0))
    assert paused.now == {("retry", 0)}
    pressure.apply(ALL, records=0, size=0, held=lambda _: 0, parked=lambda _: False)
    assert paused.now == set()


def test_partition_with_a_long_backlog_leaves_room_for_the_others():
    paused = Paused()
    pressure = backpressure(paused)
    four = [("pairs", number) for number in range(4)]
    held = {four[0]: 25, four[1]: 24}

    def apply() -> set[tuple[str, int]]:
        pressure.apply(
            [*four, ("retry", 0)],
            records=sum(held.values()),
            size=0,
            held=lambda p: held.get(p, 0),
            parked=lambda p: p[0] == "retry",
        )
        return {p for p in paused.now if p[0] == "pairs"}

    assert apply() == {four[0]}
    held[four[0]] = 19
    assert apply() == {four[0]}
    held[four[0]] = 18
    assert apply() == set()
    pressure.reached_end(four[2])
    pressure.reached_end(four[3])
    held.update({four[0]: 49, four[1]: 50})
    assert apply() == {four[1]}
    pressure.has_more(four[2])
    assert apply() == {four[0], four[1]}


def test_partition_that_comes_back_is_paused_anew():
    paused = Paused()
    pressure = backpressure(paused)
    pressure.apply(ALL, records=100, size=0, held=lambda _: 0, parked=lambda _: False)
    pressure.forget(("pairs", 0))
    paused.now.discard(("pairs", 0))
    pressure.renew(("pairs", 0))
    pressure.apply(ALL, records=100, size=0, held=lambda _: 0, parked=lambda _: False)
    assert ("pairs", 0) in paused.now


def test_partition_that_was_paused_when_it_went_is_read_when_it_comes_back():
    paused = Paused()
    pressure = backpressure(paused)
    pressure.apply(ALL, records=0, size=0, held=lambda _: 0, parked=lambda p: p == ("retry", 0))
    pressure.forget(("retry", 0))
    pressure.apply(ALL[:2], records=0, size=0, held=lambda _: 0, parked=lambda _: False)
    assert paused.now == {("retry", 0)}  # as a consumer of librdkafka has it
    pressure.renew(("retry", 0))
    pressure.apply(ALL, records=0, size=0, held=lambda _: 0, parked=lambda _: False)
    assert paused.now == set()


@given(st.lists(st.tuples(st.integers(0, 200), st.booleans()), max_size=30))
def test_only_changes_are_asked_for(steps):
    paused = Paused()  # asserts that nothing is paused twice
    pressure = backpressure(paused)
    assigned: tuple[tuple[str, int], ...] = ALL
    for records, gone in steps:
        if gone:
            pressure.forget(ALL[0])
            paused.now.discard(ALL[0])
        elif ALL[0] not in assigned:
            pressure.renew(ALL[0])
        assigned = ALL[1:] if gone else ALL
        pressure.apply(assigned, records=records, size=0, held=lambda _: 0, parked=lambda _: False)
        assert paused.now <= set(assigned)


def test_workers_of_one_host_have_names_of_their_own_and_get_them_back(tmp_path):
    with process_identity("worker", None, tmp_path) as first:
        with process_identity("worker", None, tmp_path) as second:
            assert second == f"{first}-1"
        with process_identity("worker", None, tmp_path) as again:
            assert again == second
    with process_identity("worker", None, tmp_path) as again:
        assert again == first


def test_workers_of_two_users_of_one_host_have_names_of_their_own(tmp_path, monkeypatch):
    names = set()
    for user in (0, 1000, 1001):
        monkeypatch.setattr(os, "getuid", lambda user=user: user)
        with process_identity("worker", None, tmp_path / str(user)) as name:
            names.add(name)
    assert len(names) == 3


def test_chosen_name_is_taken_as_it_is(tmp_path):
    with process_identity("worker", "gpu-7", tmp_path) as name:
        assert name == "gpu-7"
    assert list(tmp_path.iterdir()) == []


def test_log_tells_which_rows_of_which_jobs_were_published(caplog):
    caplog.set_level(logging.DEBUG, logger="worker.meter")
    publisher = Publisher(KafkaSettings(), attempts=1, fingerprint="f", worker="w")
    ledger: Ledger[Publication] = Ledger()
    ledger.assign(("pairs", 0))
    for offset, (job, row) in enumerate((("a", 7), ("b", 1), ("a", 3), ("a", 5))):
        pair = PairMessage(job=job, row=row, url="http://e.org/", caption="c", created_at=NOW)
        record = ledger.observe(("pairs", 0), offset)
        ledger.resolve(record, publisher.outcome(pair, SCORE, NOW))
    Meter(Metrics("worker"), Health()).committed(ledger.plan(), 0.5)
    [said] = caplog.records
    assert vars(said)["jobs"] == {"a": "3-7", "b": "1-1"}
    assert vars(said)["offsets"] == {"pairs/0": 4}


def test_oldest_unread_row_is_told_until_its_partition_is_read_to_the_end():
    metrics = Metrics("worker")
    meter = Meter(metrics, Health())
    ledger: Ledger[Publication] = Ledger()

    def oldest(topic: str) -> float | None:
        meter.show(ledger, 0, 0, 1_000.0)
        name = "pairscore_worker_oldest_unread_seconds"
        return metrics.registry.get_sample_value(name, {"topic": topic})

    assert oldest("pairs") is None
    meter.read(("pairs", 0), 900.0)
    meter.read(("pairs", 1), 700.0)
    meter.read(("retry", 0), 999.0)
    assert (oldest("pairs"), oldest("retry")) == (300.0, 1.0)
    meter.read(("pairs", 1), 950.0)
    assert oldest("pairs") == 100.0
    meter.reached_end(("pairs", 0))
    meter.reached_end(("pairs", 1))
    assert (oldest("pairs"), oldest("retry")) == (0.0, 1.0)


class Silent:
    fingerprint = "silent"

    def __init__(self) -> None:
        self.futures: list[Future[Outcome]] = []
        self.urgent: list[bool] = []

    def submit(self, _: Pair, *, urgent: bool = False) -> Future[Outcome]:
        self.futures.append(Future())
        self.urgent.append(urgent)
        return self.futures[-1]

    def close(self) -> None:
        pass


def test_row_is_overdue_when_it_has_been_in_the_scorer_for_too_long_of_waking_time():
    now = [0.0]
    scorer = Silent()
    scoring = Scoring(scorer, least=2, most=2, patience=10.0, clock=lambda: now[0])

    def let_pass(seconds: int) -> Task | None:
        for _ in range(seconds):
            now[0] += 1.0
            scoring.overdue()
        return scoring.overdue()

    records: list[Record[Publication]] = [Record(("pairs", 0), 1, n, 10) for n in range(2)]
    first, second = (Task(record, PAIR) for record in records)
    scoring.put(first)
    scoring.submit(lambda _: True)
    assert let_pass(5) is None
    now[0] += 3600.0  # the process was stopped
    scoring.put(second)
    scoring.submit(lambda _: True)
    assert let_pass(3) is None
    assert let_pass(3) is first
    scorer.futures[0].set_result(SCORE)
    assert [task for task, _ in scoring.collect()] == [first]
    assert let_pass(3) is None
    assert let_pass(3) is second


def test_what_is_left_in_the_scorer_takes_as_long_as_it_last_did():
    now = [0.0]
    scorer = Silent()
    scoring = Scoring(scorer, least=8, most=8, clock=lambda: now[0])

    def put(rows: int) -> None:
        for offset in range(rows):
            scoring.put(Task(Record(("pairs", 0), 1, offset, 10), PAIR))
        scoring.submit(lambda _: True)

    put(6)
    assert scoring.seconds_left == 0.0  # unknown
    for future in scorer.futures[:4]:
        future.set_result(SCORE)
    assert len(list(scoring.collect())) == 4
    now[0] += 2.0
    put(0)
    assert scoring.seconds_left == pytest.approx(1.0)
    now[0] += 60.0  # in which nothing comes out
    put(2)
    assert scoring.seconds_left == pytest.approx(2.0)


def test_rows_that_are_not_wanted_any_more_take_no_room():
    scorer = Silent()
    scoring = Scoring(scorer, least=2, most=2)
    tasks = [Task(Record(("pairs", 0), 1, offset, 10), PAIR) for offset in range(10)]
    for task in tasks:
        scoring.put(task)
    asked: list[Task] = []

    def is_wanted(task: Task) -> bool:
        asked.append(task)
        return task.record.offset >= 7

    scoring.submit(is_wanted)
    assert asked == tasks[:9]
    assert (len(scorer.futures), scoring.in_flight, scoring.waiting) == (2, 2, 1)


def test_urgent_rows_are_handed_over_however_many_others_are_in_the_scorer():
    scorer = Silent()
    scoring = Scoring(scorer, least=2, most=2)
    tasks = [
        Task(Record(("any", 0), 1, number, 10), PAIR, urgent)
        for number, urgent in enumerate([False, False, False, True, True, True])
    ]
    for task in tasks[:3]:
        scoring.put(task)
    scoring.submit(lambda _: True)
    assert (scorer.urgent, scoring.urgent_in_flight) == ([False, False], 0)
    for task in tasks[3:]:
        scoring.put(task)
    scoring.submit(lambda _: True)
    assert scorer.urgent == [False, False, True, True], "as many as there may be of the others"
    assert (scoring.in_flight, scoring.urgent_in_flight, scoring.waiting) == (4, 2, 2)
    scorer.futures[2].set_result(SCORE)
    assert [task for task, _ in scoring.collect()] == [tasks[3]]
    scoring.submit(lambda _: True)
    assert scorer.urgent[4:] == [True], "an urgent row makes no room for others"
    scorer.futures[0].set_result(SCORE)
    assert [task for task, _ in scoring.collect()] == [tasks[0]]
    scoring.submit(lambda _: True)
    assert scorer.urgent[5:] == [False]
    assert (scoring.in_flight, scoring.urgent_in_flight, scoring.waiting) == (4, 2, 0)


def test_urgent_rows_of_partitions_that_moved_are_dropped():
    scorer = Silent()
    scoring = Scoring(scorer, least=2, most=2)
    for urgent in (False, True):
        scoring.put(Task(Record(("any", 0), 1, 0, 10), PAIR, urgent))
    scoring.submit(lambda _: False)
    assert (scoring.in_flight, scoring.urgent_in_flight, scoring.waiting) == (0, 0, 0)
