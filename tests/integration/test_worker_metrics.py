"""What a worker tells of itself on its port is what it did."""

import time
from collections.abc import Callable, Mapping
from functools import partial

import pytest
import requests

from deploy.local.ports import free_ports
from pairscore.pair import Failure, Outcome, Pair, Reason
from tests.fetching import wait_until
from tests.working import PASSING, SCORE, WITHIN, Fleet, Told, said_by_worker, working

GONE = Failure(Reason.HTTP_ERROR, "404", retryable=False)


@pytest.fixture
def fleet(kafka, topic_prefix):
    return Fleet(kafka.bootstrap_servers, topic_prefix, retry_delays=(1,))


def ready(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=WITHIN).ok
    except requests.ConnectionError:
        return False


def tells(port: int, told: Callable[[Mapping[str, float]], bool]) -> Callable[[], bool]:
    return lambda: told(said_by_worker(port))


def kept(scorer: Told, rows: int) -> bool:
    return len(scorer.kept) == rows


def test_counters_are_what_was_published(fleet):
    answers = {"0.jpg": PASSING, "1.jpg": GONE, "2.jpg": GONE}
    [port] = free_ports(1)
    scorer = Told(lambda pair: answers.get(pair.url.rpartition("/")[2], SCORE))
    with working(fleet, scorer, telemetry={"port": port}):
        wait_until(lambda: ready(port), within=WITHIN)
        fleet.publish(range(30))
        fleet.publish_bytes(b"no message")
        wait_until(lambda: fleet.rows() == list(range(30)), within=WITHIN)
        wait_until(tells(port, lambda now: now["unconfirmed"] == 0), within=WITHIN)
        found = said_by_worker(port)
    tier = fleet.topics.retries[0].topic
    expected = {
        "outcomes_total/": 27,
        f"outcomes_total/{Reason.HTTP_ERROR.value}": 3,
        "retries_total/1": 3,
        f"records_total/{fleet.topics.pairs}": 31,
        f"records_total/{tier}": 3,
        "row_seconds_count": 30,
        "assigned_partitions": 9,
        "paused_partitions": 0,
        "in_flight": 0,
        "unconfirmed_bytes": 0,
        "commits_total/committed": found["commit_seconds_count"],
        f"oldest_unread_seconds/{fleet.topics.pairs}": 0,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert sum(v for name, v in found.items() if name.startswith("dead_letters_total/")) == 1
    assert found["commits_total/committed"] >= 2
    assert found["row_seconds_sum"] >= 3, "one was tried again three times, after a second each"


def test_what_alerts_are_made_of_is_there_before_anything_happens(fleet):
    [port] = free_ports(1)
    with working(fleet, Told(), telemetry={"port": port}):
        wait_until(lambda: ready(port), within=WITHIN)
        found = said_by_worker(port)
    for topic in fleet.topics.to_score:
        assert found[f"lost_places_total/{topic}"] == found[f"records_total/{topic}"] == 0


def test_full_window_pauses_every_partition_until_there_is_room(fleet):
    [port] = free_ports(1)
    scorer = Told(lambda _: None)
    fleet.publish(range(600))
    worker = {"id": "w", "in_flight": 1_000}
    with working(fleet, scorer, window=100, worker=worker, telemetry={"port": port}):
        wait_until(lambda: len(scorer.seen) >= 100 and ready(port), within=WITHIN)
        wait_until(tells(port, lambda now: now["paused_partitions"] >= 3), within=WITHIN)
        found = said_by_worker(port)
        assert 100 <= found["unconfirmed"] <= 101
        assert found["in_flight"] == found["unconfirmed"] == len(scorer.seen)
        scorer.answer = lambda _: SCORE
        for future in scorer.kept:
            future.set_result(SCORE)
        wait_until(lambda: fleet.rows() == list(range(600)), within=WITHIN)
        wait_until(tells(port, lambda now: now["paused_partitions"] == 0), within=WITHIN)


def test_window_is_full_at_its_bytes(fleet):
    size, most = 20_000, 1_000_000
    [port] = free_ports(1)
    scorer = Told(lambda _: None)
    fleet.publish(range(300), url="http://e.org/0.jpg", caption="a" * size)
    worker = {"id": "w", "window_bytes": most}
    with working(fleet, scorer, telemetry={"port": port}, worker=worker):
        wait_until(lambda: ready(port), within=WITHIN)
        wait_until(tells(port, lambda now: now["paused_partitions"] > 0), within=WITHIN)
        held = said_by_worker(port)["unconfirmed_bytes"]
        assert most <= held < most + 2 * size
        scorer.answer = lambda _: SCORE
        for future in scorer.kept:
            future.set_result(SCORE)
        wait_until(lambda: fleet.rows() == list(range(300)), within=WITHIN)


def test_what_a_worker_can_do_is_measured_while_it_has_enough_to_do(fleet):
    """Not while rows come one by one, which it would take for all that it can do."""
    [port] = free_ports(1)
    passed: set[str] = set()

    def answer(pair: Pair) -> Outcome | None:
        # Every second row fails at first, which brings nobody nearer to the end.
        if int(pair.url.split("/")[-1].removesuffix(".jpg")) % 2 and pair.url not in passed:
            passed.add(pair.url)
            return PASSING
        return None

    scorer, rate = Told(answer), 200.0
    own = {"id": "w", "in_flight": 16}
    with working(fleet, scorer, telemetry={"port": port}, worker=own, fetch={"concurrency": 1}):
        wait_until(lambda: ready(port), within=WITHIN)
        for row in range(5):
            fleet.publish(range(row, row + 1))
            wait_until(partial(kept, scorer, row + 1), within=WITHIN)
            scorer.kept[row].set_result(SCORE)
        wait_until(lambda: fleet.rows() == list(range(5)), within=WITHIN)
        assert said_by_worker(port)["busy_rows_total"] == 0
        fleet.publish(range(5, 1_005))
        began, done = time.monotonic(), 5
        while done < 1_005:
            time.sleep(0.02)
            due = 5 + int((time.monotonic() - began) * rate)
            for future in scorer.kept[done:due]:
                future.set_result(SCORE)
                done += 1
        rate = 1_000 / (time.monotonic() - began)  # what a busy machine lets it have
        wait_until(tells(port, lambda now: now["unconfirmed"] == 0), within=WITHIN)
        found = said_by_worker(port)
    measured = found["busy_rows_total"] / found["busy_seconds_total"]
    assert found["busy_rows_total"] > 800
    assert measured == pytest.approx(rate, rel=0.25)
