"""The guard where it stands: no spelling, name or redirect reaches a server that is not public."""

import errno
import socket
import sys

import pytest

from pairscore.fetch import Fetched
from pairscore.pair import Reason
from tests.fetching import Fetching, wait_until
from tests.hostile_server import HostileServer, redirect, reply

LOOPBACK = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0X7F.0.0.1",
    "017700000001",
    "0177.0.0.01",
    "0",
    "0.0.0.0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:0001]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1%25lo]",
    "127\u30020\u30020\u30021",
    "127\uff0e0\uff0e0\uff0e1",
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
    "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
    "\uff10\uff58\uff17\uff46.1",
    "\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54",
    "1\u00ad27.0.0.1",
    "127.0.0.1%00.example.org",
    "user@127.0.0.1",
    "example.org@127.0.0.1",
    "example.org:80@127.0.0.1",
    "example.org%2f@127.0.0.1",
    "example.org\\@127.0.0.1",
]
# What a browser would read otherwise than libcurl, and neither as an address: not even asked for.
REASONS = (Reason.BLOCKED_ADDRESS, Reason.INVALID_URL)


@pytest.fixture
def server():
    with HostileServer() as server:
        server.on("/", reply(200, b"secret"))
        yield server


@pytest.fixture(scope="module")
def closed_fetching():
    with Fetching(allow_networks="", connect_timeout=5) as fetching:
        yield fetching


@pytest.mark.parametrize("host", LOOPBACK)
def test_no_spelling_of_loopback_reaches_a_server(server, closed_fetching, host):
    failure = closed_fetching.failure(f"http://{host}:{server.port}/")
    assert failure.reason in REASONS
    assert failure.attempts <= 1
    assert server.connections == 0


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "169.254.169.254", "100.64.0.1", "192.168.1.1", "[fd00:ec2::254]"]
)
def test_private_addresses_are_named_in_the_failure(closed_fetching, address):
    failure = closed_fetching.failure(f"http://{address}/latest/meta-data/")
    assert failure.reason is Reason.BLOCKED_ADDRESS
    assert failure.detail == f"{address.strip('[]')} is not public"
    assert failure.attempts == 1


def test_every_address_of_a_name_is_looked_at(closed_fetching):
    failure = closed_fetching.failure("http://localhost:9/")
    resolved = {info[4][0] for info in socket.getaddrinfo("localhost", 9)}
    assert failure.reason is Reason.BLOCKED_ADDRESS
    assert {str(address) for address in resolved if str(address) in failure.detail}


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "\uff11\uff12\uff17.1"],
)
def test_an_allowed_network_is_open_to_every_spelling(server, host):
    with Fetching(allow_networks="127.0.0.1/32") as fetching:
        assert fetching.body(f"http://{host}:{server.port}/") == b"secret"


def test_an_allowed_ipv6_network_is_open():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with listener, Fetching(allow_networks="::1/128", attempts=1, timeout=5) as fetching:
        future = fetching.start(f"http://[::1]:{listener.getsockname()[1]}/")
        listener.settimeout(10)
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nv6")
        assert future.result(10) == Fetched(b"v6", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is loopback on Linux only")
@pytest.mark.parametrize(
    "host",
    ["127.0.0.2", "127.2", "2130706434", "0x7f.2", "[::ffff:127.0.0.2]", "[::ffff:7f00:2]"],
)
def test_a_redirect_does_not_lead_around_the_guard(server, host):
    with HostileServer("127.0.0.2") as inside, Fetching(allow_networks="127.0.0.1/32") as fetching:
        inside.on("/", reply(200, b"secret"))
        failure = fetching.failure(server.on("/out", redirect(f"http://{host}:{inside.port}/")))
        assert failure.reason is Reason.BLOCKED_ADDRESS
        assert "127.0.0.2" in failure.detail or "7f00:2" in failure.detail
        assert failure.attempts == 1
        assert inside.connections == 0
        assert server.hits("/out") == 1


def test_a_redirect_on_a_connection_in_use_meets_the_guard_too(server):
    with Fetching(allow_networks="127.0.0.1/32") as fetching:
        url = server.on("/out", redirect("http://10.0.0.1/"))
        for _ in range(2):
            assert fetching.failure(url).reason is Reason.BLOCKED_ADDRESS
        assert server.connections == 1


@pytest.mark.parametrize(
    "location",
    [
        "ftp://127.0.0.1/cat.jpg",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "dict://127.0.0.1:11211/stats",
        "ws://127.0.0.1/",
        "http://127.0.0.1:99999/",
    ],
)
def test_a_redirect_to_another_protocol_is_not_followed(server, location):
    with Fetching() as fetching:
        failure = fetching.failure(server.on("/out", redirect(location)))
        assert failure.reason is Reason.INVALID_URL
        assert failure.attempts == 1
        assert server.hits() == 1


@pytest.mark.parametrize(
    "location",
    ["http://ex\xff\xfe.test/", "http://\xe2\x84\x80.test/", "http://a%ff%fe.test/", "//\xff/"],
)
def test_a_redirect_to_bytes_that_are_no_name_fails_that_url_alone(server, location):
    with Fetching() as fetching:
        head = f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n"
        url = server.on("/out", lambda exchange: exchange.send(head.encode("latin-1")))
        failure = fetching.failure(url)
        assert failure.reason in (Reason.DNS_ERROR, Reason.INVALID_URL)
        assert failure.detail.isprintable()
        assert fetching.body(server.url("/")) == b"secret"


def test_a_name_that_does_not_exist_is_asked_about_once():
    with Fetching() as fetching:
        failure = fetching.failure("http://nowhere.invalid/cat.jpg")
        assert failure.reason is Reason.DNS_ERROR
        assert (failure.attempts, failure.retryable) == (1, False)
        assert "nowhere.invalid" in failure.detail


def test_a_user_in_the_url_is_sent_to_its_host(server):
    with Fetching() as fetching:
        fetching.body(f"http://me@home:pass@127.0.0.1:{server.port}/")
        wait_until(lambda: server.hits() == 1)
        assert server.requests[0].headers["authorization"] == "Basic bWVAaG9tZTpwYXNz"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EAFNOSUPPORT, Reason.CONNECT_ERROR),
        (errno.EMFILE, Reason.INTERNAL),
        (errno.ENFILE, Reason.INTERNAL),
    ],
)
def test_a_socket_that_cannot_be_had_is_tried_again(server, monkeypatch, number, reason):
    def fail(*_kind):
        raise OSError(number, "No socket")

    monkeypatch.setattr("pairscore.fetch.transfer._HandedOver", fail)
    with Fetching(attempts=2) as fetching:
        failure = fetching.failure(server.url("/"))
    assert (failure.reason, failure.attempts) == (reason, 2)


def test_a_redirect_is_read_like_a_cell(server):
    location = f"http://\uff11\uff12\uff17.0.0.1:{server.port}/there it is#part"
    head = f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n"
    server.on("/out", lambda exchange: exchange.send(head.encode()))
    server.on("/there%20it%20is", reply(200, b"there"))
    with Fetching() as fetching:
        assert fetching.body(server.url("/out")) == b"there"


def test_a_user_in_the_url_is_not_told_to_where_it_redirects(server):
    with HostileServer() as other, Fetching() as fetching:
        other.on("/", reply(200, b"x"))
        server.on("/out", redirect(other.url("/")))
        fetching.body(f"http://me:pass@127.0.0.1:{server.port}/out")
        assert "authorization" in server.requests[0].headers
        assert "authorization" not in other.requests[0].headers
