"""Serves a folder from memory on loopback, cheaply, in a process of its own."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _Connection(asyncio.Protocol):
    def __init__(self, bodies: dict[bytes, bytes]) -> None:
        self._bodies = bodies
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            path, _, salt = head.split(b" ", 2)[1].partition(b"?")
            body = self._bodies.get(path)
            self._transport.write(response(404, b"") if body is None else response(200, body, salt))


def response(status: int, body: bytes, salt: bytes = b"") -> bytes:
    """A whole response; `salt` is behind the body."""
    length = len(body) + len(salt)
    head = f"HTTP/1.1 {status} .\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n"
    return head.encode() + body + salt


async def _serve(bodies: dict[bytes, bytes]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(bodies), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def bodies_of(folder: Path) -> dict[bytes, bytes]:
    """The files of a folder by their paths on a server."""
    return {b"/" + file.name.encode(): file.read_bytes() for file in folder.iterdir()}


@contextmanager
def port_of(module: str, folder: Path) -> Iterator[int]:
    """The port of `python -m module folder`, which prints it, while the block runs."""
    command = [sys.executable, "-m", module, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The base URL of `folder` (no slash at the end) while the block runs.

    What follows a `?` is put behind a picture, which is another file for that and looks the same.
    """
    with port_of("benchmarks.server", folder) as port:
        yield f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    asyncio.run(_serve(bodies_of(Path(sys.argv[1]))))
