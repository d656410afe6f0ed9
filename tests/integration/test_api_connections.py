"""Connections that are slow, many or endless are hung up on; others are served meanwhile."""

import fcntl
import socket
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import psutil
import pytest
import requests

from tests.api_clients import write_keys
from tests.fetching import wait_until
from tests.serving import Api, serving_api
from tests.working import WITHIN, Fleet

MOST = 20


@pytest.fixture(scope="module")
def api(kafka, tmp_path_factory) -> Iterator[Api]:
    fleet = Fleet(kafka.bootstrap_servers, "api-connections.")
    options = {
        "head_seconds": 1.0,
        "idle_seconds": 1.0,
        "connections": MOST,
        "json_bytes": 100_000,
        "upload_bytes": 200_000,
    }
    with serving_api(fleet.settings, tmp_path_factory.mktemp("api"), api=options) as served:
        yield served


def connect(api: Api) -> socket.socket:
    return socket.create_connection(("127.0.0.1", api.port), timeout=WITHIN)


def read(sock: socket.socket) -> bytes:
    """All that comes until it is closed."""
    found = b""
    while part := _received(sock):
        found += part
    return found


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65_536)
    except ConnectionError:
        return b""


HEAD = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"


def test_a_head_that_does_not_come_is_hung_up_on(api):
    for sent in (b"", b"GET /v1/jobs HTTP/1.1\r\nHost"):
        with connect(api) as sock:
            began = time.monotonic()
            sock.sendall(sent)
            assert read(sock).startswith(b"HTTP/1.1 408 ")
            assert time.monotonic() - began >= 0.9


def test_a_head_that_comes_byte_by_byte_is_hung_up_on(api):
    with connect(api) as sock:
        began = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011, PT012 - broken pipe or reset
            while time.monotonic() < began + WITHIN:
                sock.sendall(b"a")
                time.sleep(0.1)
        assert time.monotonic() - began < WITHIN / 2


def test_a_second_request_has_to_come_in_time_too(api):
    with connect(api) as sock:
        sock.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: b'"jobs"' in sock.recv(65_536), within=WITHIN)
        sock.sendall(b"GET /v1")
        assert b" 408 " in read(sock)


def test_an_endless_head_is_refused(api):
    with connect(api) as sock:
        sock.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n")
        try:
            for _ in range(200):
                sock.sendall(b"X-Long: " + b"a" * 1_000 + b"\r\n")
        except ConnectionError:
            return
        assert read(sock).startswith(b"HTTP/1.1 431 ")


def test_a_body_that_stops_is_too_slow(api):
    for length in (b"Content-Length: 1000\r\n", b"Transfer-Encoding: chunked\r\n"):
        with connect(api) as sock:
            sock.sendall(HEAD + length + b"\r\n")
            answer = read(sock)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"application/problem+json" in answer
        assert b"urn:pairscore:problem:too-slow" in answer


def test_a_body_that_trickles_is_too_slow(kafka, topic_prefix, tmp_path, monkeypatch):
    monkeypatch.setattr("producer.api.server.RATE_AFTER_SECONDS", 0.5)
    fleet = Fleet(kafka.bootstrap_servers, topic_prefix)
    with serving_api(fleet.settings, tmp_path) as api, connect(api) as sock:
        sock.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n")
        with pytest.raises(OSError):  # noqa: PT011, PT012 - broken pipe or reset
            for _ in range(int(WITHIN * 10)):
                sock.sendall(b"a")
                time.sleep(0.1)


def test_a_body_that_is_too_long_is_refused_before_it_is_all_there(api):
    with connect(api) as sock:
        sock.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        try:
            while sent < 50_000_000:
                sock.sendall(b"10000\r\n" + b"a" * 0x10000 + b"\r\n")
                sent += 0x10000
        except ConnectionError:
            pass
        assert sent < 50_000_000


def test_more_connections_than_are_allowed_are_closed_and_the_others_served(api):
    with connect(api) as first:
        first.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n")
        others = [connect(api) for _ in range(MOST)]
        try:
            assert any(_received(each) == b"" for each in others[MOST - 1 :])
            first.sendall(b"\r\n")
            assert first.recv(65_536).startswith(b"HTTP/1.1 200 ")
        finally:
            for each in others:
                each.close()
    wait_until(lambda: api.get("/v1/jobs").ok, within=WITHIN)


def test_a_connection_whose_body_never_came_is_closed_with_the_answer(api):
    for path in (b"/v1/openapi.json", b"/nothing"):
        with connect(api) as sock:
            sock.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
            assert read(sock).startswith(b"HTTP/1.1 ")


def test_nobody_without_a_key_has_a_body_read(kafka, topic_prefix, tmp_path):
    keys = tmp_path / "keys.json"
    write_keys(keys)
    fleet = Fleet(kafka.bootstrap_servers, topic_prefix)
    for path in (b"/v1/scores", b"/v1/jobs"):
        with (
            serving_api(fleet.settings, tmp_path, api={"keys": str(keys)}) as api,
            connect(api) as sock,
        ):
            sock.sendall(
                b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000000\r\n\r\n{"
            )
            assert read(sock).startswith(b"HTTP/1.1 401 ")


def ask_for_much(sock: socket.socket, document: bytes) -> int:
    """Ask for more than all buffers between hold, as a stream would be; how many bytes it is."""
    count = 40_000_000 // len(document)
    sock.sendall(b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * count)
    return count * len(document)


def test_who_does_not_read_the_answer_is_hung_up_on(api):
    document = requests.get(f"{api.url}/v1/openapi.json", timeout=WITHIN).content
    with connect(api) as sock:
        size = ask_for_much(sock, document)
        time.sleep(3)
        began = time.monotonic()
        found = read(sock)
        assert time.monotonic() - began < 5
    assert document in found
    assert len(found) < size / 2


def queued(sock: int, what: int) -> int:
    """The bytes that the kernel holds of a socket, to be sent (TIOCOUTQ) or read (FIONREAD)."""
    return int.from_bytes(fcntl.ioctl(sock, what, bytes(4)), sys.byteorder)


def test_who_leaves_a_little_of_the_answer_is_hung_up_on_too(api, caplog):
    size = len(requests.get(f"{api.url}/v1/openapi.json", timeout=WITHIN).content)

    def held() -> list[int]:
        """The sockets of the connections that the API has."""
        found = psutil.Process().net_connections("tcp")
        return [
            each.fd
            for each in found
            if each.laddr.port == api.port and each.status != psutil.CONN_LISTEN and each.fd >= 0
        ]

    def ask(stack: ExitStack, times: int) -> socket.socket:
        sock = stack.enter_context(connect(api))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sock.sendall(b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * times)
        return sock

    def somebody() -> bool:
        return bool(held())

    def nobody() -> bool:
        return not held()

    wait_until(nobody, within=WITHIN)
    with ExitStack() as stack:
        # How much of an answer the kernel takes where nobody reads.
        sock = ask(stack, 20_000_000 // size)
        wait_until(somebody, within=WITHIN)  # it has accepted it
        taken = 0
        while found := held():
            with suppress(OSError):  # hung up on meanwhile
                there = queued(found[0], termios.TIOCOUTQ)
                taken = max(taken, there + queued(sock.fileno(), termios.FIONREAD))
            time.sleep(0.05)
    with ExitStack() as stack:
        # Of one of these, the API is left with less than it would write ahead by itself.
        for more in range(MOST - 2):
            ask(stack, taken // size + more - (MOST - 2) // 2)
        wait_until(somebody, within=WITHIN)
        wait_until(nobody, within=WITHIN)
    assert not [each for each in caplog.records if each.exc_info]


def test_who_reads_the_answer_slowly_gets_all_of_it(api):
    document = requests.get(f"{api.url}/v1/openapi.json", timeout=WITHIN).content
    with connect(api) as sock:
        size = ask_for_much(sock, document)
        got = 0
        # Longer than is waited for one who reads nothing.
        for _ in range(30):
            time.sleep(0.1)
            got += len(sock.recv(100_000))
        while got < size:
            part = sock.recv(1_000_000)
            assert part
            got += len(part)
