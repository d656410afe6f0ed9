"""What servers do to a response, and what it is called."""

import gzip
import socket
import zlib

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pairscore.fetch import Fetched
from pairscore.pair import Reason
from tests.fetching import Fetching
from tests.hostile_server import HostileServer, behind, raw, redirect, reply

CAP = 10_000
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def server():
    with HostileServer() as server:
        yield server


@pytest.fixture(scope="module")
def fetching():
    with Fetching(max_bytes=CAP, attempts=2) as fetching:
        yield fetching


@pytest.fixture(scope="module")
def hasty():
    """A fetcher with one attempt of a second."""
    with Fetching(timeout=1, connect_timeout=0.5, stall_timeout=1, attempts=1) as fetching:
        yield fetching


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + body + end


def endlessly(data, piece):
    def send(exchange):
        exchange.send(data)
        while True:
            exchange.send(piece)

    return send


def test_a_body_comes_as_it_was_sent(server, fetching):
    body = bytes(range(256))
    assert fetching.get(server.on("/a", reply(200, body))) == Fetched(body, attempts=1)


def test_a_body_sent_in_chunks_is_put_together(server, fetching):
    url = server.on("/a", raw(chunked(b"one ", b"two ", b"three")))
    assert fetching.body(url) == b"one two three"


def test_a_body_that_ends_with_its_connection_is_whole(server, fetching):
    assert fetching.body(server.on("/a", raw(OK + b"\r\nno length"))) == b"no length"


@pytest.mark.parametrize("status", [200, 201, 203, 206])
def test_any_2xx_is_a_success(server, fetching, status):
    assert fetching.body(server.on("/a", reply(status, b"x"))) == b"x"


def test_no_content_is_an_empty_body(server, fetching):
    assert fetching.get(server.on("/a", reply(204))) == Fetched(b"", attempts=1)


def test_interim_responses_are_passed_over(server, fetching):
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    assert fetching.body(server.on("/a", raw(interim + OK + b"Content-Length: 1\r\n\r\nx"))) == b"x"


@pytest.mark.parametrize("status", [304, 400, 401, 403, 404, 410, 451])
def test_a_status_that_will_not_change_is_asked_for_once(server, fetching, status):
    url = server.on("/a", reply(status, b"" if status == 304 else b"<h1>no</h1>"))
    failure = fetching.failure(url)
    assert failure.error == f"http_error: {status}"
    assert (failure.attempts, failure.retryable, server.hits()) == (1, False, 1)


def test_the_status_of_an_error_counts_however_its_page_ends(server, hasty):
    cut = raw(b"HTTP/1.1 404 No\r\nContent-Length: 50\r\n\r\nhello")
    assert hasty.failure(server.on("/cut", cut)).error == "http_error: 404"
    huge = b"HTTP/1.1 403 No\r\nContent-Length: 99999999999\r\n\r\n"
    assert (
        hasty.failure(server.on("/huge", endlessly(huge, b"x" * 1000))).error == "http_error: 403"
    )
    endless = endlessly(b"HTTP/1.1 404 No\r\n\r\n", b"x" * 1000)
    assert hasty.failure(server.on("/endless", endless)).error == "http_error: 404"


def test_an_absurd_status_is_a_status(server, fetching):
    answer = raw(b"HTTP/1.1 " + b"9" * 5000 + b" OK\r\nContent-Length: 0\r\n\r\n")
    assert fetching.failure(server.on("/a", answer)).error == "http_error: 999"


def test_a_body_of_exactly_the_cap_is_accepted_and_one_byte_more_is_not(server, fetching):
    assert len(fetching.body(server.on("/cap", reply(200, b"x" * CAP)))) == CAP
    assert len(fetching.body(server.on("/chunks", raw(chunked(b"x" * CAP))))) == CAP
    for path, handler in {
        "/declared": reply(200, b"x" * (CAP + 1)),
        "/chunked": raw(chunked(b"x" * CAP, b"x")),
        "/closed": raw(OK + b"\r\n" + b"x" * (CAP + 1)),
    }.items():
        failure = fetching.failure(server.on(path, handler))
        assert failure.error == "too_large: over 10,000 bytes"
        assert failure.attempts == 1  # libcurl itself may ask anew where a kept connection died


def test_a_body_declared_too_large_is_not_waited_for(server, fetching):
    def declare(exchange):
        exchange.send(OK + b"Content-Length: 1000000000\r\n\r\n")
        exchange.hold()

    assert fetching.failure(server.on("/a", declare)).reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"3e8\r\n" + b"x" * 1000 + b"\r\n"),
        (OK + b"\r\n", b"x" * 1000),
        (OK, b"X-Filler: " + b"x" * 1000 + b"\r\n"),
        (OK + b"X-Filler: ", b"x" * 1000),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: " + b"x" * 1000 + b"\r\n"),
    ],
    ids=["chunks", "bytes", "headers", "one header", "interim responses", "trailers"],
)
def test_what_never_ends_is_too_large(server, fetching, head, piece):
    failure = fetching.failure(server.on("/a", endlessly(head, piece)))
    assert failure.reason is Reason.TOO_LARGE
    assert failure.attempts == 1
    assert failure.detail


@pytest.mark.parametrize(
    ("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_body_encoded_without_being_asked_is_decoded(server, fetching, encoding, encode):
    body = bytes(range(256)) * 8
    answer = reply(200, encode(body), Content_Encoding=encoding)
    assert fetching.body(server.on("/a", answer)) == body


def test_the_cap_counts_what_a_gzip_bomb_unpacks_to(server, fetching):
    bomb = gzip.compress(bytes(5_000_000))
    assert len(bomb) < CAP
    failure = fetching.failure(server.on("/a", reply(200, bomb, Content_Encoding="gzip")))
    assert (failure.reason, failure.attempts) == (Reason.TOO_LARGE, 1)


def test_layers_of_encodings_have_an_end(server, fetching):
    body, layers = b"x", 12
    for _ in range(layers):
        body = gzip.compress(body)
    answer = reply(200, body, Content_Encoding=", ".join(["gzip"] * layers))
    assert fetching.failure(server.on("/a", answer)).reason is Reason.CONNECT_ERROR


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\x01\x02 \xff\xfe not HTTP at all\r\n\r\n",
        b"HTTP/7.3 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX\x00Y: 1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    ],
    ids=lambda answer: answer[:40].decode("latin-1").encode("unicode_escape").decode(),
)
def test_a_broken_reply_is_a_broken_connection_and_is_tried_again(server, fetching, answer):
    failure = fetching.failure(server.on("/a", raw(answer)))
    assert failure.reason is Reason.CONNECT_ERROR
    assert (failure.attempts, failure.retryable) == (2, True)
    assert failure.detail.isprintable()


def test_a_truncated_body_is_no_body(server, fetching):
    url = server.on("/a", raw(OK + b"Content-Length: 50\r\n\r\nhello"))
    assert fetching.failure(url).detail == "closed after 5 bytes, before the end"


def test_what_follows_a_declared_length_is_left_alone(server, fetching):
    server.on("/short", raw(OK + b"Content-Length: 3\r\n\r\nabcdefgh"))
    assert fetching.body(server.url("/short")) == b"abc"
    assert fetching.body(server.on("/next", reply(200, b"next"))) == b"next"


def test_a_connection_that_is_reset_is_tried_again(server, fetching):
    url = server.on("/a", lambda exchange: exchange.reset(), reply(200, b"second"))
    assert fetching.get(url) == Fetched(b"second", attempts=2)


def test_headers_that_do_not_come_are_a_timeout(server, hasty):
    failure = hasty.failure(server.on("/a", lambda exchange: exchange.hold()))
    assert failure.reason is Reason.TIMEOUT
    assert "0 bytes received" in failure.detail


def test_a_body_that_stalls_is_a_timeout(server):
    def stall(exchange):
        exchange.send(OK + b"Content-Length: 50\r\n\r\nhello")
        exchange.hold()

    with Fetching(timeout=30, stall_timeout=1, attempts=1) as fetching:
        failure = fetching.failure(server.on("/a", stall))
    assert failure.error == "timeout: no data for 1 s, 5 bytes received"


def test_a_server_may_think_for_longer_than_it_may_stall(server):
    def think(exchange):
        exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        server.closing.wait(2)
        exchange.reply(200, b"at last")

    with Fetching(timeout=30, stall_timeout=1, attempts=1) as fetching:
        url = server.on("/a", behind(server.gate(), reply(200, b"at last"), seconds=2))
        results = fetching.get_all([url, server.on("/b", think)])
    assert results == [Fetched(b"at last", attempts=1)] * 2


def test_headers_that_stall_are_a_timeout(server):
    def stall(exchange):
        exchange.send(OK + b"Content-Length: 50\r\n")
        exchange.hold()

    with Fetching(timeout=30, stall_timeout=1, attempts=1) as fetching:
        failure = fetching.failure(server.on("/a", stall))
    assert failure.error == "timeout: no data for 1 s, 0 bytes received"


def test_a_body_that_drips_meets_the_deadline(server, hasty):
    def drip(exchange):
        exchange.send(OK + b"Content-Length: 5000\r\n\r\n")
        exchange.drip(b"x", every=0.05)

    failure = hasty.failure(server.on("/a", drip))
    assert failure.reason is Reason.TIMEOUT
    assert failure.detail.startswith("not done within 1 s")


def test_a_refused_connection_is_tried_again(fetching):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failure = fetching.failure(f"http://127.0.0.1:{port}/")
    assert (failure.reason, failure.attempts) == (Reason.CONNECT_ERROR, 2)


def test_a_connection_that_is_never_accepted_times_out(hasty):
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    address = listener.getsockname()
    fillers = [socket.socket() for _ in range(4)]
    try:
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        failure = hasty.failure(f"http://127.0.0.1:{address[1]}/")
    finally:
        for each in (listener, *fillers):
            each.close()
    assert failure.error == "connect_error: no connection within 0.5 s"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server, fetching, status):
    server.on("/b", reply(200, b"there"))
    url = server.on("/a", redirect(server.url("/b"), status))
    assert fetching.get(url) == Fetched(b"there", attempts=1)


def test_a_redirect_may_be_relative(server, fetching):
    server.on("/x/c?q=1", reply(200, b"there"))
    server.on("/x/b", redirect("c?q=1#part"))
    assert fetching.body(server.on("/a", redirect("/x/b"))) == b"there"


def test_the_body_of_a_redirect_is_not_part_of_the_image(server, fetching):
    server.on("/b", reply(200, b"there"))
    url = server.on("/a", reply(302, b"moved " * 1000, Location="/b"))
    assert fetching.body(url) == b"there"


def test_a_redirect_to_nowhere_is_a_status(server, fetching):
    assert fetching.failure(server.on("/a", reply(302, b"?"))).error == "http_error: 302"


def test_five_redirects_are_followed_and_six_are_not(server, fetching):
    for number in range(1, 7):
        server.on(f"/{number}", redirect(f"/{number - 1}"))
    server.on("/0", reply(200, b"there"))
    assert fetching.body(server.url("/5")) == b"there"
    failure = fetching.failure(server.url("/6"))
    assert failure.error == "too_many_redirects: more than 5"
    assert failure.attempts == 1


def test_a_loop_of_redirects_ends(server, fetching):
    server.on("/b", redirect("/a"))
    failure = fetching.failure(server.on("/a", redirect("/b")))
    assert failure.reason is Reason.TOO_MANY_REDIRECTS
    assert server.hits() == 6


def test_no_redirects_are_followed_where_none_are_allowed(server):
    with Fetching(max_redirects=0) as fetching:
        failure = fetching.failure(server.on("/a", redirect("/b")))
    assert failure.reason is Reason.TOO_MANY_REDIRECTS
    assert server.hits() == 1


WORDS = [
    *[
        b"HTTP/1.1 ",
        b"HTTP/2 ",
        b"HTTP/0.9 ",
        b"200",
        b"302",
        b"404",
        b"503",
        b" OK",
        b"\r\n",
        b"\n",
    ],
    *[b"Content-Length: ", b"Transfer-Encoding: chunked", b"Content-Encoding: gzip", b"5", b"-1"],
    *[b"Location: ", b"http:", b"//[", b"//\xff.invalid", b"nowhere.invalid", b"/a", b"ftp:"],
    *[b"Retry-After: ", b"Connection: close", b"hello", b"\0", b"\x1b[2J", b"%00", b"99999999999"],
]


@pytest.fixture(scope="module")
def babble():
    """A server that says whatever it is told to next, and hangs up."""
    with HostileServer() as server:
        yield server


@hypothesis_settings(deadline=None, max_examples=150)
@given(pieces=st.lists(st.sampled_from(WORDS) | st.binary(max_size=8), max_size=25))
@example(pieces=[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"hello"])
def test_whatever_a_server_says_is_a_body_or_one_line(babble, hasty, pieces):
    result = hasty.get(babble.on("/a", raw(b"".join(pieces))))
    if not isinstance(result, Fetched):
        assert result.reason is not Reason.INTERNAL
        assert result.detail.isprintable()
        result.detail.encode()
    assert hasty.crashes == []
