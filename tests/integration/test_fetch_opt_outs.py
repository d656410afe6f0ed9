"""robots.txt and X-Robots-Tag, heeded or not, as servers see it."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pairscore.fetch import Fetched, NotModified, Validators
from pairscore.pair import Failure, Reason
from tests.fetching import Fetching, results, wait_until
from tests.hostile_server import HostileServer, behind, redirect, reply

RULES = b"User-agent: *\nDisallow: /private/\n\nUser-agent: pairscore\nDisallow: /no\n"


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer() as server:
        server.on("/robots.txt", reply(200, RULES))
        yield server


def heeding(**settings: Any) -> Fetching:
    return Fetching(robots="respect", attempts=1, **settings)


def test_nobody_asks_for_robots_txt_unless_that_is_wanted(server):
    with Fetching() as fetching:
        assert fetching.body(server.on("/no/1.jpg", reply(200, b"x"))) == b"x"
        tagged = server.on("/2.jpg", reply(200, b"x", X_Robots_Tag="noai"))
        assert fetching.body(tagged) == b"x"
    assert server.hits("/robots.txt") == 0


def test_what_robots_txt_forbids_is_not_asked_for(server):
    with heeding() as fetching:
        failure = fetching.failure(server.on("/no/1.jpg", reply(200, b"x")))
        assert fetching.body(server.on("/private/2.jpg", reply(200, b"y"))) == b"y"
    assert (failure.error, failure.attempts) == ("disallowed: robots.txt", 0)
    assert not failure.retryable
    assert server.hits("/no/1.jpg") == 0


def test_robots_txt_is_asked_for_once_however_many_wait_for_it(server):
    gate = server.gate()
    server.on("/robots.txt", behind(gate, reply(200, RULES)))
    with heeding(concurrency=4) as fetching:
        futures = [fetching.start(server.on(f"/{n}.jpg", reply(404))) for n in range(30)]
        futures += [fetching.start(server.url("/no"))]
        wait_until(lambda: server.hits() == 1)
        gate.set()
        ended = results(futures)
        assert fetching.failure(server.url("/no/more")).reason is Reason.DISALLOWED
    assert [f.error for f in ended if isinstance(f, Failure)] == [
        *["http_error: 404"] * 30,
        "disallowed: robots.txt",
    ]
    assert server.hits("/robots.txt") == 1


def test_the_group_is_that_of_the_user_agent(server):
    with heeding(user_agent="other-bot/1 (+mailto:a@b.example)") as fetching:
        assert fetching.body(server.on("/no/1.jpg", reply(200, b"x"))) == b"x"
        failure = fetching.failure(server.on("/private/2.jpg", reply(200, b"y")))
    assert failure.reason is Reason.DISALLOWED


def test_where_there_is_no_robots_txt_all_is_allowed(server):
    server.on("/robots.txt", reply(404))
    with heeding() as fetching:
        assert fetching.body(server.on("/no/1.jpg", reply(200, b"x"))) == b"x"


def test_where_robots_txt_is_out_of_reach_nothing_is_asked_for_and_it_may_pass(server):
    server.on("/robots.txt", reply(503))
    with heeding() as fetching:
        failure = fetching.failure(server.on("/1.jpg", reply(200, b"x")))
    assert failure.error == "disallowed: robots.txt: http_error: 503"
    assert failure.retryable
    assert failure.retry_after == pytest.approx(600, abs=5)
    assert server.hits("/1.jpg") == 0


def test_a_host_that_does_not_answer_is_said_to(server):
    with HostileServer() as gone:
        url = gone.url("/1.jpg")
    with heeding() as fetching:
        failure = fetching.failure(url)
    assert failure.error.startswith("disallowed: robots.txt: connect_error: ")
    assert failure.retryable


def test_robots_txt_itself_may_be_elsewhere(server):
    server.on("/robots.txt", redirect(server.on("/no/rules", reply(200, RULES))))
    with heeding() as fetching:
        assert fetching.failure(server.url("/no/1.jpg")).reason is Reason.DISALLOWED


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is loopback on Linux only")
def test_where_a_redirect_leads_is_asked_as_well(server):
    with HostileServer("127.0.0.2") as other, heeding() as fetching:
        other.on("/robots.txt", reply(404))
        url = other.on("/1.jpg", redirect(server.on("/no/1.jpg", reply(200, b"x"))))
        failure = fetching.failure(url)
    assert failure.error == "disallowed: robots.txt"
    assert server.hits("/no/1.jpg") == 0


def test_who_wants_a_delay_gets_it(server):
    server.on("/robots.txt", reply(200, b"User-agent: *\nCrawl-delay: 0.4\n"))
    with heeding() as fetching:
        results([fetching.start(server.on(f"/{n}", reply(404))) for n in range(3)])
    times = [request.at for request in server.requests if request.target != "/robots.txt"]
    assert times[1] - times[0] >= 0.38
    assert times[2] - times[1] >= 0.38


@pytest.mark.parametrize("directive", ["noai", "noindex, noimageai", "pairscore: noai"])
def test_an_image_that_models_are_not_to_be_made_of_is_not_used(server, directive):
    url = server.on("/1.jpg", reply(200, b"x" * 1_000, X_Robots_Tag=directive))
    with heeding(concurrency=1) as fetching:
        failures = [fetching.failure(url) for _ in range(3)]  # no slot is kept
    failure = failures[-1]
    assert failure.reason is Reason.DISALLOWED
    assert failure.detail.startswith("X-Robots-Tag: no")
    assert failure.attempts == 1


def test_an_image_with_any_other_tag_is(server):
    url = server.on("/1.jpg", reply(200, b"x", X_Robots_Tag="noindex, otherbot: noai"))
    with heeding() as fetching:
        assert fetching.body(url) == b"x"


def test_what_is_unchanged_and_not_to_be_used_any_more_is_not(server):
    tag = '"1"'
    url = server.on("/1.jpg", reply(304, ETag=tag), reply(304, ETag=tag, X_Robots_Tag="noai"))
    with heeding() as fetching:
        known = Validators(url, tag, None)
        assert isinstance(fetching.get(url, known), NotModified)
        failure = fetching.get(url, known)
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.DISALLOWED


def test_a_body_of_robots_txt_keeps_no_slot(server):
    with heeding(concurrency=1) as fetching:
        assert isinstance(fetching.get(server.on("/1.jpg", reply(200, b"x"))), Fetched)
