"""`make fleet`: Kafka, workers and a sink on this machine, kept running until Ctrl-C.

All data are in one folder and there again at the next start: what was published and not scored is
scored then. A Kafka that ends by itself is started again, as the services are.
"""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from deploy.local import fleet_kafka, fleet_programs
from deploy.local.broker import Kafka
from deploy.local.cluster import ADDRESS
from deploy.local.fleet_jobs import JobNews
from deploy.local.fleet_programs import Surroundings
from deploy.local.fleet_supervisor import Program, Supervisor
from deploy.local.guarding import guarded
from deploy.local.ports import free_ports, listens
from deploy.local.waiting import until
from pairscore.demo.dataset import CSV_NAME
from pairscore.errors import InputError
from pairscore.settings import read_settings
from shared.results import open_results
from shared.settings import StoreSettings, WorkerSettings, read_service_settings
from shared.shutdown import StopSignal

_RESULTS: Final = "PAIRSCORE_RESULTS"
_MODEL: Final = "PAIRSCORE_MODEL"
_NETWORKS: Final = "PAIRSCORE_FETCH__ALLOW_NETWORKS"
_DELAYS: Final = "PAIRSCORE_KAFKA__RETRY_DELAYS"
_POSTGRES: Final = "PAIRSCORE_POSTGRES_URL"

_EXPORTS: Final = "env"
_LOOK_SECONDS = 1.0
_STATUS_LOOKS, _HINT_LOOKS = 5, 30
_PORT_SECONDS = 6.0


def run_fleet(folder: Path, workers: int, environment: Mapping[str, str] = os.environ) -> None:
    """Keep a fleet running, until an exception ends it.

    Args:
        folder: where its data are.
        workers: how many.
        environment: settings in it are the services', and win over those that are chosen here.

    Raises:
        KeyboardInterrupt: asked to end; all has ended in order.
        PairscoreError: it cannot be had, in one line.
    """
    # A mistake in them is said before anything is started.
    read_service_settings(WorkerSettings)
    environment = _without_own_kafka(environment, folder / _EXPORTS)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone_in(folder))
        cluster = stack.enter_context(fleet_kafka.kept_kafka(folder / "kafka", environment))
        _say(fleet_kafka.describe(cluster))
        if cluster.how == "docker":
            _say("  what is in it is gone when it ends; with Java and Maven it would be kept")
        around = Surroundings(_settings(folder, cluster, environment), folder / "logs")
        fleet_kafka.create(around.settings().kafka)
        stop = StopSignal()
        guard = stack.enter_context(guarded("fleet"))
        supervisor = stack.enter_context(Supervisor(guard, stop, _say))
        stop.install()
        sink = "postgres" if environment.get(_POSTGRES) else "csv"
        _start(supervisor, folder, around, workers, sink)
        try:
            _keep(supervisor, cluster, folder, around, sink)
        except KeyboardInterrupt:
            _say("ending: what workers have is finished first; Ctrl-C again ends it at once")
            raise


def _start(
    supervisor: Supervisor, folder: Path, around: Surroundings, workers: int, sink: str
) -> None:
    for log in around.logs.glob("*.log"):
        log.replace(log.with_suffix(".log.1"))
    around.logs.mkdir(exist_ok=True)
    port = _kept_port(folder / "demo-port")
    services = fleet_programs.services(around, workers, sink)
    demo = fleet_programs.pictures(folder / "demo", port, around.logs / "demo-data.log")
    supervisor.start(demo, *services)
    model = around.environment[_MODEL]
    _say(f"starting: sink {sink}, {_workers(workers)} with the model {model}; logs: {around.logs}")
    if model == "demo":
        _say(
            f"  it only knows coloured shapes; {_MODEL}=openai/clip-vit-base-patch32 is a real one"
        )
    networks = around.environment[_NETWORKS]
    _say(f"  images may come from public addresses{networks and f', and {networks}'} ({_NETWORKS})")


def _keep(
    supervisor: Supervisor, cluster: Kafka, folder: Path, around: Surroundings, sink: str
) -> None:
    store = {"results": around.environment[_RESULTS]}
    news = JobNews(open_results(read_settings(StoreSettings, store)), _say)
    looks, told = 0, False
    while True:
        supervisor.wait(_LOOK_SECONDS)
        looks += 1
        if fleet_kafka.revive(cluster):
            _say("Kafka had ended; it runs again")
        missing = [program.name for program in supervisor.unready()]
        if not told and not missing:
            told = True
            _say(_commands(supervisor.programs, folder, around, sink))
        elif not told and looks % _HINT_LOOKS == 0:
            _say(f"still waiting for {', '.join(missing)}; logs: {around.logs}")
        if looks % _STATUS_LOOKS == 0:
            news.tell()


def _without_own_kafka(environment: Mapping[str, str], exports: Path) -> Mapping[str, str]:
    """The environment, without the address that a terminal has of an earlier fleet's Kafka."""
    given = environment.get(ADDRESS, "")
    if not exports.is_file() or _export(ADDRESS, given) not in exports.read_text().splitlines():
        return environment
    return {name: value for name, value in environment.items() if name != ADDRESS}


def _export(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}"


def _settings(folder: Path, cluster: Kafka, environment: Mapping[str, str]) -> Mapping[str, str]:
    """What the environment says, or else suits a fleet that is tried out."""
    chosen = {
        ADDRESS: cluster.bootstrap_servers,
        _MODEL: environment.get(_MODEL) or "demo",
        # Where the demo's pictures are served.
        _NETWORKS: environment.get(_NETWORKS, "127.0.0.1/32"),
        _RESULTS: str(Path(environment.get(_RESULTS) or folder / "results").absolute()),
    }
    if cluster.how != "environment":
        # What is dead in the demo's data is given up after seconds, not minutes.
        chosen[_DELAYS] = environment.get(_DELAYS) or "1,5"
    return chosen


def _commands(programs: list[Program], folder: Path, around: Surroundings, sink: str) -> str:
    """What to try, once the fleet is ready; writes the file that other terminals take it from."""
    exports = folder / _EXPORTS
    lines = [_export(name, value) for name, value in around.environment.items()]
    exports.write_text("".join(f"{line}\n" for line in lines))
    python = shlex.quote(str(_short(Path(sys.executable))))
    demo, settings = (shlex.quote(str(path)) for path in (folder / "demo" / CSV_NAME, exports))
    metrics = [
        f"  {program.name:<12} {url}"
        for program in programs
        if (url := fleet_programs.metrics_url(program))
    ]
    return "\n".join(
        [
            "",
            "ready. In another terminal, in this folder:",
            f"  . {settings}",
            *(f"    {line}" for line in lines),
            *([f"  and what {_POSTGRES} is here"] if sink == "postgres" else []),
            f"  {python} -m producer csv {demo} --wait   # a minute: some servers are dead",
            f"  {python} -m producer csv YOUR.csv --wait",
            f"  {python} -m sink status",
            f"  {python} -m worker   # one more",
            f"  {python} -m producer api   # the same over HTTP: docs/api.md",
            "metrics, and /readyz beside them:",
            *metrics,
            f"Ctrl-C ends it; what is in {folder} is there again at the next start",
            "",
        ]
    )


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(
            f"{folder}: another fleet runs there; end it, or name another folder"
        ) from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()


def _kept_port(file: Path) -> int:
    """The port of the last time, so that the URLs of what was published then still lead there."""
    with contextlib.suppress(OSError, ValueError):
        port = int(file.read_text())
        # Of a fleet that was killed, the last process may be about to end.
        if until(lambda: not listens(port), _PORT_SECONDS):
            return port
    [port] = free_ports(1)
    file.write_text(f"{port}\n")
    return port


def _workers(number: int) -> str:
    return f"{number} worker{'s' * (number != 1)}"


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
