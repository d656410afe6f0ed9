"""What an error of Kafka's means for a transaction: try again, give up, or leave it to another."""

from typing import Final

from confluent_kafka import KafkaError

from pairscore.errors import EnvironmentFault
from shared.clients import FENCED
from shared.connection import Connection, describe

HOPELESS: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.POLICY_VIOLATION,
        KafkaError.INVALID_RECORD,
    }
)
"""The same records would be refused again."""

_AWAY: Final = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._INCONSISTENT,  # several ends that messages came to, of which none is named
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
    }
)


class TakenOver(EnvironmentFault):
    """Another producer has the transactional id now, and with it the job."""

    def __init__(self) -> None:
        super().__init__(
            "another producer has taken over the job; if none runs any more, start this one again"
        )


def explain(error: KafkaError, connection: Connection) -> EnvironmentFault:
    """Why rows cannot be published, in one line."""
    if error.code() in FENCED:
        return TakenOver()
    if error.code() in _AWAY:
        return connection.fault(error)
    where = connection.settings.bootstrap_servers
    return EnvironmentFault(f"Kafka at {where} does not take the rows: {describe(error)}")
