"""Starts real services on this machine: `python -m deploy.local up`.

`up` says on standard output where they are, as lines for a shell, and keeps them running until
Ctrl-C or SIGTERM. `fetch` only fetches what Kafka needs, so that a later start does not wait.
`fleet` keeps Kafka, workers and a sink running, `demo` takes the demo's data through them.
"""

import argparse
import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn, TypeAlias

from deploy.local import (
    Kafka,
    NativeKafka,
    NativePostgres,
    NativeRedis,
    Postgres,
    Redis,
    Unavailable,
    cluster,
    kafka,
    postgres,
    postgres_server,
    redis,
    redis_server,
)
from deploy.local.guarding import last_words
from deploy.local.jars import java, kafka_jars
from pairscore.cli.streams import LenientStream
from pairscore.errors import EnvironmentFault, PairscoreError
from shared.service import EXIT_INTERRUPTED

Service: TypeAlias = Kafka | Redis | Postgres

_LOOK_SECONDS: Final = 1.0
_MOST_WORKERS: Final = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (those of the process by default); the exit code."""
    options = _parser().parse_args(arguments)
    # Who reads along may leave; the services are there for others.
    sys.stdout, sys.stderr = LenientStream(sys.stdout), LenientStream(sys.stderr)
    # A supervisor's SIGTERM ends the services in order, as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(options)
    except PairscoreError as error:
        sys.stderr.write(f"deploy.local: {error}\n")
        return error.exit_code
    except BrokenPipeError as error:
        # Of a guard, which took its services with it.
        sys.stderr.write(f"deploy.local: {error}\n")
        return EnvironmentFault.exit_code
    except KeyboardInterrupt:
        done = options.command != "demo"  # the others are there to be ended so
        sys.stderr.write(f"deploy.local: {'ended' if done else 'interrupted'}\n")
        return 0 if done else EXIT_INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    # What the last two need is imported with them: the others have no use for all of it.
    match options.command:
        case "up":
            up(options.brokers, with_redis=options.redis, with_postgres=options.postgres)
        case "fleet":
            from deploy.local.fleet import run_fleet

            run_fleet(options.folder, options.workers)
        case "demo":
            from deploy.local.fleet_demo import run_demo

            return run_demo(options.folder)
        case _:
            java(os.environ)
            kafka_jars(os.environ)
    return 0


def up(brokers: int, *, with_redis: bool, with_postgres: bool) -> NoReturn:
    """Keep services running, until an exception (KeyboardInterrupt) ends it.

    Raises:
        Unavailable: one cannot be had, or ended by itself.
    """
    services: dict[str, Service] = {}
    with contextlib.ExitStack() as stack:
        services["Kafka"] = broker = stack.enter_context(kafka(brokers))
        _export(cluster.ADDRESS, broker.bootstrap_servers)
        if with_redis:
            services["Redis"] = cache = stack.enter_context(redis())
            _export(redis_server.ADDRESS, cache.url)
        if with_postgres:
            services["PostgreSQL"] = database = stack.enter_context(postgres())
            _export(postgres_server.ADDRESS, database.url)
        how = ", ".join(f"{name} ({service.how})" for name, service in services.items())
        sys.stderr.write(f"deploy.local: running {how}; Ctrl-C ends what was started\n")
        while True:
            for name, service in services.items():
                if log := _log_of_ended(service):
                    said = last_words(log.read_text(errors="replace"))
                    raise Unavailable(f"{name} ended by itself; its log says: {said}")
            time.sleep(_LOOK_SECONDS)


def _log_of_ended(service: Service) -> Path | None:
    match service:
        case NativeKafka():
            return next(
                (service.log(node) for node in service.nodes if not service.running(node)), None
            )
        case NativeRedis() | NativePostgres():
            return None if service.running else service.log
    return None


def _export(variable: str, value: str) -> None:
    sys.stdout.write(f"export {variable}={shlex.quote(value)}\n")
    sys.stdout.flush()


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"a number from 1 to {_MOST_WORKERS}, not {text!r}")
    return int(text)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up_parser = commands.add_parser("up", help="start services and keep them running")
    up_parser.add_argument("--brokers", type=int, choices=(1, 3), default=1, help="of Kafka")
    for name in ("redis", "postgres"):
        up_parser.add_argument(
            f"--no-{name}", dest=name, action="store_false", help="do without it"
        )
    commands.add_parser("fetch", help="fetch Kafka's jars with Maven")
    fleet_parser = commands.add_parser("fleet", help="keep Kafka, workers and a sink running")
    fleet_parser.add_argument("folder", type=Path, metavar="DIR", help="of its data")
    fleet_parser.add_argument("--workers", type=_workers, default=2, help="how many; default 2")
    demo_parser = commands.add_parser("demo", help="take the demo's data through a fleet")
    demo_parser.add_argument("folder", type=Path, metavar="DIR", help="where the data set goes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
