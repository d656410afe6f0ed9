"""`python -m tests.faults.pictures FOLDER PORT OTHER_PORT`: where the rows' pictures are.

On PORT the demo's server. On OTHER_PORT, pictures that need patience, each under a name of its own:
`/late/SECONDS/NAME/FILE` answers after that time, `/twice/NAME/FILE` with 503 at the first two
requests for NAME.
"""

import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, cast

from pairscore.demo.server import serve

_FAILURES: Final = 2


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.visits: Counter[str] = Counter()
        self.turn = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = cast("_Server", self.server)
        kind, *rest = self.path.lstrip("/").split("/")
        if kind == "late":
            threading.Event().wait(float(rest.pop(0)))
            self._answer(200, server.folder.joinpath(*rest[1:]).read_bytes())
            return
        with server.turn:
            server.visits[rest[0]] += 1
            failing = server.visits[rest[0]] <= _FAILURES
        if failing:
            self._answer(503, b"")
        else:
            self._answer(200, server.folder.joinpath(*rest[1:]).read_bytes())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(folder: str, port: str, other_port: str) -> None:
    with serve(Path(folder), int(port)):
        _Server(Path(folder), int(other_port)).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
