"""An HTTP server that does what a test tells it to: real sockets, raw bytes, every kind of misuse.

Each path has a handler, which is called with an `Exchange` for each request and may send any bytes
at any time. Handlers that wait do so on a `gate()`; all gates open when the server closes, so that
no test hangs on its own server.
"""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self, TypeAlias

DEADLINE = 20.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for; header names are lower case, `at` is the monotonic clock's."""

    target: str
    version: str
    headers: dict[str, str]
    at: float


class Exchange:
    """One request and the connection that it came in on."""

    def __init__(self, server: "HostileServer", connection: socket.socket, request: Request):
        self.request = request
        self._server = server
        self._connection = connection

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._connection.sendall(data)

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole, well-formed response; an underscore in a header's name is a hyphen."""
        fields = {"Content-Length": str(len(body))} if status != 204 else {}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send(f"HTTP/1.1 {status} Because\r\n{head}\r\n".encode() + body)

    def hold(self) -> None:
        """Say nothing more until the client goes away or the server closes."""
        while self._connection.recv(65536):
            pass

    def drip(self, data: bytes, every: float, times: int = 10_000) -> None:
        """Send `data` again and again, every so many seconds, while anyone listens."""
        for _ in range(times):
            if self._server.closing.wait(every):
                return
            self.send(data)

    def hang_up(self) -> None:
        """End the connection."""
        self._connection.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        raise ConnectionResetError


Handler: TypeAlias = Callable[[Exchange], None]


class HostileServer:
    """Listens on `host` at a port, of its own by default; one thread per connection.

    `greet`, if given, is called with each new connection before anything is read from it.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        greet: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self._host = host
        self._tls = tls
        self._greet = greet
        self._handlers: dict[str, Handler] = {}
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._gates: list[threading.Event] = []
        self._busy = 0
        self.closing = threading.Event()
        self.requests: list[Request] = []
        self.connections = 0
        self.peak = 0
        self._listener = socket.create_server((host, port), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="hostile-server")
        self._acceptor.start()

    def on(self, path: str, *handlers: Handler) -> str:
        """Answer requests for `path` with one handler after the other; give the URL."""
        left = list(handlers)

        def next_handler(exchange: Exchange) -> None:
            with self._lock:
                handler = left.pop(0) if len(left) > 1 else left[0]
            handler(exchange)

        self._handlers[path] = next_handler
        return self.url(path)

    def url(self, path: str) -> str:
        """The URL of a path."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}{path}"

    def gate(self) -> threading.Event:
        """An event for handlers to wait on; set when the server closes, if not before."""
        gate = threading.Event()
        self._gates.append(gate)
        return gate

    def hits(self, path: str | None = None) -> int:
        """How many requests came, in all or for one path."""
        with self._lock:
            return sum(path in (None, request.target) for request in self.requests)

    def close(self) -> None:
        """End every connection and thread."""
        self.closing.set()
        for gate in self._gates:
            gate.set()
        # A listener that is closed does not wake the thread that accepts from it.
        socket.create_connection((self._host, self.port), timeout=DEADLINE).close()
        self._acceptor.join(DEADLINE)
        self._listener.close()
        with self._lock:
            left = list(self._open)
        for connection in left:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self.closing.is_set():
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self.connections += 1
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # A client that goes away is what half of the tests are about.
        with suppress(OSError):
            if self._greet is not None:
                self._greet(connection)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with self._lock:
                self._open.add(connection)
            try:
                self._converse(connection)
            finally:
                with self._lock:
                    self._open.discard(connection)
        connection.close()

    def _converse(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            while not self.closing.is_set():
                request = _read_request(lines.readline)
                if request is None:
                    return
                with self._lock:
                    self.requests.append(request)
                    self._busy += 1
                    self.peak = max(self.peak, self._busy)
                try:
                    handler = self._handlers.get(request.target, _not_found)
                    handler(Exchange(self, connection, request))
                finally:
                    with self._lock:
                        self._busy -= 1


def _read_request(read_line: Callable[[], bytes]) -> Request | None:
    first = read_line().decode("latin-1").split()
    if len(first) != 3:
        return None
    headers = {}
    while line := read_line().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return Request(target=first[1], version=first[2], headers=headers, at=time.monotonic())


def _not_found(exchange: Exchange) -> None:
    exchange.reply(404)


def reply(status: int, body: bytes = b"", **headers: str) -> Handler:
    """A handler that sends a whole response."""
    return lambda exchange: exchange.reply(status, body, **headers)


def redirect(location: str, status: int = 302) -> Handler:
    """A handler that sends elsewhere."""
    return reply(status, Location=location)


def raw(data: bytes) -> Handler:
    """A handler that sends bytes and hangs up."""

    def send(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.hang_up()

    return send


def behind(gate: threading.Event, handler: Handler, seconds: float = DEADLINE) -> Handler:
    """A handler that waits for a gate to open first, or for so many seconds."""

    def wait(exchange: Exchange) -> None:
        gate.wait(seconds)
        handler(exchange)

    return wait
