"""What every sink runs in: logs, metrics and health, signals, the watchdog, and the loop itself."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from shared.settings import SinkSettings
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from shared.telemetry.logs import configure_logging
from shared.telemetry.metrics import Metrics
from shared.telemetry.server import serving
from shared.telemetry.traces import Tracer, tracing
from shared.watchdog import Watchdog
from sink.intake import Intake
from sink.loop import Loop, Source, Store

END_SECONDS: Final = 10.0
"""So long a sink may take over ending, whatever it waits for: what is stored is safe anyhow."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a sink is told by, and tells of itself by."""

    stop: StopSignal
    health: Health
    metrics: Metrics
    tracer: Tracer


def take_signals() -> StopSignal:
    """Have signals ask the process to end; before anything that a sink may have to wait for."""
    stop = StopSignal()
    stop.install(END_SECONDS)
    return stop


@contextmanager
def surroundings(settings: SinkSettings, name: str, stop: StopSignal) -> Iterator[Surroundings]:
    """Take over the process's logs, and open its port, while the block runs.

    Raises:
        EnvironmentFault: the port cannot be had.
    """
    configure_logging(settings.telemetry, name)
    health = Health(settings.sink.stall_seconds)
    metrics = Metrics("sink")
    with (
        serving(settings.telemetry, metrics, health),
        tracing(settings.telemetry, name.replace(" ", "-")) as tracer,
    ):
        yield Surroundings(stop, health, metrics, tracer)


def make_loop(
    settings: SinkSettings, around: Surroundings, source: Source, intake: Intake, store: Store
) -> Loop:
    """The loop that moves records from `source` to `store`."""
    return Loop(
        source,
        intake,
        store,
        options=settings.sink,
        stop=around.stop,
        health=around.health,
        metrics=around.metrics,
        tracer=around.tracer,
    )


def run_loop(settings: SinkSettings, around: Surroundings, loop: Loop, name: str) -> int:
    """Run until asked to end; the exit code."""
    with Watchdog(around.health, settings.sink.stall_seconds, name=name):
        _log.info("storing outcomes")
        left = loop.run()
    signal = {"signal": around.stop.number}
    if left:
        _log.warning(
            "asked to end; the last %d records that were taken could not be stored, and are taken "
            "again when a sink is started",
            left,
            extra=signal,
        )
    else:
        _log.info("asked to end; everything taken is stored", extra=signal)
    return 0
