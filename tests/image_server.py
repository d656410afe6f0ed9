"""A real HTTP server on loopback that serves given bodies, counts requests and can be held."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image


class ImageServer(ThreadingHTTPServer):
    """`bodies` by path (404 for the rest); while `gate` is clear, answers wait.

    `headers` are sent with a body; an ETag in them is honoured, and `unchanged` counts the 304s.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: dict[str, bytes] = {}
        self.statuses: dict[str, list[int]] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.hits: Counter[str] = Counter()
        self.unchanged: Counter[str] = Counter()
        self.gate = threading.Event()
        self.gate.set()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def add(self, path: str, body: bytes) -> str:
        self.bodies[path] = body
        return self.url(path)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for head and body: no wait for an acknowledgement in between
    server: ImageServer

    def do_GET(self) -> None:
        server = self.server
        server.hits[self.path] += 1
        server.gate.wait(timeout=30)
        body = server.bodies.get(self.path)
        planned = server.statuses.get(self.path)
        status = planned.pop(0) if planned else 200 if body is not None else 404
        headers = server.headers.get(self.path, {})
        asked = self.headers.get("If-None-Match")
        if status == 200 and asked is not None and asked == headers.get("ETag"):
            status = 304
            server.unchanged[self.path] += 1
        answer = body if body is not None and status == 200 else b""
        self.send_response(status)
        if status != 304:
            self.send_header("Content-Length", str(len(answer)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""


@contextmanager
def image_server() -> Iterator[ImageServer]:
    with ImageServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.gate.set()
            server.shutdown()
            thread.join(timeout=10)


def picture(seed: int, file_format: str = "JPEG", size: tuple[int, int] = (90, 70)) -> bytes:
    """An image file of smooth noise, another one for each seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    out = BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(out, file_format)
    return out.getvalue()
