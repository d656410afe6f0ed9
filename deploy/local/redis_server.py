"""Redis on this machine; what it holds is gone when it ends, as befits a cache."""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Literal, overload

from deploy.local.container import container
from deploy.local.guarding import Guard, guarded
from deploy.local.ports import free_ports
from deploy.local.server import Server
from deploy.local.ways import HOST, How, WayClosed, first_open, must_listen

ADDRESS: Final = "PAIRSCORE_REDIS__URL"
IMAGE: Final = "redis:7"

_REMEDY = (
    "install Redis (Debian: apt install redis-server; macOS: brew install redis), "
    f"or set {ADDRESS} to one, or start Docker"
)
_ASK_SECONDS = 1.0


class Redis:
    """A Redis that can be used."""

    def __init__(self, url: str, how: How) -> None:
        self.url = url
        self.how = how


class NativeRedis(Redis, Server):
    """A process of ours, which keeps its port when it ends."""

    def __init__(self, guard: Guard, program: str, port: int) -> None:
        Redis.__init__(self, _url(port), "native")
        command = [program, "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"]
        Server.__init__(self, guard, "redis", command, answers=lambda: _answers(port))


@overload
def redis(
    *, native: Literal[True], environment: Mapping[str, str] = os.environ
) -> AbstractContextManager[NativeRedis]: ...


@overload
def redis(
    *, native: bool = False, environment: Mapping[str, str] = os.environ
) -> AbstractContextManager[Redis]: ...


def redis(
    *, native: bool = False, environment: Mapping[str, str] = os.environ
) -> AbstractContextManager[Redis]:
    """Redis while the context lasts: of the environment, in Docker, or as a process of ours.

    Args:
        native: only as a process of ours, which can be killed and made to hang.
        environment: where an address and the program are looked for.

    Raises:
        Unavailable: on entering, if it cannot be had.
    """
    own = _process(environment)
    ways: Sequence[AbstractContextManager[Redis]] = (
        [own] if native else [_given(environment), _contained(), own]
    )
    return first_open("Redis", ways, _REMEDY)


@contextlib.contextmanager
def _given(environment: Mapping[str, str]) -> Iterator[Redis]:
    url = environment.get(ADDRESS, "").strip()
    if not url:
        raise WayClosed(f"{ADDRESS} is not set")
    must_listen(ADDRESS, url, default_port=6379)
    yield Redis(url, "environment")


@contextlib.contextmanager
def _contained() -> Iterator[Redis]:
    [port] = free_ports(1)
    with container(
        "redis", IMAGE, ports={6379: port}, variables={}, answers=lambda: _answers(port)
    ):
        yield Redis(_url(port), "docker")


@contextlib.contextmanager
def _process(environment: Mapping[str, str]) -> Iterator[NativeRedis]:
    program = shutil.which("redis-server", path=environment.get("PATH", ""))
    if program is None:
        raise WayClosed("redis-server is not installed")
    [port] = free_ports(1)
    with guarded("redis") as guard:
        server = NativeRedis(guard, program, port)
        server.start()
        yield server


def _url(port: int) -> str:
    return f"redis://{HOST}:{port}/0"


def _answers(port: int) -> bool:
    # One that is still loading, or that a container's port leads to before it runs, says otherwise.
    try:
        with socket.create_connection((HOST, port), _ASK_SECONDS) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
    except OSError:
        return False
