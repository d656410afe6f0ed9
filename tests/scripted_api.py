"""An HTTP server that answers as it was told to, one thing after the other: badly, mostly."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

WITHIN = 20.0


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = WITHIN
    script: "Script"

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def do_GET(self) -> None:
        self._play()

    do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _play(self) -> None:
        asked = Asked(self.command, self.path, dict(self.headers), time.monotonic())
        self.script.next(asked)(self, asked)

    def hang_up(self) -> None:
        """Break the connection, so that the other side gets an error rather than an end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


@dataclass
class Asked:
    """A request; `body` is what was read of it."""

    method: str
    path: str
    headers: dict[str, str]
    at: float
    body: bytes = b""


Answer: TypeAlias = Callable[[Handler, Asked], None]


@dataclass
class Script:
    """What is answered in turn, the last for ever; and what was asked."""

    answers: Sequence[Answer]
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    ended: threading.Event = field(default_factory=threading.Event)

    def next(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


def answer(content: object, status: int = 200, **headers: str) -> Answer:
    """Read the request and answer; `content` is JSON, or bytes as they are."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    named = {"Content_Type": "application/json", "Content_Length": str(len(raw)), **headers}

    def play(handler: Handler, asked: Asked) -> None:
        asked.body = handler.body()
        handler.send_response(status)
        for name, value in named.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(raw)
        if int(named["Content_Length"]) != len(raw):
            handler.close_connection = True

    return play


def problem(status: int, slug: str, detail: str, *, more: dict[str, Any], **headers: str) -> Answer:
    """What the API answers where something is wrong."""
    content = {
        "type": f"urn:pairscore:problem:{slug}",
        "title": "As it is called",
        "status": status,
        "detail": detail,
        "request_id": "r17",
        **more,
    }
    return answer(content, status, Content_Type="application/problem+json", **headers)


def cut(content: bytes, media_type: str = "application/json") -> Answer:
    """Answer with the beginning of something longer."""
    length = str(len(content) + 1_000)
    return answer(content, Content_Length=length, Content_Type=media_type)


def reset_in_body(handler: Handler, asked: Asked) -> None:
    """Break the connection when a little of the body is read."""
    asked.body = handler.rfile.read(min(10, int(handler.headers.get("Content-Length", 0))))
    handler.hang_up()


def reset_after_body(handler: Handler, asked: Asked) -> None:
    """Break it when all of it is read, so that nobody can tell what was done."""
    asked.body = handler.body()
    handler.hang_up()


def silent(handler: Handler, asked: Asked) -> None:
    """Read the request, and say nothing until the test ends."""
    asked.body = handler.body()
    handler.script.ended.wait(WITHIN)
    handler.close_connection = True


@contextmanager
def scripted_api(*answers: Answer) -> Iterator[Script]:
    """The server until the end of the block."""
    script = Script(answers)
    kind = type("ScriptedHandler", (Handler,), {"script": script})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = False  # waited for, so that no connection is left open
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield script
    finally:
        script.ended.set()
        server.shutdown()
        thread.join(WITHIN)
        server.server_close()
