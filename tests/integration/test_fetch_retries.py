"""What is asked again, how often and when."""

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from pairscore.fetch import Fetched
from pairscore.pair import Reason
from tests.fetching import Fetching, results
from tests.hostile_server import HostileServer, behind, raw, redirect, reply


@pytest.fixture
def server():
    with HostileServer() as server:
        yield server


@pytest.fixture(scope="module")
def fetching():
    with Fetching(attempts=4) as fetching:
        yield fetching


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_status_is_asked_again(server, fetching, status):
    url = server.on("/a", reply(status), reply(status), reply(200, b"at last"))
    assert fetching.get(url) == Fetched(b"at last", attempts=3)
    assert server.hits() == 3


def test_a_status_that_does_not_pass_is_the_outcome_when_the_attempts_are_used_up(server, fetching):
    failure = fetching.failure(server.on("/a", reply(500)))
    assert failure.error == "http_error: 500"
    assert (failure.attempts, failure.retryable, server.hits()) == (4, True, 4)


def test_one_attempt_is_one_request(server):
    with Fetching(attempts=1) as fetching:
        assert fetching.failure(server.on("/a", reply(503))).attempts == 1
    assert server.hits() == 1


def test_the_last_failure_is_the_outcome(server, fetching):
    url = server.on("/a", raw(b"SSH-2.0-x\r\n"), reply(503), reply(404))
    failure = fetching.failure(url)
    assert (failure.error, failure.attempts) == ("http_error: 404", 3)


def test_a_retry_begins_at_the_first_url(server, fetching):
    url = server.on("/a", redirect("/b"), redirect("/c"))
    server.on("/b", reply(503))
    server.on("/c", reply(200, b"moved on"))
    assert fetching.get(url) == Fetched(b"moved on", attempts=2)


def test_retry_after_seconds_are_waited_out(server, fetching):
    url = server.on("/a", reply(429, Retry_After="1"), reply(200, b"x"))
    assert fetching.get(url) == Fetched(b"x", attempts=2)
    first, second = server.requests
    assert second.at - first.at >= 1.0


def test_a_retry_after_date_is_waited_for(server, fetching):
    until = []

    def later(exchange):
        date = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
        until.append(date)
        exchange.reply(503, Retry_After=format_datetime(date, usegmt=True))

    url = server.on("/a", later, reply(200, b"x"))
    assert fetching.get(url) == Fetched(b"x", attempts=2)
    first, second = server.requests
    # libcurl counts whole seconds.
    assert second.at - first.at >= 0.99
    assert datetime.now(UTC) >= until[0] - timedelta(seconds=1)


@pytest.mark.parametrize("value", ["0", "-3", "soon", "Fri, 31 Dec 1999 23:59:59 GMT"])
def test_a_retry_after_that_asks_for_nothing_is_the_usual_backoff(server, fetching, value):
    url = server.on("/a", reply(503, Retry_After=value), reply(200, b"x"))
    assert fetching.get(url) == Fetched(b"x", attempts=2)


def test_a_server_that_asks_for_more_than_the_cap_is_left_alone(server):
    with Fetching(retry_after_cap=60) as fetching:
        failure = fetching.failure(server.on("/a", reply(429, Retry_After="61")))
    assert (failure.error, failure.attempts) == ("http_error: 429", 1)
    assert failure.retry_after == 61
    assert server.hits() == 1


def test_a_request_that_waits_for_its_next_attempt_holds_no_slot(server):
    order, ended = [], threading.Semaphore(0)

    def note(name):
        def done(_future):
            order.append(name)
            ended.release()

        return done

    with Fetching(concurrency=1, per_host=1) as fetching:
        late = fetching.start(server.on("/a", reply(503, Retry_After="1"), reply(200, b"a")))
        late.add_done_callback(note("late"))
        for number in range(3):
            soon = fetching.start(server.on(f"/{number}", reply(404)))
            soon.add_done_callback(note(number))
        for _ in range(4):
            assert ended.acquire(timeout=20)
    assert order == [0, 1, 2, "late"]


def test_backoff_grows_with_each_attempt(server):
    with Fetching(backoff_base=0.2, attempts=3, jitter=1.0) as fetching:
        fetching.failure(server.on("/a", reply(503)))
    first, second, third = (request.at for request in server.requests)
    assert second - first >= 0.2
    assert third - second >= 0.4


def test_a_timeout_is_tried_again(server):
    with Fetching(timeout=0.5, attempts=2) as fetching:
        url = server.on("/a", lambda exchange: exchange.hold(), reply(200, b"second"))
        assert fetching.get(url) == Fetched(b"second", attempts=2)


def test_each_attempt_has_a_deadline_of_its_own(server):
    with Fetching(timeout=0.5, attempts=3) as fetching:
        begun = time.monotonic()
        failure = fetching.failure(server.on("/a", lambda exchange: exchange.hold()))
    assert (failure.reason, failure.attempts) == (Reason.TIMEOUT, 3)
    # libcurl rounds each deadline to a millisecond of its own clock.
    assert time.monotonic() - begun >= 1.45


def test_the_redirects_of_an_attempt_share_its_deadline(server):
    for number in range(5):
        gate = server.gate()
        server.on(f"/{number}", behind(gate, redirect(f"/{number + 1}"), seconds=0.3))
    server.on("/5", reply(200, b"late"))
    with Fetching(timeout=1, attempts=1) as fetching:
        failure = fetching.failure(server.url("/0"))
    assert failure.reason is Reason.TIMEOUT
    assert failure.detail.startswith("not done within 1 s")


def test_rows_that_fail_do_not_hold_up_rows_that_do_not(server):
    with Fetching(attempts=2) as fetching:
        gone = [fetching.start(server.on(f"/gone{n}", reply(500))) for n in range(20)]
        fine = [fetching.start(server.on(f"/fine{n}", reply(200, b"x"))) for n in range(20)]
        ended = results(gone + fine)
    assert [result.attempts for result in ended] == [2] * 20 + [1] * 20
