"""What can be known to go wrong is said before anything is published."""

from collections.abc import Sequence
from datetime import datetime
from itertools import islice

from confluent_kafka.admin import AdminClient

from pairscore.csv_file import Survey, open_source
from pairscore.errors import InputError
from producer.encoding import RowEncoder, most_bytes
from producer.job import CsvJob
from shared.clients import OVERHEAD_BYTES, connect
from shared.connection import Connection
from shared.limits import Coordinator, check_compacted, check_coordinators, check_room, room
from shared.settings import KafkaSettings
from shared.topics import MAX_BYTES, Topics, check_topics


def check_kafka(
    connection: Connection,
    topics: Topics,
    *,
    rows: Sequence[str] = (),
    others: Sequence[str] = (),
) -> AdminClient:
    """Make sure that Kafka answers, has the topics that are published to, and room there for rows.

    Rows go to `rows`, by default to `pairs`; `others` are to be there too.

    Returns a client for what else is asked of Kafka.

    Raises:
        EnvironmentFault: it does not, or has not.
    """
    settings = connection.settings
    admin, found = connect(connection)
    of_rows = tuple(rows) or (topics.pairs,)
    check_topics(settings, admin, found, (*of_rows, topics.jobs, *others))
    check_compacted(settings, admin)
    check_room(settings, admin, of_rows)
    check_coordinators(settings, admin, found, (Coordinator.TRANSACTIONS,))
    return admin


def most_job_bytes(admin: AdminClient, topics: Topics) -> int | None:
    """How long the message of a job may be, in bytes, where Kafka says so."""
    return room(admin, (topics.jobs,)).get(topics.jobs)


def check_job(job: CsvJob, survey: Survey, limit: int | None) -> None:
    """Make sure that `jobs` takes the message of the job, which holds the header.

    Raises:
        InputError: it is too long.
    """
    size = len(job.encode()) + OVERHEAD_BYTES
    if limit is not None and size > limit:
        raise InputError(
            f"{survey.path}: line 1: the header makes a message of {size:,} bytes, and the topic "
            f"of jobs takes {limit:,} at once ({MAX_BYTES}); shorten the names of the columns"
        )


def check_rows(survey: Survey, job: CsvJob, settings: KafkaSettings) -> None:
    """Make sure that every row fits into a message: the sink has nothing else to write it from.

    Raises:
        InputError: one does not; names the line of the first, and how many there are.
    """
    limit = settings.max_message_bytes
    if most_bytes(survey.longest) <= limit:
        return
    encoder = RowEncoder(job.job, survey)
    now = datetime.now(job.created_at.tzinfo)
    first, count, longest = 0, 0, 0
    with open_source(survey.path) as source:
        records = source.records(survey.dialect.delimiter)
        for row, record in enumerate(islice(records, 1, None)):
            if most_bytes(len(record.raw)) <= limit:
                continue
            size = len(encoder.encode(row, record, now)[1])
            if size > limit:
                first, count, longest = first or record.line, count + 1, max(longest, size)
    if count:
        which = (
            "a row starts here that is"
            if count == 1
            else f"the first of {count:,} rows starts here that are up to"
        )
        raise InputError(
            f"{survey.path}: line {first}: {which} {longest:,} bytes long as a message, over the "
            f"{limit:,} of the setting PAIRSCORE_KAFKA__MAX_MESSAGE_BYTES; shorten it, raise the "
            "setting, or use `pairscore score`, which needs no messages"
        )
