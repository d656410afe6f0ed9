"""A web server for the demo data, on loopback by default: files of a folder, and odd paths.

These misbehave on purpose:

| path | what it does |
|---|---|
| `/FILE` | the file |
| `/redirect/FILE` | 302 to `/FILE` |
| `/loop/...` | 302 to itself |
| `/private/FILE` | 302 to an address that is not public |
| `/status/CODE/...` | that status |
| `/flaky/FILE` | 503 at the first request, the file at every later one |
| `/slow/SECONDS/FILE` | the file, after a silence |
| `/stall/FILE` | half the file, then silence |
| `/big/declared/...` | 21 MB that a Content-Length announces |
| `/big/chunked/...` | 21 MB that nothing announces |
"""

import contextlib
import mimetypes
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, TypeAlias, cast
from urllib.parse import unquote, urlsplit

Request: TypeAlias = socket.socket | tuple[bytes, socket.socket]
BIG_BYTES = 21_000_000
PRIVATE_URL = "http://10.255.255.1/"
LOOPBACK: Final = "127.0.0.1"

_CHUNK = bytes(100_000)
_STALL_SECONDS = 60.0
_POLL_SECONDS = 0.05
_JPEG_START = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"


@contextlib.contextmanager
def serve(folder: Path, port: int = 0, host: str = LOOPBACK) -> Iterator[str]:
    """Serve `folder`, which may be filled later; yields its URL (no slash at the end).

    On loopback, or for another `host`, which is how others call this machine, on all addresses.
    Port 0 takes any free one. On leaving, open connections are cut and waiting answers are dropped.

    Raises:
        OSError: the port is taken.
    """
    server = _Server(folder.resolve(), port, LOOPBACK if host == LOOPBACK else "")
    thread = threading.Thread(
        target=server.serve_forever, args=(_POLL_SECONDS,), name="demo-server", daemon=True
    )
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    # Threads are joined on closing, after their connections have been cut.
    daemon_threads = False

    def __init__(self, folder: Path, port: int, address: str) -> None:
        self.folder = folder
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._visited: set[str] = set()
        self._connections: set[socket.socket] = set()
        super().__init__((address, port), _Handler)

    def visit(self, path: str) -> bool:
        """Whether this is the first request for `path`."""
        with self._lock:
            first = path not in self._visited
            self._visited.add(path)
            return first

    def process_request(self, request: Request, client_address: object) -> None:
        with self._lock:
            self._connections.add(cast("socket.socket", request))
        super().process_request(request, client_address)

    def shutdown_request(self, request: Request) -> None:
        with self._lock:
            self._connections.discard(cast("socket.socket", request))
        super().shutdown_request(request)

    def handle_error(self, request: Request, client_address: object) -> None:
        """Say nothing of clients that hang up, as byte caps and deadlines make them do."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        self.closing.set()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "pairscore-demo"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        """Answer with the file, or as the first part of the path demands."""
        path = unquote(urlsplit(self.path).path).lstrip("/")
        kind, _, rest = path.partition("/")
        special: dict[str, Callable[[str], None]] = {
            "redirect": lambda file: self._redirect("/" + file),
            "loop": lambda _: self._redirect(self.path),
            "private": lambda file: self._redirect(PRIVATE_URL + file),
            "status": self._status,
            "flaky": self._flaky,
            "slow": self._slow,
            "stall": self._stall,
            "big": self._big,
        }
        if kind in special:
            special[kind](rest)
        else:
            self._file(path)

    do_HEAD = do_GET  # noqa: N815 (the base class looks for this name)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Keep the terminal quiet."""

    @property
    def _demo(self) -> _Server:
        return cast("_Server", self.server)

    def _read(self, name: str) -> bytes | None:
        path = (self._demo.folder / name).resolve()
        if path.is_relative_to(self._demo.folder) and path.is_file():
            return path.read_bytes()
        return None

    def _file(self, name: str) -> None:
        body = self._read(name)
        if body is None:
            self._answer(HTTPStatus.NOT_FOUND)
        else:
            self._answer(HTTPStatus.OK, body, _media_type(name))

    def _redirect(self, location: str) -> None:
        self._answer(HTTPStatus.FOUND, headers={"Location": location})

    def _status(self, rest: str) -> None:
        code = rest.partition("/")[0]
        known = code in {str(status.value) for status in HTTPStatus if status.value >= 200}
        self._answer(HTTPStatus(int(code)) if known else HTTPStatus.NOT_FOUND)

    def _flaky(self, name: str) -> None:
        if self._demo.visit(name):
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._file(name)

    def _slow(self, rest: str) -> None:
        seconds, _, name = rest.partition("/")
        if not self._demo.closing.wait(float(seconds) if seconds.isdecimal() else 0.0):
            self._file(name)

    def _stall(self, name: str) -> None:
        body = self._read(name)
        if body is None:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        self._head(HTTPStatus.OK, _media_type(name), len(body))
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        self._demo.closing.wait(_STALL_SECONDS)
        self.close_connection = True

    def _big(self, rest: str) -> None:
        chunked = rest.startswith("chunked/")
        self._head(HTTPStatus.OK, "image/jpeg", None if chunked else BIG_BYTES)
        if self.command == "HEAD":
            return
        parts = [_JPEG_START + _CHUNK[len(_JPEG_START) :]] + [_CHUNK] * (
            BIG_BYTES // len(_CHUNK) - 1
        )
        for part in parts:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
        self.wfile.write(b"0\r\n\r\n" if chunked else b"")

    def _answer(
        self,
        status: HTTPStatus,
        body: bytes = b"",
        media_type: str = "text/plain",
        headers: dict[str, str] | None = None,
    ) -> None:
        self._head(status, media_type, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(
        self,
        status: HTTPStatus,
        media_type: str,
        length: int | None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        if length is None:
            self.send_header("Transfer-Encoding", "chunked")
        elif status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()


def _media_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
