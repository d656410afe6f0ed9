"""The commands of `python -m sink`. Settings are read here, and nowhere else in the sink."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, Final

from shared.service import run_service
from shared.settings import SinkSettings, read_service_settings
from sink.table import terminal_width

_EPILOG: Final = (
    "Every setting is a variable PAIRSCORE_*: docs/reference.md. SIGTERM ends a sink in order. "
    "Exit codes: 0 asked to end, 2 settings or input, 3 Kafka, the store or this machine, 70 it "
    "stood still, 1 a defect."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command as this process; the exit code."""
    options = _parser().parse_args(arguments)
    name = "sink" if options.command == "status" else f"sink {options.command}"
    return run_service(name, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    settings = _settings(options)
    # What a command needs is imported with it: each has a driver of its own.
    if options.command == "csv":
        from sink.csv.service import serve_csv

        return serve_csv(settings)
    if options.command == "postgres":
        from sink.postgres.service import serve_postgres

        return serve_postgres(settings)
    from sink.status import show_status

    width = terminal_width()
    sys.stdout.write(show_status(settings, options.job, as_json=options.json, width=width))
    return 0


def _settings(options: argparse.Namespace) -> SinkSettings:
    overrides: dict[str, Any] = {}
    names: dict[tuple[str, ...], str] = {}
    if getattr(options, "results", None) is not None:
        overrides["results"] = options.results
        overrides["postgres_url"] = None  # who names a folder wants to see that
        names["results",] = "--results"
    return read_service_settings(SinkSettings, overrides, option_names=names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sink",
        description="Store the outcomes on `scores`, each row's exactly once.",
        epilog=_EPILOG,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    csv = _command(commands, "csv", "write a CSV file and a manifest for every complete job")
    _command(commands, "postgres", "store every outcome in a table; several may run at once")
    status = _command(commands, "status", "show how far the jobs are")
    status.add_argument("job", nargs="?", metavar="JOB", help="one job, with reasons and models")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    for command in (csv, status):
        command.add_argument(
            "--results", metavar="DIR", help="folder of results; default PAIRSCORE_RESULTS"
        )
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=text, description=f"{text.capitalize()}.", epilog=_EPILOG)
