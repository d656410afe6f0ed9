"""The port of a service: GET /metrics for Prometheus, /livez and /readyz for a supervisor."""

import errno
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, TypeAlias

from prometheus_client.exposition import choose_encoder

from pairscore.errors import EnvironmentFault
from shared.settings import TelemetrySettings
from shared.telemetry.health import Health
from shared.telemetry.metrics import READY, Metrics

DEFAULT_PORT: Final = 9464
_MOST_REQUESTS: Final = 64
_REQUEST_SECONDS: Final = 5.0
_TEXT: Final = "text/plain; charset=utf-8"
_Address: TypeAlias = tuple[str, int]
_Request: TypeAlias = socket.socket | tuple[bytes, socket.socket]

_log = logging.getLogger(__name__)


@contextmanager
def serving(settings: TelemetrySettings, metrics: Metrics, health: Health) -> Iterator[int]:
    """Serve while the block runs, from threads of its own; yields the port.

    /livez answers 200 while the loop beats, /readyz while the service can work; each else 503 and
    one line that says why not.

    Raises:
        EnvironmentFault: the address cannot be had, or not the port that was set.
    """
    server = _open(settings, metrics, health)
    host, port = server.server_address[:2]
    thread = threading.Thread(
        target=server.serve_forever, args=(0.1,), name="telemetry", daemon=True
    )
    thread.start()
    _log.info("metrics are at http://%s:%s/metrics", host, port, extra={"port": port})
    try:
        yield int(port)
    finally:
        server.shutdown()
        thread.join(_REQUEST_SECONDS)
        server.hang_up()
        server.server_close()


def _open(settings: TelemetrySettings, metrics: Metrics, health: Health) -> "_Server":
    ports = (DEFAULT_PORT, 0) if settings.port is None else (settings.port,)
    for port in ports:
        try:
            return _Server(settings.host, port, metrics, health)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port != ports[-1]:
                continue
            raise _fault(settings, port, error) from None
    raise AssertionError("the last port is taken or refused")


def _fault(settings: TelemetrySettings, port: int, error: OSError) -> EnvironmentFault:
    if error.errno == errno.EADDRINUSE:
        return EnvironmentFault(
            f"setting PAIRSCORE_TELEMETRY__PORT: port {port} at {settings.host} is taken; set "
            "another, 0 for any free one, or leave it out"
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return EnvironmentFault(
            f"setting PAIRSCORE_TELEMETRY__PORT: port {port} may not be opened "
            f"({error.strerror}); set one above 1023"
        )
    return EnvironmentFault(
        f"setting PAIRSCORE_TELEMETRY__HOST: no port can be opened at {settings.host} "
        f"({error.strerror}); it must be an address of this machine, such as 127.0.0.1 or 0.0.0.0"
    )


class _Server(ThreadingHTTPServer):
    # Joined when the server is closed, which `hang_up` keeps from taking long.
    daemon_threads = False
    request_queue_size = _MOST_REQUESTS

    def __init__(self, host: str, port: int, metrics: Metrics, health: Health) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        self.metrics = metrics
        self.health = health
        self._requests: set[_Request] = set()
        super().__init__((str(found[0][4][0]), port), _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the name service what this machine is called.
        socketserver.TCPServer.server_bind(self)

    def verify_request(self, _request: _Request, _address: object) -> bool:
        return len(self._requests) < _MOST_REQUESTS

    def process_request(self, request: _Request, client_address: _Address) -> None:
        self._requests.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: _Request) -> None:
        self._requests.discard(request)
        super().shutdown_request(request)

    def handle_error(self, _request: _Request, _address: object) -> None:
        # A client that went away is its own affair; anything else is a defect, but not a reason to
        # stop a service that scores.
        gone = isinstance(sys.exception(), OSError)
        _log.log(logging.DEBUG if gone else logging.ERROR, "a request failed", exc_info=True)

    def hang_up(self) -> None:
        """End the connections that are still open."""
        for request in self._requests.copy():
            if isinstance(request, socket.socket):
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "pairscore"
    sys_version = ""
    timeout = _REQUEST_SECONDS

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._metrics()
            case "/livez":
                silence = self.server.health.silence()
                ok = self.server.health.alive()
                self._answer(ok, "alive" if ok else f"the loop stands still for {silence:.0f} s")
            case "/readyz":
                ok = self.server.health.is_ready
                self._answer(ok, "ready" if ok else self.server.health.why)
            case _:
                self._send(HTTPStatus.NOT_FOUND, "try /metrics, /livez or /readyz")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        _log.debug(format, *args)

    def _metrics(self) -> None:
        self.server.metrics.set(READY, self.server.health.is_ready)
        encode, kind = choose_encoder(self.headers.get("Accept", ""))
        self._send(HTTPStatus.OK, encode(self.server.metrics.registry), kind)

    def _answer(self, ok: bool, line: str) -> None:
        self._send(HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE, line)

    def _send(self, status: HTTPStatus, body: str | bytes, kind: str = _TEXT) -> None:
        content = body if isinstance(body, bytes) else f"{body}\n".encode(errors="replace")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
