"""`python -m producer cancel`: the one place where settings, Kafka and a job's name are wired."""

import sys

from pairscore.errors import InputError
from producer.job import OwnJob, check_name
from producer.job_log import JobLog
from producer.pulse import Pulse
from shared.cancellations import cancel
from shared.clients import connect, make_producer
from shared.connection import Connection
from shared.messages import JobMessage, JobState
from shared.settings import ServiceSettings
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from shared.telemetry.logs import configure_logging
from shared.topics import Topics, check_topics


def run_cancel(job: str, settings: ServiceSettings) -> None:
    """Cancel a job that is on `jobs`; one line on stdout says what that does.

    Raises:
        InputError: there is no such job.
        EnvironmentFault: Kafka cannot be worked with.
    """
    check_name(job, "JOB")
    connection, topics = Connection(settings.kafka), Topics.of(settings.kafka)
    admin, found = connect(connection)
    check_topics(settings.kafka, admin, found, (topics.jobs, topics.cancellations))
    configure_logging(settings.telemetry, "producer")
    log = JobLog(connection, admin, topics.jobs, Pulse(StopSignal(), Health()), OwnJob)
    known = log.find(job)
    if known is None:
        raise InputError(
            f"topic {topics.jobs} at {settings.kafka.bootstrap_servers} knows no job {job}, so "
            "nothing is cancelled; `python -m sink status` shows those that are stored"
        )
    cancel(connection, make_producer(connection, transactional_id=None), job)
    sys.stdout.write(f"{_done(known)}\n")


def _done(job: JobMessage) -> str:
    rows = "1 row" if job.rows_published == 1 else f"{job.rows_published:,} rows"
    later = "; so do those that are still published" if job.state is JobState.OPEN else ""
    return (
        f"job {job.job} is cancelled: what is not scored of its {rows} comes out as "
        f"`cancelled`{later}"
    )
