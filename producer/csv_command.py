"""`python -m producer csv`: the one place where settings, Kafka and a CSV are wired together.

The port of /metrics, /livez and /readyz is opened only where `telemetry.port` is set: most often
this is a short command at somebody's terminal.
"""

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from confluent_kafka.admin import AdminClient
from rich.console import Console

from pairscore.csv_file import Survey, check_input, survey_input
from pairscore.csv_file.records import Record
from producer import summary
from producer.checks import check_job, check_kafka, check_rows, most_job_bytes
from producer.csv_rows import CsvRows
from producer.job import CsvJob, check_name, describe_job, name_job, read_deadline
from producer.job_log import JobLog
from producer.progress import Reporter, make_reporter
from producer.publication import Publication, Published
from producer.pulse import Pulse
from producer.transactions import CLOSING_SECONDS, Transactions
from producer.waiting import Waiting
from shared.connection import Connection
from shared.results import JobStatus, open_results
from shared.settings import ProducerSettings
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from shared.telemetry.logs import configure_logging
from shared.telemetry.metrics import PRODUCER_JOBS, PRODUCER_ROWS, PRODUCER_TRANSACTIONS, Metrics
from shared.telemetry.server import serving
from shared.telemetry.traces import tracing
from shared.topics import Topics

END_SECONDS: Final = 2 * CLOSING_SECONDS + 5.0
"""So long it may take over ending: a commit and an abort that get no answer, and the rest."""


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """What the command was told; names and defaults are those of `survey_input`."""

    source: Path
    job: str | None
    wait: bool
    url_column: str | None
    caption_column: str | None
    delimiter: str | None
    details: bool
    overwrite: bool
    deadline: str | None = None


def run_csv(options: CsvOptions, settings: ProducerSettings) -> None:
    """Check, publish and, if told so, wait; lines for people on stderr, a summary on stdout.

    Raises:
        InputError: the file, a column or the job's name cannot be used.
        EnvironmentFault: Kafka or the results store cannot be.
        KeyboardInterrupt: asked to end; how to go on has been said.
    """
    if options.job is not None:
        check_name(options.job)
    wanted = options.deadline
    deadline = None if wanted is None else read_deadline(wanted, datetime.now(UTC))
    check_input(options.source)
    connection, topics = Connection(settings.kafka), Topics.of(settings.kafka)
    admin = check_kafka(connection, topics)
    # Not before: a broker that does not answer is said in one line, which ends the command.
    configure_logging(settings.telemetry, "producer")
    with ExitStack() as stack:
        health, stop, metrics = Health(), StopSignal(), Metrics("producer")
        if settings.telemetry.port is not None:
            stack.enter_context(serving(settings.telemetry, metrics, health))
        errors = Console(stderr=True, soft_wrap=True)
        survey, job = _check(options, settings, admin, topics, errors, deadline)
        pulse = Pulse(stop, health)
        reporter = make_reporter(errors, survey.rows, pulse.clock)
        waiting = None
        if options.wait:
            results = open_results(settings)
            stack.callback(results.close)
            waiting = Waiting(
                results,
                job.job,
                dead_letters=topics.dead_letters,
                pulse=pulse,
                stored=reporter.stored,
                say=reporter.say,
            )
        publication = Publication(
            CsvRows(job.job, survey),
            job,
            transactions=Transactions(
                connection,
                f"producer.{job.job}",
                pulse=pulse,
                ended=lambda result: metrics.inc(PRODUCER_TRANSACTIONS, result=result),
            ),
            log=JobLog(connection, admin, topics.jobs, pulse, CsvJob),
            topics=topics,
            options=settings.producer,
            pulse=pulse,
            watcher=_Watcher(reporter, metrics, health, waiting),
            tracer=stack.enter_context(tracing(settings.telemetry, "producer")),
        )
        stop.install(END_SECONDS)
        with reporter:
            published = _publish(publication, reporter, metrics)
            status = None if waiting is None else _wait(waiting, reporter)
        said = summary.of_publishing(published) if status is None else summary.of_job(status)
        sys.stdout.write(f"{said}\n")


def _check(
    options: CsvOptions,
    settings: ProducerSettings,
    admin: AdminClient,
    topics: Topics,
    errors: Console,
    deadline: datetime | None,
) -> tuple[Survey, CsvJob]:
    """Everything about the file that can be known before it is published."""
    survey = survey_input(
        options.source,
        url_column=options.url_column,
        caption_column=options.caption_column,
        delimiter=options.delimiter,
        details=options.details,
        overwrite=options.overwrite,
    )
    job = describe_job(name_job(options.job, survey), survey, datetime.now(UTC), deadline)
    check_job(job, survey, most_job_bytes(admin, topics))
    check_rows(survey, job, settings.kafka)
    if deadline is not None:
        # Not refused: the same command may go on with a job after its deadline.
        over = ", which is over" if deadline <= datetime.now(UTC) else ""
        errors.out(f"wanted by {deadline.astimezone():%Y-%m-%d %H:%M %Z}{over}", highlight=False)
    for note in survey.notes:
        errors.out(note, highlight=False)
    return survey, job


def _publish(
    publication: Publication[Record, CsvJob], reporter: Reporter, metrics: Metrics
) -> Published:
    try:
        published = publication.run()
    except KeyboardInterrupt:
        reporter.say(publication.progress)
        raise
    if not published.was_closed:
        metrics.inc(PRODUCER_JOBS)
    return published


def _wait(waiting: Waiting, reporter: Reporter) -> JobStatus:
    try:
        return waiting.until_complete()
    except KeyboardInterrupt:
        reporter.say("all rows are published and will be scored; the same command waits again")
        raise


class _Watcher:
    """Passes on how publishing goes to those who want to know."""

    def __init__(
        self, reporter: Reporter, metrics: Metrics, health: Health, waiting: Waiting | None
    ) -> None:
        self._reporter = reporter
        self._metrics = metrics
        self._health = health
        self._waiting = waiting
        self._rows = 0

    def begins(self, start: int, *, closed: bool) -> None:
        """Publishing begins at that row."""
        if start and not closed:
            self._reporter.say(f"{start:,} rows are published already: going on with the next")
        self._health.ready(True)
        self._rows = start
        self._reporter.begins(start)

    def reached(self, rows: int) -> None:
        """So many rows are published."""
        self._metrics.inc(PRODUCER_ROWS, rows - self._rows)
        self._rows = rows
        self._reporter.reached(rows)
        if self._waiting is not None:
            self._waiting.look()
