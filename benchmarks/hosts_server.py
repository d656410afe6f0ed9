"""Pictures on many hosts of loopback, some of them slow, and when each was asked.

`python -m benchmarks.hosts_server FOLDER` prints its port. What follows a `?` is put behind a
picture. `127.0.9.x` answer after a second, all others at once; `/asked` on `127.0.0.1` says, for
each host, when it was asked (monotonic, in seconds) and by how many at once.
"""

import asyncio
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import requests

from benchmarks.server import bodies_of, port_of, response

_SLOW: Final = "127.0.9."
_SECONDS: Final = 1.0


class _Log:
    """When hosts were asked."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)
        self.busy: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()

    def begins(self, host: str) -> None:
        self.times[host].append(time.monotonic())
        self.busy[host] += 1
        self.peak[host] = max(self.peak[host], self.busy[host])

    def ends(self, host: str) -> None:
        self.busy[host] -= 1


class _Connection(asyncio.Protocol):
    def __init__(self, bodies: dict[bytes, bytes], log: _Log) -> None:
        self._bodies = bodies
        self._log = log
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._host = str(transport.get_extra_info("sockname")[0])

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            target = head.split(b" ", 2)[1]
            if target == b"/asked":
                said = {host: [t, self._log.peak[host]] for host, t in self._log.times.items()}
                self._transport.write(response(200, json.dumps(said).encode()))
                continue
            path, _, salt = target.partition(b"?")
            self._log.begins(self._host)
            wait = _SECONDS if self._host.startswith(_SLOW) else 0.0
            answer = response(200, self._bodies[path], salt)
            asyncio.get_running_loop().call_later(wait, self._end, answer)

    def _end(self, answer: bytes) -> None:
        self._log.ends(self._host)
        if not self._transport.is_closing():
            self._transport.write(answer)


class Hosts:
    """What the server knows."""

    def __init__(self, port: int) -> None:
        self.port = port

    def asked(self) -> dict[str, tuple[list[float], int]]:
        """For each host when it was asked (monotonic), and by how many at once at most."""
        found: dict[str, Any] = requests.get(
            f"http://127.0.0.1:{self.port}/asked", timeout=30
        ).json()
        return {host: (times, peak) for host, (times, peak) in found.items()}


async def _serve(bodies: dict[bytes, bytes]) -> None:
    log = _Log()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(bodies, log), "0.0.0.0", 0, backlog=512
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def many_hosts(folder: Path) -> Iterator[Hosts]:
    """The server while the block runs."""
    with port_of("benchmarks.hosts_server", folder) as port:
        yield Hosts(port)


if __name__ == "__main__":
    asyncio.run(_serve(bodies_of(Path(sys.argv[1]))))
