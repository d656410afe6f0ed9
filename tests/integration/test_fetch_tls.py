"""HTTPS and HTTP/2: certificates are checked, and handshakes that break off are tried again."""

import asyncio
import socket
import ssl
import struct
import threading
from datetime import UTC, datetime

import pytest
import trustme
from hypercorn.asyncio import serve
from hypercorn.config import Config

from pairscore.errors import SettingsError
from pairscore.fetch import Fetched
from pairscore.pair import Reason
from tests.fetching import DEADLINE, Fetching, fetched
from tests.hostile_server import HostileServer, redirect, reply


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def server_context(certificate, *alpn):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


class Http2Server:
    """Hypercorn on a thread; answers with the version it was asked in, and notes connections."""

    def __init__(self, context_files):
        self.versions, self.clients = [], set()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._socket.getsockname()[1]}/"
        self._config = Config()
        self._config.bind = [f"fd://{self._socket.detach()}"]
        self._config.certfile, self._config.keyfile = context_files
        self._config.graceful_timeout = 1
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(DEADLINE)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE)

    def _run(self):
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(serve(self._answer, self._config, shutdown_trigger=self._stop.wait))

    async def _answer(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            self._ready.set()
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.versions.append(scope["http_version"])
        self.clients.add(tuple(scope["client"]))
        status = int(scope["path"].strip("/") or 200)
        headers = [(b"location", b"/200")] if status == 302 else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": scope["http_version"].encode()})


@pytest.fixture
def http2(authority, tmp_path):
    certificate = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    key.write_bytes(certificate.private_key_pem.bytes())
    chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    with Http2Server((str(chain), str(key))) as server:
        yield server


@pytest.fixture
def https(authority):
    with HostileServer(tls=server_context(authority.issue_cert("127.0.0.1"))) as server:
        yield server


def test_a_server_whose_certificate_is_trusted_is_asked(https, ca_file):
    with Fetching(ca_file=ca_file) as fetching:
        assert fetching.get(https.on("/a", reply(200, b"x"))) == Fetched(b"x", attempts=1)
        fetching.body(https.url("/a"))
    assert https.connections == 1


def test_a_redirect_from_http_to_https_is_followed(https, ca_file):
    https.on("/b", reply(200, b"safe"))
    with HostileServer() as plain, Fetching(ca_file=ca_file) as fetching:
        assert fetching.body(plain.on("/a", redirect(https.url("/b")))) == b"safe"


def test_a_certificate_of_nobody_we_trust_is_refused_once(https):
    with Fetching() as fetching:
        failure = fetching.failure(https.on("/a", reply(200, b"x")))
    assert (failure.reason, failure.attempts) == (Reason.TLS_ERROR, 1)
    assert "certificate" in failure.detail
    assert https.hits() == 0


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["example.org"], {}),
        (["127.0.0.1"], {"not_after": datetime(2020, 1, 1, tzinfo=UTC)}),
    ],
    ids=["of another host", "expired"],
)
def test_a_certificate_that_does_not_hold_is_refused(authority, ca_file, names, options):
    if options:
        options["not_before"] = datetime(2019, 1, 1, tzinfo=UTC)
    context = server_context(authority.issue_cert(*names, **options))
    with HostileServer(tls=context) as server, Fetching(ca_file=ca_file) as fetching:
        failure = fetching.failure(server.on("/a", reply(200, b"x")))
        assert (failure.reason, failure.attempts) == (Reason.TLS_ERROR, 1)
        assert server.hits() == 0


def greet_in_plain_text(connection):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def greet_with_a_reset(connection):
    connection.recv(65536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise ConnectionResetError


def greet_and_hang_up(connection):
    connection.recv(65536)
    raise ConnectionAbortedError


def test_a_server_that_speaks_no_tls_is_a_tls_error():
    with HostileServer(greet=greet_in_plain_text) as server, Fetching() as fetching:
        failure = fetching.failure(f"https://127.0.0.1:{server.port}/")
    assert (failure.reason, failure.attempts) == (Reason.TLS_ERROR, 1)


@pytest.mark.parametrize("greet", [greet_with_a_reset, greet_and_hang_up])
def test_a_handshake_that_breaks_off_is_tried_again(greet):
    with HostileServer(greet=greet) as server, Fetching(attempts=3) as fetching:
        failure = fetching.failure(f"https://127.0.0.1:{server.port}/")
    assert (failure.reason, failure.attempts) == (Reason.CONNECT_ERROR, 3)


def greet_with_silence(connection):
    while connection.recv(65536):
        pass


def test_a_handshake_that_does_not_come_is_no_connection():
    with (
        HostileServer(greet=greet_with_silence) as server,
        Fetching(connect_timeout=0.5, attempts=1) as fetching,
    ):
        failure = fetching.failure(f"https://127.0.0.1:{server.port}/")
    assert failure.error == "connect_error: no connection within 0.5 s"


def test_http_2_is_spoken_where_the_server_does(http2, ca_file):
    with Fetching(ca_file=ca_file) as fetching:
        assert fetching.body(http2.url) == b"2"
        assert fetching.body(http2.url + "302") == b"2"
        assert fetching.failure(http2.url + "404").error == "http_error: 404"
        futures = [fetching.start(http2.url) for _ in range(50)]
        fetching.consume(*futures)
        assert {result.body for result in fetched(futures)} == {b"2"}
    assert set(http2.versions) == {"2"}
    assert len(http2.clients) <= 8


@pytest.mark.parametrize("alpn", [(), ("http/1.1",), ("h2", "http/1.1")])
def test_http_1_1_is_spoken_over_tls_where_the_server_does_not_speak_2(authority, ca_file, alpn):
    offered = [name for name in alpn if name != "h2"]
    context = server_context(authority.issue_cert("127.0.0.1"), *offered)
    with HostileServer(tls=context) as server, Fetching(ca_file=ca_file) as fetching:
        assert fetching.body(server.on("/a", reply(200, b"x"))) == b"x"
        assert server.requests[0].version == "HTTP/1.1"


def test_a_ca_file_that_cannot_be_used_is_said_at_once(tmp_path):
    missing, garbage = tmp_path / "missing.pem", tmp_path / "garbage.pem"
    garbage.write_text("not a certificate")
    for path in (missing, garbage, tmp_path):
        with pytest.raises(SettingsError, match="PAIRSCORE_FETCH__CA_FILE") as error:
            Fetching(ca_file=path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
