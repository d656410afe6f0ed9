"""What a response says of itself, and asking later whether that still holds."""

import sys

import pytest

from pairscore.fetch import Fetched, NotModified, Origin, Validators
from pairscore.pair import Reason
from tests.fetching import Fetching, fetched, results
from tests.hostile_server import HostileServer, raw, redirect, reply

ETAG, CHANGED = '"v1"', "Sun, 06 Nov 1994 08:49:37 GMT"
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def server():
    with HostileServer() as server:
        yield server


@pytest.fixture(scope="module")
def fetching():
    # One transfer at a time, so that all of them share one easy handle.
    with Fetching(attempts=3, concurrency=1) as fetching:
        yield fetching


def origin_of(fetching, url):
    result = fetching.get(url)
    assert isinstance(result, Fetched), result
    return result.origin


def conditions(server):
    """The conditional header of each request, in their order."""
    return [
        {name: value for name, value in request.headers.items() if name.startswith("if-")}
        for request in server.requests
    ]


WHOLE = {"if-none-match": ETAG, "if-modified-since": CHANGED}


def test_a_body_comes_with_what_was_said_of_it(server, fetching):
    said = {"ETag": 'W/"x"', "Last_Modified": CHANGED, "Cache_Control": "max-age=60", "Age": "20"}
    url = server.on("/a", reply(200, b"x", **said))
    assert origin_of(fetching, url) == Origin(url, 'W/"x"', CHANGED, 40.0, ())


def test_a_response_that_says_nothing_of_itself_has_a_url(server, fetching):
    url = server.on("/a", reply(200, b"x", Content_Type="image/png", Cache_Status="hit"))
    assert origin_of(fetching, url) == Origin(url)


def test_the_origin_is_where_the_redirects_end_and_what_it_says(server, fetching):
    there = server.on("/b", reply(200, b"x", ETag='"b"'))
    first = reply(302, Location="/b", ETag='"a"', Cache_Control="no-store", X_Robots_Tag="none")
    assert origin_of(fetching, server.on("/a", first)) == Origin(there, '"b"')


def test_interim_responses_and_trailers_say_nothing_of_the_body(server, fetching):
    interim = b'HTTP/1.1 103 Early Hints\r\nETag: "i"\r\nCache-Control: max-age=9\r\n\r\n'
    head = OK + b"Transfer-Encoding: chunked\r\nAge: 1\r\n\r\n"
    url = server.on("/a", raw(interim + head + b'1\r\nx\r\n0\r\nETag: "t"\r\n\r\n'))
    assert origin_of(fetching, url) == Origin(url)


def test_names_may_be_written_in_any_case(server, fetching):
    head = b'CACHE-CONTROL: max-age=7\r\netag: "e"\r\nx-ROBOTS-tag: noai\r\n'
    url = server.on("/a", raw(OK + head + b"Content-Length: 1\r\n\r\nx"))
    assert origin_of(fetching, url) == Origin(url, '"e"', None, 7.0, ("noai",))


def test_all_robots_tags_are_kept(server, fetching):
    tags = b"X-Robots-Tag: noindex, noai\r\nX-Robots-Tag: otherbot: none\r\n"
    url = server.on("/a", raw(OK + tags + b"Content-Length: 1\r\n\r\nx"))
    assert origin_of(fetching, url).robots == ("noindex, noai", "otherbot: none")


def test_what_is_kept_of_headers_is_bounded(server, fetching):
    tags = b"X-Robots-Tag: " + b"x" * 1000 + b"\r\n"
    url = server.on("/a", raw(OK + tags * 100 + b"Content-Length: 1\r\n\r\nx"))
    robots = origin_of(fetching, url).robots
    assert 0 < sum(map(len, robots)) <= 8192


def test_what_has_not_changed_is_not_sent_again(server, fetching):
    url = server.on("/a", reply(304, Cache_Control="max-age=30"))
    result = fetching.get(url, Validators(url, ETAG, CHANGED))
    assert result == NotModified(1, Origin(url, ETAG, CHANGED, 30.0))
    assert conditions(server) == [WHOLE]


def test_the_validators_of_an_origin_are_taken_back(server, fetching):
    def answer(exchange):
        known = exchange.request.headers.get("if-none-match") == ETAG
        exchange.reply(304 if known else 200, b"" if known else b"body", ETag=ETAG)

    url = server.on("/a", answer)
    origin = origin_of(fetching, url)
    known = Validators(origin.url, origin.etag, origin.last_modified)
    assert fetching.get(url, known) == NotModified(1, Origin(url, ETAG))


def test_only_the_validators_that_are_known_are_sent(server, fetching):
    url = server.on("/a", reply(200, b"x"))
    for etag, changed in ((ETAG, None), (None, CHANGED), (None, None)):
        assert fetching.get(url, Validators(url, etag, changed)) == Fetched(b"x", 1)
    assert conditions(server) == [{"if-none-match": ETAG}, {"if-modified-since": CHANGED}, {}]


def test_what_a_304_says_is_told_and_a_later_change_replaces_the_known_one(server, fetching):
    url = server.on("/a", reply(304, ETag=ETAG, X_Robots_Tag="noai"))
    result = fetching.get(url, Validators(url, ETAG, CHANGED))
    assert result == NotModified(1, Origin(url, ETAG, CHANGED, None, ("noai",)))
    later = "Mon, 07 Nov 1994 08:49:37 GMT"
    server.on("/a", reply(304, Last_Modified=later, Cache_Control="max-age=9"))
    result = fetching.get(url, Validators(url, ETAG, CHANGED))
    assert result == NotModified(1, Origin(url, ETAG, later, 9.0))


def test_an_entity_tag_is_never_given_to_what_was_known_without_one(server, fetching):
    url = server.on("/a", reply(304, ETag='"v2"'))
    result = fetching.get(url, Validators(url, None, CHANGED))
    assert result == NotModified(1, Origin(url, None, CHANGED))


def test_a_304_of_something_else_is_not_believed_and_the_body_asked_for(server, fetching):
    def answer(exchange):
        if "if-none-match" in exchange.request.headers:
            reply(304, ETag='"v2"')(exchange)
        else:
            reply(200, b"new", ETag='"v2"')(exchange)

    url = server.on("/a", answer)
    assert fetching.get(url, Validators(url, ETAG, CHANGED)) == Fetched(b"new", attempts=1)
    assert server.hits() == 2


@pytest.mark.parametrize(
    ("status", "said", "lifetime"),
    [
        (302, {}, 0.0),
        (307, {"Cache_Control": "max-age=7"}, 7.0),
        (302, {"Cache_Control": "no-store"}, 0.0),
        (301, {}, 60.0),
        (308, {"Cache_Control": "max-age=7"}, 7.0),
        (301, {"Cache_Control": "max-age=700"}, 60.0),
    ],
)
def test_what_is_led_to_is_fresh_for_no_longer_than_it_is_led_to(
    server, fetching, status, said, lifetime
):
    server.on("/b", reply(200, b"x", Cache_Control="max-age=60"))
    url = server.on("/a", reply(status, Location="/b", **said))
    assert origin_of(fetching, url).lifetime == lifetime


def test_the_shortest_of_several_redirects_counts(server, fetching):
    server.on("/d", reply(200, b"x", Cache_Control="max-age=60"))
    server.on("/c", reply(302, Location="/d", Cache_Control="max-age=30"))
    server.on("/b", reply(301, Location="/c"))
    url = server.on("/a", reply(302, Location="/b", Cache_Control="max-age=5"))
    assert origin_of(fetching, url).lifetime == 5.0


def test_what_has_changed_comes_as_ever(server, fetching):
    url = server.on("/a", reply(200, b"new", ETag='"v2"'))
    result = fetching.get(url, Validators(url, ETAG, CHANGED))
    assert result == Fetched(b"new", attempts=1)
    assert isinstance(result, Fetched)
    assert result.origin == Origin(url, '"v2"')


def test_only_the_hop_that_gave_them_gets_the_validators(server, fetching):
    url = server.on("/a", redirect("/b"))
    server.on("/b", redirect("/c"))
    last = server.on("/c", reply(304))
    result = fetching.get(url, Validators(last, ETAG, CHANGED))
    assert result == NotModified(1, Origin(last, ETAG, CHANGED))
    assert conditions(server) == [{}, {}, WHOLE]


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is loopback on Linux only")
def test_another_host_is_told_nothing(server, fetching):
    with HostileServer("127.0.0.2") as other:
        there = other.on("/a", reply(200, b"x"))
        url = server.on("/a", redirect(there))
        assert fetching.get(url, Validators(url, ETAG, CHANGED)) == Fetched(b"x", 1)
        assert (conditions(server), conditions(other)) == ([WHOLE], [{}])


@pytest.mark.parametrize("path", ["/a?", "/a?x=1", "/A", "/b"])
def test_a_304_that_was_not_asked_for_is_a_failure(server, fetching, path):
    url = server.on("/a", reply(304, ETag=ETAG))
    result = fetching.get(url, Validators(server.url(path), ETAG, CHANGED))
    assert getattr(result, "error", result) == "http_error: 304"
    assert fetching.failure(url).error == "http_error: 304"
    # Without a validator there is nothing to ask by.
    result = fetching.get(url, Validators(url, None, None))
    assert getattr(result, "error", result) == "http_error: 304"
    assert conditions(server) == [{}] * 3


def test_the_next_request_on_the_same_handle_is_not_conditional(server, fetching):
    known = server.on("/a", reply(304))
    other = server.on("/b", reply(200, b"x"))
    for _ in range(3):
        assert isinstance(fetching.get(known, Validators(known, ETAG, CHANGED)), NotModified)
        assert fetching.body(other) == b"x"
    assert isinstance(fetching.get(known, Validators(known, '"v9"', None)), NotModified)
    assert conditions(server) == [WHOLE, {}] * 3 + [{"if-none-match": '"v9"'}]
    accepted = {request.headers["accept"] for request in server.requests}
    assert accepted == {"image/*, */*;q=0.5"}


def test_the_next_attempt_asks_in_the_same_way(server, fetching):
    url = server.on("/a", reply(503), raw(b"SSH-2.0-x\r\n"), reply(304))
    result = fetching.get(url, Validators(url, ETAG, CHANGED))
    assert result == NotModified(3, Origin(url, ETAG, CHANGED))
    assert conditions(server) == [WHOLE] * 3


def test_the_next_attempt_asks_in_the_same_way_behind_a_redirect(server, fetching):
    url = server.on("/a", redirect("/b"))
    last = server.on("/b", reply(503), reply(304))
    result = fetching.get(url, Validators(last, ETAG, None))
    assert result == NotModified(2, Origin(last, ETAG))
    assert conditions(server) == [{}, {"if-none-match": ETAG}] * 2


def test_a_304_keeps_no_slot_though_nobody_consumes_it(server):
    url = server.on("/a", reply(304))
    with Fetching(concurrency=1) as fetching:
        futures = [fetching.start(url, Validators(url, ETAG, None)) for _ in range(5)]
        assert all(isinstance(result, NotModified) for result in results(futures))
        assert fetched([fetching.start(server.on("/b", reply(200, b"x")))])


def test_a_304_that_names_another_place_is_a_304(server, fetching):
    url = server.on("/a", reply(304, Location="/b"))
    assert isinstance(fetching.get(url, Validators(url, ETAG, None)), NotModified)
    assert server.hits() == 1


def test_a_304_that_is_cut_off_is_asked_for_again(server, fetching):
    url = server.on("/a", raw(b'HTTP/1.1 304 Same\r\nETag: "v2"\r\n'))
    result = fetching.get(url, Validators(url, ETAG, None))
    assert getattr(result, "reason", result) is Reason.CONNECT_ERROR
    assert result.attempts == 3
