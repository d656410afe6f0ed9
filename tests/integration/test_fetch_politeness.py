"""Connections, limits, turns and backpressure, as servers see them."""

import sys
import threading

import pytest

from pairscore import __version__
from pairscore.fetch.stats import Hold
from pairscore.pair import Failure, Reason
from tests.fetching import DEADLINE, Fetching, fetched, results, wait_until
from tests.hostile_server import HostileServer, behind, redirect, reply

# Long enough for what must not happen to happen, if it were going to.
A_WHILE = 0.3
several_hosts = pytest.mark.skipif(
    sys.platform != "linux", reason="all of 127.0.0.0/8 is loopback on Linux only"
)


@pytest.fixture
def server():
    with HostileServer() as server:
        yield server


def happens(condition):
    never = threading.Event()
    for _ in range(30):
        if condition():
            return True
        never.wait(A_WHILE / 30)
    return False


def test_the_user_agent_says_who_asks_and_nothing_else_is_told(server):
    with Fetching() as fetching:
        fetching.body(server.on("/a", reply(200, b"x")))
    headers = server.requests[0].headers
    assert headers.pop("user-agent") == f"pairscore/{__version__}"
    assert headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept": "image/*, */*;q=0.5",
        "accept-encoding": "identity",
    }


def test_the_user_agent_may_be_set(server):
    with Fetching(user_agent="example-bot/2 (+mailto:ops@example.org)") as fetching:
        fetching.body(server.on("/a", reply(200, b"x")))
    assert server.requests[0].headers["user-agent"] == "example-bot/2 (+mailto:ops@example.org)"


def test_cookies_are_not_kept(server):
    url = server.on("/a", reply(200, b"x", Set_Cookie="id=1; Path=/"))
    with Fetching() as fetching:
        fetching.body(url)
        fetching.body(url)
    assert all("cookie" not in request.headers for request in server.requests)


def test_connections_are_kept_and_used_again(server):
    urls = [server.on(f"/{n}", reply(200, b"x" * n)) for n in range(100)]
    with Fetching(per_host=4) as fetching:
        futures = [fetching.start(url) for url in urls]
        fetching.consume(*futures)
        assert [len(result.body) for result in fetched(futures)] == list(range(100))
    assert server.connections <= 4


def test_small_error_pages_do_not_cost_the_connection(server):
    urls = [server.on(f"/{n}", reply(404, b"<h1>Not here</h1>" * 100)) for n in range(50)]
    with Fetching(per_host=2) as fetching:
        fetching.get_all(urls)
    assert server.connections <= 2


def test_a_host_is_not_asked_for_more_than_its_limit_at_once(server):
    gate = server.gate()
    urls = [server.on(f"/{n}", behind(gate, reply(200, b"x"))) for n in range(12)]
    with Fetching(per_host=3, concurrency=64) as fetching:
        futures = [fetching.start(url) for url in urls]
        wait_until(lambda: server.hits() == 3)
        assert not happens(lambda: server.hits() > 3)
        gate.set()
        results(futures)
    assert server.peak == 3
    assert server.connections <= 3


@several_hosts
def test_a_burst_of_redirects_to_one_host_keeps_to_its_limit(server):
    gate = server.gate()
    with Fetching(per_host=2, concurrency=64) as fetching:
        origins = [HostileServer(f"127.0.0.{n}") for n in range(2, 7)]
        try:
            futures = []
            for number, origin in enumerate(origins):
                server.on(f"/{number}", behind(gate, reply(200, b"x")))
                for path in ("/a", "/b"):
                    origin.on(path, redirect(server.url(f"/{number}")))
                    futures.append(fetching.start(origin.url(path)))
            wait_until(lambda: all(origin.hits() == 2 for origin in origins))
            wait_until(lambda: server.hits() == 2)
            assert not happens(lambda: server.hits() > 2)
            gate.set()
            assert [result.body for result in fetched(futures)] == [b"x"] * 10
        finally:
            for origin in origins:
                origin.close()
    assert server.peak == 2


@several_hosts
def test_waiting_for_a_connection_after_a_redirect_is_not_silence(server):
    def take_two_seconds(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
        exchange.drip(b"x", every=0.1, times=20)

    server.on("/long", take_two_seconds)
    server.on("/next", reply(200, b"next"))
    with (
        HostileServer("127.0.0.2") as one_origin,
        HostileServer("127.0.0.3") as other_origin,
        Fetching(
            per_host=1, stall_timeout=1, connect_timeout=1, timeout=DEADLINE, attempts=1
        ) as fetching,
    ):
        first = fetching.start(one_origin.on("/a", redirect(server.url("/long"))))
        wait_until(lambda: server.hits("/long") == 1)
        second = fetching.start(other_origin.on("/b", redirect(server.url("/next"))))
        assert [result.body for result in fetched([first, second])] == [b"x" * 20, b"next"]


@several_hosts
def test_a_slow_host_does_not_hold_up_the_others(server):
    gate = server.gate()
    slow = [server.on(f"/{n}", behind(gate, reply(200, b"slow"))) for n in range(50)]
    with HostileServer("127.0.0.2") as quick, Fetching(per_host=2, concurrency=4) as fetching:
        futures = [fetching.start(url) for url in slow]
        urls = [quick.on(f"/{n}", reply(404)) for n in range(20)]
        assert len(fetching.get_all(urls)) == 20
        assert server.hits() <= 2
        gate.set()
        fetching.consume(*futures)
        assert len(results(futures)) == 50
    assert server.peak == 2


@several_hosts
def test_what_waits_too_long_for_a_slow_host_is_deferred_and_nothing_else(server):
    gate = server.gate()
    slow = [server.on(f"/slow{n}", behind(gate, reply(200, b"x"))) for n in range(4)]
    with HostileServer("127.0.0.2") as other, Fetching(per_host=2, queue_timeout=1.0) as fetching:
        futures = [fetching.start(url) for url in slow]
        fetching.consume(*futures)
        deferred = [each for each in results(futures[2:]) if isinstance(each, Failure)]
        assert len(deferred) == 2
        assert {(f.reason, f.deferred, f.retryable, f.attempts) for f in deferred} == {
            (Reason.TIMEOUT, True, True, 0)
        }
        assert fetching.body(other.on("/fast", reply(200, b"fast"))) == b"fast"
        gate.set()
        assert [each.body for each in fetched(futures[:2])] == [b"x"] * 2
    assert server.hits() == 2


def test_what_would_wait_too_long_for_a_slow_host_is_deferred_at_once(server):
    gate = server.gate()
    slow = [server.on(f"/slow{n}", behind(gate, reply(200, b"x"))) for n in range(20)]
    # It is known of a host how fast it is after five seconds.
    with Fetching(per_host=1, queue_timeout=30.0) as fetching:
        fetching.consume(*(fetching.start(url) for url in slow))
        fetcher = fetching.fetcher
        wait_until(lambda: fetcher.stats.held == 19)
        assert not happens(lambda: fetcher.stats.let_go[Hold.SLOW] > 0)
        late = None
        while late is None or not late.done():
            late = fetching.start(server.on("/late", reply(200, b"x")))
            happens(late.done)
        failure = late.result()
        gate.set()
    assert isinstance(failure, Failure)
    assert failure.deferred
    assert failure.retry_after is not None
    assert failure.retry_after > 0
    assert server.hits("/late") == 0


def test_waiting_for_a_slot_is_no_reason_to_defer(server):
    urls = [server.on(f"/{n}", reply(200, b"x")) for n in range(3)]
    with Fetching(concurrency=1, per_host=1, queue_timeout=0.2) as fetching:
        futures = [fetching.start(url) for url in urls]
        assert results(futures[:1])
        assert not happens(lambda: any(each.done() for each in futures[1:]))
        fetching.consume(*futures)
        assert [each.body for each in fetched(futures)] == [b"x"] * 3


@several_hosts
def test_hosts_take_turns_when_slots_are_scarce(server):
    gate = server.gate()
    with HostileServer("127.0.0.2") as small, Fetching(concurrency=1) as fetching:
        first = fetching.start(server.on("/first", behind(gate, reply(404))))
        many = [fetching.start(server.on(f"/{n}", reply(404))) for n in range(30)]
        one = fetching.start(small.on("/a", reply(404)))
        ahead: list[object] = []
        one.add_done_callback(lambda _: ahead.extend(f for f in many if f.done()))
        gate.set()
        results([first, one, *many])
    assert len(ahead) <= 1


def test_bodies_that_are_not_consumed_keep_their_slots(server):
    urls = [server.on(f"/{n}", reply(200, b"x")) for n in range(7)]
    with Fetching(concurrency=3) as fetching:
        futures = [fetching.start(url) for url in urls]
        taken = fetched(futures[:3])
        assert not happens(lambda: server.hits() > 3)
        fetching.fetcher.consumed(taken[0])
        results(futures[3:4])
        assert not happens(lambda: server.hits() > 4)
        fetching.consume(*futures)
        results(futures)
    assert server.hits() == 7


def test_failures_keep_no_slots(server):
    urls = [server.on(f"/{n}", reply(404)) for n in range(20)]
    with Fetching(concurrency=2) as fetching:
        assert len(results([fetching.start(url) for url in urls])) == 20


def test_nothing_is_asked_for_while_too_many_bytes_wait(server):
    urls = [server.on(f"/{n}", reply(200, b"x" * 1000)) for n in range(6)]
    with Fetching(per_host=1, buffer_bytes=2500) as fetching:
        futures = [fetching.start(url) for url in urls]
        taken = fetched(futures[:3])
        assert not happens(lambda: server.hits() > 3)
        fetching.fetcher.consumed(taken[0])
        taken += fetched(futures[3:4])
        assert not happens(lambda: server.hits() > 4)
        for each in taken[1:]:
            fetching.fetcher.consumed(each)
        results(futures)


def test_an_urgent_request_waits_neither_for_slots_nor_for_bytes_wherever_it_is_led(server):
    urls = [server.on(f"/{n}", reply(200, b"x" * 1000)) for n in range(6)]
    again = server.on("/again", reply(503), reply(200, b"urgent"))
    with Fetching(concurrency=3, buffer_bytes=2500) as fetching:
        taken = fetched([fetching.start(url) for url in urls[:3]])  # of either there is no more
        waiting = [fetching.start(url) for url in urls[3:]]
        urgent = fetching.start(server.on("/moved", redirect(again)), urgent=True)
        assert [each.body for each in fetched([urgent])] == [b"urgent"]
        assert server.hits() == 7
        fetching.consume(*waiting, urgent)
        for each in taken:
            fetching.fetcher.consumed(each)
        results(waiting)


def test_urgent_requests_have_a_few_slots_of_their_own_and_go_first(server):
    gate = server.gate()
    with Fetching(concurrency=2, per_host=20) as fetching:
        first = [fetching.start(server.on(f"/{n}", behind(gate, reply(404)))) for n in range(2)]
        wait_until(lambda: server.hits() == 2)
        bulk = [fetching.start(server.on(f"/bulk{n}", reply(404))) for n in range(20)]
        urgent = [
            fetching.start(server.on(f"/urgent{n}", behind(gate, reply(404))), urgent=True)
            for n in range(6)
        ]
        wait_until(lambda: server.hits() == 6)
        assert not happens(lambda: server.hits() > 6)
        ahead: list[object] = []
        for each in urgent:
            each.add_done_callback(lambda _: ahead.extend(f for f in bulk if f.done()))
        gate.set()
        results([*first, *urgent, *bulk])
    assert len(set(ahead)) <= 2, "bulk may begin when the last urgent ones have"


def test_an_urgent_request_waits_for_a_host_that_is_asked_as_often_as_it_may_be(server):
    gate = server.gate()
    with Fetching(per_host=1) as fetching:
        first = fetching.start(server.on("/first", behind(gate, reply(404))))
        wait_until(lambda: server.hits() == 1)
        bulk = fetching.start(server.on("/bulk", reply(404)))
        urgent = fetching.start(server.on("/urgent", reply(404)), urgent=True)
        assert not happens(lambda: server.hits() > 1)
        gate.set()
        results([first, urgent, bulk])
    assert [request.target for request in server.requests] == ["/first", "/urgent", "/bulk"]


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_proxies_of_the_environment_are_ignored(server, monkeypatch, name):
    with HostileServer() as proxy:
        for each in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(each, raising=False)
        monkeypatch.setenv(name, proxy.url(""))
        with Fetching() as fetching:
            assert fetching.body(server.on("/a", reply(200, b"direct"))) == b"direct"
        assert proxy.connections == 0


def test_a_configured_proxy_is_asked_even_where_the_environment_says_no(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with HostileServer() as proxy, Fetching(proxy=proxy.url("")) as fetching:
        proxy.on("http://somewhere.example/cat.jpg", reply(200, b"by proxy"))
        assert fetching.body("http://somewhere.example/cat.jpg") == b"by proxy"
    assert [request.target for request in proxy.requests] == ["http://somewhere.example/cat.jpg"]


def test_the_limit_per_host_is_not_the_proxys():
    with HostileServer() as proxy, Fetching(proxy=proxy.url(""), per_host=1) as fetching:
        gate = proxy.gate()
        urls = [f"http://host{n}.example/" for n in range(6)]
        for url in urls:
            proxy.on(url, behind(gate, reply(200, b"x")))
        futures = [fetching.start(url) for url in urls]
        wait_until(lambda: proxy.hits() == 6)
        gate.set()
        results(futures)
    assert proxy.peak == 6


def test_a_proxy_that_refuses_to_connect_is_a_broken_connection():
    with HostileServer() as proxy, Fetching(proxy=proxy.url(""), attempts=2) as fetching:
        proxy.on("somewhere.example:443", reply(403, b"not through me"))
        failure = fetching.failure("https://somewhere.example/cat.jpg")
    assert (failure.reason, failure.attempts) == (Reason.CONNECT_ERROR, 2)
    assert "403" in failure.detail


def test_a_proxy_whose_name_does_not_resolve_is_tried_again():
    with Fetching(proxy="http://nowhere.invalid:3128", attempts=2) as fetching:
        failure = fetching.failure("http://somewhere.example/cat.jpg")
    assert (failure.reason, failure.attempts) == (Reason.DNS_ERROR, 2)
