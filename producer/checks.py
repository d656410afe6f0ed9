"""What can be known to go wrong is said before anything is published."""

from datetime import datetime
from itertools import islice
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource

from pairscore.csv_file import Survey, open_source
from pairscore.errors import EnvironmentFault, InputError
from producer.encoding import RowEncoder, most_bytes
from producer.job import CsvJob
from shared.clients import OVERHEAD_BYTES, Connection, connect
from shared.settings import KafkaSettings
from shared.topics import Topics, check_topics

_TIMEOUT: Final = 20.0
_LIMIT: Final = "max.message.bytes"


def check_kafka(connection: Connection, admin: AdminClient, topics: Topics) -> None:
    """Make sure that Kafka answers, and has the topics that are published to, with room for rows.

    Raises:
        EnvironmentFault: it does not, or has not.
    """
    settings = connection.settings
    check_topics(settings, connect(connection, admin), (topics.pairs, topics.jobs))
    room = _room(admin, topics.pairs)
    if room is not None and room < settings.max_message_bytes + OVERHEAD_BYTES:
        raise EnvironmentFault(
            f"setting PAIRSCORE_KAFKA__MAX_MESSAGE_BYTES: {settings.max_message_bytes:,} and "
            f"{OVERHEAD_BYTES:,} for what goes with it are more than the {room:,} that topic "
            f"{topics.pairs} takes at once; lower the setting, or raise the topic's {_LIMIT} with "
            "Kafka's `kafka-configs.sh`"
        )


def check_job(job: CsvJob, survey: Survey, admin: AdminClient, topics: Topics) -> None:
    """Make sure that `jobs` takes the message of the job, which holds the header.

    Raises:
        InputError: it is too long.
    """
    room = _room(admin, topics.jobs)
    size = len(job.encode()) + OVERHEAD_BYTES
    if room is not None and size > room:
        raise InputError(
            f"{survey.path}: line 1: the header makes a message of {size:,} bytes, and topic "
            f"{topics.jobs} takes {room:,} at once ({_LIMIT}); shorten the names of the columns"
        )


def check_rows(survey: Survey, job: CsvJob, settings: KafkaSettings) -> None:
    """Make sure that every row fits into a message.

    Raises:
        InputError: one does not; names its line.
    """
    limit = settings.max_message_bytes
    if most_bytes(survey.longest) <= limit:
        return
    encoder = RowEncoder(job.job, survey)
    now = datetime.now(job.created_at.tzinfo)
    with open_source(survey.path) as source:
        records = source.records(survey.dialect.delimiter)
        for row, record in enumerate(islice(records, 1, None)):
            if most_bytes(len(record.raw)) <= limit:
                continue
            _, value = encoder.encode(row, record, now)
            if len(value) > limit:
                raise InputError(
                    f"{survey.path}: line {record.line}: the row that starts here is "
                    f"{len(value):,} bytes long as a message, over the {limit:,} of the setting "
                    "PAIRSCORE_KAFKA__MAX_MESSAGE_BYTES; shorten it, or raise the setting"
                )


def _room(admin: AdminClient, topic: str) -> int | None:
    """How long a batch on `topic` may be, in bytes; None where Kafka does not say."""
    asked = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        found = admin.describe_configs([asked], request_timeout=_TIMEOUT)[asked].result(_TIMEOUT)
    except (KafkaException, TimeoutError):
        # Not everybody may ask; what does not fit is refused later, with Kafka's own words.
        return None
    value = found[_LIMIT].value if _LIMIT in found else None
    return int(value) if value else None
