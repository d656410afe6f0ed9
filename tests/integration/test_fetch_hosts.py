"""How often hosts are asked, and what becomes of rows whose host is not, as servers see it."""

import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import pairwise
from typing import Any

import pytest

from deploy import local
from deploy.local.ports import free_ports
from pairscore.fetch import Fetched
from pairscore.fetch.stats import Hold
from pairscore.pair import Failure, Reason
from pairscore.politeness.budgets import LocalBudgets
from pairscore.politeness.hosts_in_redis import HostsInRedis
from pairscore.politeness.shared import SharedBudgets
from pairscore.settings import FetchSettings
from tests.fetching import Fetching, fetched, results, wait_until
from tests.hostile_server import Exchange, HostileServer, behind, reply

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="all of 127.0.0.0/8 is loopback on Linux only"
)
# The address of a host that no other test asks, for those that share a Redis.
HOST = f"127.{uuid.uuid4().int % 200 + 20}.{uuid.uuid4().int % 256}.7"


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer("127.0.0.2") as server:
        yield server


def slowly(seconds: float) -> Any:
    def answer(exchange: Exchange) -> None:
        threading.Event().wait(seconds)
        exchange.reply(200, b"x")

    return answer


def test_a_host_is_asked_at_its_rate_while_others_are_at_any(server):
    with HostileServer("127.0.0.3") as other, Fetching(host_limits="127.0.0.2=20/8") as fetching:
        slow = [fetching.start(server.on(f"/{n}", reply(404))) for n in range(30)]
        fast = [fetching.start(other.on(f"/{n}", reply(404))) for n in range(100)]
        results(fast)
        assert not all(each.done() for each in slow)
        results(slow)
    times = [request.at for request in server.requests]
    # A burst of five, and then one each 50 ms.
    # The first ones come late, on connections that are new.
    assert times[-1] - times[0] >= 25 * 0.05 - 0.1
    assert times[-1] - times[0] < 25 * 0.05 + 1
    assert len(other.requests) == 100
    assert other.requests[-1].at < times[-1]


def test_a_host_that_asks_to_be_left_alone_is_and_its_rows_wait(server):
    server.on("/busy", reply(429, Retry_After="1"), reply(404))
    with HostileServer("127.0.0.3") as other, Fetching(per_host=1) as fetching:
        first = fetching.start(server.url("/busy"))
        rest = [fetching.start(server.on(f"/{n}", reply(404))) for n in range(5)]
        wait_until(lambda: fetching.fetcher.stats.closings == 1)
        assert fetching.failure(other.on("/a", reply(404))).error == "http_error: 404"
        assert server.hits() == 1
        results([first, *rest])
    closed, *after = [request.at for request in server.requests]
    assert after[0] - closed >= 1
    assert len(after) == 6


def test_rows_of_a_host_that_asks_for_too_long_are_let_go_unasked(server):
    server.on("/gone", reply(503, Retry_After="3600"))
    with Fetching(per_host=1) as fetching:
        first = fetching.start(server.url("/gone"))
        rest = [fetching.start(server.on(f"/{n}", reply(200, b"x"))) for n in range(3)]
        ended = results([first, *rest])
        later = fetching.get(server.url("/1"))
        assert fetching.fetcher.stats.let_go[Hold.CLOSED] == 4
    assert server.hits() == 1
    for failure in (*ended[1:], later):
        assert isinstance(failure, Failure)
        assert (failure.reason, failure.attempts) == (Reason.TIMEOUT, 0)
        assert failure.deferred
        assert failure.retryable
        assert failure.retry_after == pytest.approx(3600, abs=20)
        assert failure.detail.startswith("127.0.0.2 asks to be left alone for 3,")


def test_a_host_that_does_not_answer_is_left_alone_and_its_rows_are_failures_that_may_pass():
    [port] = free_ports(1)
    with Fetching(attempts=1, timeout=2) as fetching:
        futures = [fetching.start(f"http://127.0.0.4:{port}/{n}") for n in range(500)]
        ended = [result for result in results(futures) if isinstance(result, Failure)]
        assert fetching.fetcher.stats.let_go[Hold.UNREACHABLE] > 400
    assert len(ended) == 500
    assert {(failure.reason, failure.retryable) for failure in ended} == {
        (Reason.CONNECT_ERROR, True)
    }
    let_go = [failure for failure in ended if failure.attempts == 0]
    assert let_go[0].detail == "127.0.0.4 has not answered for a while; it is asked again in 10 s"
    assert not let_go[0].deferred


def test_a_host_that_is_back_is_asked_again():
    [port] = free_ports(1)
    with Fetching(attempts=1, timeout=11) as fetching:
        futures = [fetching.start(f"http://127.0.0.5:{port}/{n}") for n in range(50)]
        wait_until(lambda: sum(each.done() for each in futures) >= 5)
        listener = HostileServer("127.0.0.5", port=port)
        try:
            wait_until(lambda: all(each.done() for each in futures), within=20)
        finally:
            listener.close()
        ended = [future.result() for future in futures]
    refused = [each for each in ended if isinstance(each, Failure) and each.attempts == 1]
    # Eight in flight, and those that began while there had been fewer than five failures.
    assert 5 <= sum(each.reason is Reason.CONNECT_ERROR for each in refused) <= 8 + 4
    assert listener.hits() >= 50 - 12


def test_many_rows_of_a_slow_host_hold_up_no_others(server):
    others = [HostileServer(f"127.0.1.{n}") for n in range(1, 9)]
    try:
        fast = [other.on(f"/{n}", slowly(0.01)) for n in range(50) for other in others]
        slow = [server.on(f"/{n}", slowly(0.5)) for n in range(400)]

        def seconds_of(urls: list[str]) -> float:
            with Fetching(attempts=1) as fetching:
                started = time.monotonic()
                futures: dict[str, Future[Any]] = {}
                for url in urls:
                    futures[url] = fetching.start(url)
                    fetching.consume(futures[url])
                fetched([futures[url] for url in fast])
                return time.monotonic() - started

        both = [url for pair in zip(slow, fast, strict=True) for url in pair]
        # By turns, so that what else the machine is at is the same for both.
        times = [(seconds_of(fast), seconds_of(both)) for _ in range(3)]
        alone, together = map(min, zip(*times, strict=True))
    finally:
        for other in others:
            other.close()
    assert together <= 1.2 * alone + 0.2


def shared(url: str, settings: FetchSettings) -> SharedBudgets:
    crashes: list[BaseException] = []
    hosts = HostsInRedis(
        url, settings.limits, worker=uuid.uuid4().hex, lease=settings.lease, seconds=5
    )
    local_ = LocalBudgets(settings.limits, lease=settings.lease)
    return SharedBudgets(hosts, local_, seconds=20, on_crash=crashes.append)


class Fleet:
    """Fetchers that share a Redis."""

    def __init__(self, url: str, size: int, **settings: Any) -> None:
        self.fetching = [
            Fetching(budgets=shared(url, FetchSettings(**settings)), **settings)
            for _ in range(size)
        ]

    def __enter__(self) -> list[Fetching]:
        return self.fetching

    def __exit__(self, *_: object) -> None:
        for each in self.fetching:
            each.fetcher.close()
            assert each.crashes == []


def test_four_workers_ask_a_host_as_one(redis_service: local.Redis):
    limits = f"{HOST}=20/4"
    with (
        HostileServer(HOST) as server,
        Fleet(redis_service.url, 4, host_limits=limits, attempts=1) as fleet,
    ):
        futures = [
            each.start(server.on(f"/{worker}/{n}", slowly(0.05)))
            for worker, each in enumerate(fleet)
            for n in range(30)
        ]
        for each in fleet:
            each.consume(*futures)
        assert all(isinstance(result, Fetched) for result in results(futures, within=30))
    times = sorted(request.at for request in server.requests)
    assert len(times) == 120
    assert server.peak <= 4
    # Any second of it has at most 20, a burst of five, and those that were a little late.
    assert max(sum(t <= at <= t + 1 for at in times) for t in times) <= 20 + 5 + 4
    assert (len(times) - 5) / (times[-1] - times[0]) <= 1.05 * 20
    assert (len(times) - 5) / (times[-1] - times[0]) >= 0.85 * 20
    assert all(later >= earlier for earlier, later in pairwise(times))


def test_a_host_closed_for_one_worker_is_closed_for_the_others(redis_service: local.Redis):
    host = HOST[:-1] + "8"
    gate = threading.Event()
    with HostileServer(host) as server, Fleet(redis_service.url, 2) as (one, other):
        server.on("/busy", reply(429, Retry_After="2"), reply(404))
        begun = server.on("/begun", behind(gate, reply(404)))
        waiting = other.start(begun)  # so that it has asked before
        wait_until(lambda: server.hits() == 1)
        busy = one.start(server.url("/busy"))
        wait_until(lambda: one.fetcher.stats.closings == 1)
        wait_until(lambda: server.hits() == 2)
        rest = [other.start(server.on(f"/{n}", reply(404))) for n in range(3)]
        gate.set()
        results([waiting, busy, *rest])
    closed = next(request.at for request in server.requests if request.target == "/busy")
    after = [request.at for request in server.requests if request.at > closed]
    assert len(after) == 4
    assert min(after) - closed >= 1.9
