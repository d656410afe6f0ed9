"""`python -m worker`: reads its settings, puts the worker together, runs it until asked to end."""

import argparse
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final

from confluent_kafka import Consumer, Producer

from pairscore import garbage
from pairscore.settings import Settings
from shared.clients import connect, make_consumer, make_producer
from shared.connection import Connection
from shared.identity import process_identity
from shared.limits import Coordinator, check_coordinators, check_room
from shared.service import end_process, run_service
from shared.settings import WorkerSettings, read_service_settings
from shared.shutdown import StopSignal, try_to_close
from shared.telemetry.health import Health
from shared.telemetry.logs import configure_logging
from shared.telemetry.metrics import Metrics
from shared.telemetry.server import serving
from shared.telemetry.traces import tracing
from shared.topics import Topics, check_topics
from shared.watchdog import Watchdog
from worker.backpressure import Backpressure
from worker.cancellations import READ_SECONDS, Cancellations
from worker.intake import Intake
from worker.ledger import Ledger
from worker.loop import LAST_SECONDS, Pace, Parts, Worker, pause_and_resume
from worker.meter import Meter, Shown
from worker.parking import Parking
from worker.publication import Publication, Publisher
from worker.scoring import Scorer, Scoring, none_held
from worker.transactions import Transactions

GROUP: Final = "worker"
_QUEUE_PARTS: Final = 6
_SCORER_SECONDS: Final = 240.0
_CLOSE_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)
_READING: Final = {
    "enable.partition.eof": True,
    # A pause throws away what was fetched ahead.
    "fetch.message.max.bytes": 131_072,
    "queued.max.messages.kbytes": 16_384,
}
_OPTIONS: Final = {
    "model": "Hugging Face CLIP id, local folder, or `demo`",
    "device": "auto, cpu, cuda or mps",
    "precision": "auto, fp32, fp16, bf16 or int8",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker as this process; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m worker",
        description="Take rows from Kafka, score them, publish the outcomes, each exactly once.",
        epilog="Every setting is a variable PAIRSCORE_*: docs/reference.md. "
        "SIGTERM ends it in order. Exit codes: 0 asked to end, 2 settings, 3 Kafka, the model or "
        "this machine, 70 it stood still, 1 a defect.",
    )
    for name, meaning in _OPTIONS.items():
        parser.add_argument(f"--{name}", help=meaning)
    parser.add_argument("--id", help="its name, which no other worker has; default the host's")
    options = vars(parser.parse_args(arguments))
    return run_service("worker", lambda: _main(options))


def _main(options: dict[str, str | None]) -> int:
    overrides: dict[str, Any] = {n: options[n] for n in _OPTIONS if options[n] is not None}
    names: dict[tuple[str, ...], str] = {(name,): f"--{name}" for name in _OPTIONS}
    if options["id"] is not None:
        overrides["worker"] = {"id": options["id"]}
        names["worker", "id"] = "--id"
    settings = read_service_settings(WorkerSettings, overrides, option_names=names)
    run(settings, install(settings))
    return 0


def install(settings: WorkerSettings) -> StopSignal:
    """Make a worker's process of this one: what ends it, and where its log goes."""
    stop = StopSignal()
    stop.install(settings.worker.shutdown_seconds + LAST_SECONDS)
    configure_logging(settings.telemetry, "worker")
    return stop


def run(
    settings: WorkerSettings,
    stop: StopSignal,
    *,
    make_scorer: Callable[[Settings], Scorer] | None = None,
    make_transactions: Callable[[Producer, Consumer], Transactions] = Transactions,
    ledger: Ledger[Publication] | None = None,
) -> None:
    """Put a worker together and run it until `stop`; tests and benchmarks put in parts of theirs.

    Raises:
        PairscoreError: what keeps it from working, in one line.
    """
    topics = Topics.of(settings.kafka)
    with ExitStack() as stack:
        with stop.starting():
            name = stack.enter_context(process_identity("worker", settings.worker.id))
            health = Health(settings.worker.stall_seconds)
            metrics = Metrics("worker")
            meter = Meter(metrics, health)
            meter.reads(topics.to_score)
            connection = Connection(settings.kafka)
            admin, found = connect(connection)
            check_topics(settings.kafka, admin, found, topics.all)
            check_room(settings.kafka, admin, topics.of_outcomes)
            check_coordinators(settings.kafka, admin, found, Coordinator)
            # Not before: what keeps a worker from beginning is all that is said.
            stack.enter_context(serving(settings.telemetry, metrics, health))
            tracer = stack.enter_context(tracing(settings.telemetry, "worker", name))
            cancelled = stack.enter_context(
                Cancellations(connection, topics.cancellations, group=GROUP)
            )
            # Before it joins: partitions should not wait for a model that is being loaded.
            health.ready(False, "loading the model")
            own = _of_one_attempt(settings)
            scorer = (make_scorer or _load)(own)
            stack.callback(try_to_close, scorer.close, "scorer", _CLOSE_SECONDS)
            meter.model(_describe(scorer))
            if isinstance(scorer, Shown):
                meter.scorer(scorer)
            cancelled.wait(READ_SECONDS)
            garbage.set_aside()
            health.ready(False, "no partitions are assigned")
            consumer = make_consumer(connection, group=GROUP, extra=_READING)
            producer = make_producer(connection, transactional_id=f"worker.{name}")
            pause, resume = pause_and_resume(consumer)
            parts = Parts(
                consumer=consumer,
                # The classic assignor hands out everything anew each time.
                assign=consumer.incremental_assign
                if settings.kafka.group_protocol == "consumer"
                else consumer.assign,
                transactions=make_transactions(producer, consumer),
                ledger=ledger or Ledger(ahead=topics.interactive),
                scoring=Scoring(
                    scorer,
                    least=4 * settings.fetch.concurrency,
                    most=settings.worker.in_flight,
                    patience=_patience(own),
                    held=(lambda: scorer.fetched.held) if isinstance(scorer, Shown) else none_held,
                ),
                parking=Parking(),
                backpressure=Backpressure(
                    limit=settings.window,
                    limit_bytes=settings.worker.window_bytes,
                    reserve=settings.window,
                    urgent=topics.interactive,
                    pause=pause,
                    resume=resume,
                ),
                intake=Intake(topics, settings.kafka.max_message_bytes, traced=tracer.on),
                cancelled=cancelled,
                publisher=Publisher(
                    settings.kafka,
                    attempts=settings.fetch.attempts,
                    fingerprint=scorer.fingerprint,
                    worker=name,
                ),
                meter=meter,
                tracer=tracer,
            )
            pace = Pace(
                window=settings.window,
                window_bytes=settings.worker.window_bytes,
                rows=settings.worker.commit_rows,
                interval=settings.worker.commit_interval,
                shutdown=settings.worker.shutdown_seconds,
            )
        _log.info("worker %s reads %s", name, ", ".join(topics.to_score))
        with Watchdog(health, settings.worker.stall_seconds, name="worker"):
            Worker(parts, topics, pace).run(stop)
        _log.info("worker %s has ended", name)


def _load(settings: Settings) -> Scorer:
    from pairscore.scorer import Scorer as RealScorer  # torch: seconds, after what can be refused

    return RealScorer(settings)


def _describe(scorer: Scorer) -> dict[str, str]:
    model = getattr(scorer, "model", None)  # what a benchmark puts in its place has none
    names = ("name", "backend", "device", "precision")
    name, *rest = (str(getattr(model, each, "")) for each in names)
    labels = {"fingerprint": scorer.fingerprint, "model": name}
    return labels | dict(zip(names[1:], rest, strict=True))


def _of_one_attempt(settings: WorkerSettings) -> Settings:
    """The scorer's settings: further attempts are the retry tiers' to make."""
    own = {name: getattr(settings, name) for name in Settings.model_fields}
    if settings.kafka.retry_delays:
        fetch = settings.fetch
        # What waits holds up what is behind it in its partition.
        patience = fetch.queue_timeout or fetch.timeout / _QUEUE_PARTS
        own["fetch"] = fetch.model_copy(update={"attempts": 1, "queue_timeout": patience})
    return Settings.model_construct(**own)


def _patience(own: Settings) -> float | None:
    """How long a row may be in the scorer; None where it may wait for its host without end."""
    fetch = own.fetch
    if fetch.queue_timeout is None or fetch.attempts > 1:
        return None
    return fetch.queue_timeout + fetch.timeout + _SCORER_SECONDS


if __name__ == "__main__":
    end_process(main())
