"""PostgreSQL on this machine, with one empty database and no passwords, on loopback alone."""

import contextlib
import os
import pwd
import re
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Literal, overload

import psycopg

from deploy.local.container import container
from deploy.local.guarding import Guard, guarded, last_words
from deploy.local.ports import free_ports
from deploy.local.server import START_SECONDS, Server
from deploy.local.waiting import until
from deploy.local.ways import HOST, How, WayClosed, first_open, must_listen

ADDRESS: Final = "PAIRSCORE_POSTGRES_URL"
IMAGE: Final = "postgres:15"

_REMEDY = (
    "install PostgreSQL (Debian: apt install postgresql; macOS: brew install postgresql@15), "
    f"or set {ADDRESS} to one, or start Docker"
)
_USER, _DATABASE = "pairscore", "postgres"
_ASK_SECONDS = 2
_NUMBER = re.compile(r"\d+")
# Not on the PATH where several versions are kept apart: Debian's, Homebrew's two, Fedora's.
_KEPT_APART = (
    "/usr/lib/postgresql/*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/pgsql-*/bin",
)


class Postgres:
    """A PostgreSQL that can be used; `url` leads to a database that tables can be made in."""

    def __init__(self, url: str, how: How) -> None:
        self.url = url
        self.how = how


class NativePostgres(Postgres, Server):
    """A process of ours, which keeps its port and data when it ends."""

    def __init__(
        self, guard: Guard, program: Path, data: Path, port: int, account: str | None
    ) -> None:
        Postgres.__init__(self, _url(port), "native")
        Server.__init__(
            self,
            guard,
            "postgres",
            # No socket in a folder that others use too.
            [program, "-D", data, "-h", HOST, "-p", str(port), "-c", "unix_socket_directories="],
            answers=lambda: _answers(port),
            account=account,
            # Its SIGTERM waits for clients to leave.
            stop_signal=signal.SIGINT,
        )


@overload
def postgres(
    *, native: Literal[True], environment: Mapping[str, str] = os.environ
) -> AbstractContextManager[NativePostgres]: ...


@overload
def postgres(
    *, native: bool = False, environment: Mapping[str, str] = os.environ
) -> AbstractContextManager[Postgres]: ...


def postgres(
    *, native: bool = False, environment: Mapping[str, str] = os.environ
) -> AbstractContextManager[Postgres]:
    """PostgreSQL while the context lasts: of the environment, in Docker, or as processes of ours.

    Args:
        native: only as processes of ours, which can be killed and made to hang.
        environment: where an address and the programs are looked for.

    Raises:
        Unavailable: on entering, if it cannot be had.
    """
    own = _processes(environment)
    ways: Sequence[AbstractContextManager[Postgres]] = (
        [own] if native else [_given(environment), _contained(), own]
    )
    return first_open("PostgreSQL", ways, _REMEDY)


@contextlib.contextmanager
def _given(environment: Mapping[str, str]) -> Iterator[Postgres]:
    url = environment.get(ADDRESS, "").strip()
    if not url:
        raise WayClosed(f"{ADDRESS} is not set")
    must_listen(ADDRESS, url, default_port=5432)
    yield Postgres(url, "environment")


@contextlib.contextmanager
def _contained() -> Iterator[Postgres]:
    [port] = free_ports(1)
    variables = {
        "POSTGRES_USER": _USER,
        "POSTGRES_DB": _DATABASE,
        "POSTGRES_HOST_AUTH_METHOD": "trust",
        "POSTGRES_INITDB_ARGS": "--encoding=UTF8 --locale=C",
    }
    with container(
        "postgres", IMAGE, ports={5432: port}, variables=variables, answers=lambda: _answers(port)
    ):
        yield Postgres(_url(port), "docker")


@contextlib.contextmanager
def _processes(environment: Mapping[str, str]) -> Iterator[NativePostgres]:
    programs = _programs(environment)
    [port] = free_ports(1)
    with guarded("postgres") as guard:
        account = _account()
        if account is not None:
            shutil.chown(guard.folder, account)
        data = guard.folder / "data"
        _initialise(guard, programs / "initdb", data, account)
        server = NativePostgres(guard, programs / "postgres", data, port, account)
        server.start()
        yield server


def _programs(environment: Mapping[str, str]) -> Path:
    """The folder of the programs: of the PATH, else the highest version of those kept apart."""
    if found := shutil.which("postgres", path=environment.get("PATH", "")):
        return Path(found).parent
    kept = [
        folder
        for pattern in _KEPT_APART
        for folder in Path("/").glob(pattern)
        if (folder / "postgres").exists()
    ]
    if not kept:
        raise WayClosed("postgres is not installed")
    return max(kept, key=lambda folder: [int(number) for number in _NUMBER.findall(str(folder))])


def _account() -> str | None:
    """The user that it has to run as, for it refuses to as root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


def _initialise(guard: Guard, program: Path, data: Path, account: str | None) -> None:
    log = guard.folder / "initdb.log"
    settings = ["--username", _USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"]
    # Only the start is not worth waiting for the disk; the server itself runs as it always does.
    pid = guard.start([program, "-D", data, *settings, "--no-sync"], log=log, account=account)
    if not until(lambda: guard.code(pid) is not None, START_SECONDS) or guard.code(pid) != 0:
        said = last_words(log.read_text(errors="replace"))
        raise WayClosed(f"PostgreSQL's data folder cannot be prepared: {said}")


def _url(port: int) -> str:
    return f"postgresql://{_USER}@{HOST}:{port}/{_DATABASE}"


def _answers(port: int) -> bool:
    # What a container does first listens on no port of ours; the answer settles it.
    try:
        with psycopg.connect(_url(port), connect_timeout=_ASK_SECONDS) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.Error:
        return False
