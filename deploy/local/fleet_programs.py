"""The programs of a fleet on one machine: what each is started with."""

import http.client
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.local.fleet_supervisor import Program
from deploy.local.ports import free_ports, listens
from deploy.local.ways import HOST
from pairscore.settings import ENV_PREFIX
from shared.settings import WorkerSettings, read_service_settings

DEMO_ROWS: Final = 300

_ASK_SECONDS = 1.0
_MARGIN_SECONDS = 5.0
_SINK_SECONDS = 15.0
_PRODUCER_SECONDS = 10.0
_PICTURES_SECONDS = 5.0
_PORT: Final = "PAIRSCORE_TELEMETRY__PORT"
_LOG_FORMAT: Final = "PAIRSCORE_TELEMETRY__LOG_FORMAT"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all programs of a fleet have: settings beside those of the environment, and logs."""

    environment: Mapping[str, str]
    logs: Path

    def settings(self) -> WorkerSettings:
        """A worker's settings, which have those of Kafka.

        Raises:
            SettingsError: one cannot be used, be it the environment's.
        """
        overrides: dict[str, Any] = {}
        for name, value in self.environment.items():
            group, _, field = name.removeprefix(ENV_PREFIX).lower().partition("__")
            if group in WorkerSettings.model_fields and value:
                if field:
                    overrides.setdefault(group, {})[field] = value
                else:
                    overrides[group] = value
        return read_service_settings(WorkerSettings, overrides)


def services(around: Surroundings, workers: int, sink: str) -> list[Program]:
    """A sink, and as many workers.

    Args:
        around: what they have in common.
        workers: how many.
        sink: `csv` or `postgres`.

    Raises:
        SettingsError: a setting of the environment cannot be used.
    """
    seconds = around.settings().worker.shutdown_seconds + _MARGIN_SECONDS
    first, *ports = free_ports(workers + 1)
    return [
        _service(around, "sink", f"sink {sink}", ["sink", sink], first, _SINK_SECONDS),
        *(
            _service(around, "worker", f"worker {number}", ["worker"], port, seconds)
            for number, port in enumerate(ports, 1)
        ),
    ]


def metrics_url(program: Program) -> str | None:
    """Where a service says how it is; None if the program is no service."""
    port = program.environment.get(_PORT)
    return None if port is None else f"http://{HOST}:{port}/metrics"


def pictures(folder: Path, port: int, log: Path) -> Program:
    """The demo's data set, made in `folder` where it is not there, and served."""
    return Program(
        name="demo data",
        kind="pictures",
        arguments=[
            *("-m", "pairscore", "demo", str(folder)),
            *("--rows", str(DEMO_ROWS), "--port", str(port), "--serve"),
        ],
        environment={},
        log=log,
        ready=lambda: listens(port),
        stop_seconds=_PICTURES_SECONDS,
    )


def producer(around: Surroundings, source: Path) -> Program:
    """A CSV published, and waited for."""
    # Of a Kafka that has just begun, warnings that would alarm.
    quiet = {"PAIRSCORE_TELEMETRY__LOG_LEVEL": "error", _LOG_FORMAT: "text"}
    # It shows bars where it is told that what it says goes to a terminal, as it will.
    shown = {"FORCE_COLOR": "1", "COLUMNS": str(shutil.get_terminal_size().columns)}
    return Program(
        name="producer",
        kind="producer",
        arguments=["-m", "producer", "csv", str(source), "--wait"],
        environment={**around.environment, **quiet, **(shown if sys.stdout.isatty() else {})},
        log=around.logs / "producer.log",
        ready=lambda: True,
        stop_seconds=_PRODUCER_SECONDS,
    )


def _service(
    around: Surroundings, kind: str, name: str, arguments: list[str], port: int, seconds: float
) -> Program:
    return Program(
        name=name,
        kind=kind,
        arguments=["-m", *arguments],
        environment={
            **around.environment,
            "PAIRSCORE_TELEMETRY__HOST": HOST,
            _PORT: str(port),
            # People read them, although they go to files.
            _LOG_FORMAT: os.environ.get(_LOG_FORMAT) or "text",
        },
        log=around.logs / f"{name.replace(' ', '-')}.log",
        ready=lambda: _is_ready(port),
        stop_seconds=seconds,
    )


def _is_ready(port: int) -> bool:
    with closing(http.client.HTTPConnection(HOST, port, timeout=_ASK_SECONDS)) as connection:
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
