"""`python -m sink postgres`: everything put together."""

from contextlib import ExitStack, closing
from typing import Final

from pairscore.errors import SettingsError
from shared.clients import connect
from shared.connection import Connection
from shared.limits import Coordinator, check_coordinators
from shared.results.postgres import Address
from shared.settings import SinkSettings
from shared.topics import Topics, check_topics
from sink.intake import Intake
from sink.postgres.group import GroupSource
from sink.postgres.holdings import Holdings
from sink.postgres.store import PostgresStore
from sink.running import make_loop, run_loop, surroundings, take_signals
from sink.topics import TopicWatch

NAME: Final = "sink postgres"
_OF_THE_STALL: Final = 0.75
"""A statement may take this part of the time after which the watchdog ends the process."""


def serve_postgres(settings: SinkSettings) -> int:
    """Store outcomes in the database until asked to end; the exit code.

    Raises:
        PairscoreError: it cannot begin, or cannot go on.
    """
    if settings.postgres_url is None:
        raise SettingsError(
            "setting PAIRSCORE_POSTGRES_URL: the Postgres sink needs it: "
            "postgresql://user:password@host:5432/database"
        )
    topics = Topics.of(settings.kafka)
    holdings = Holdings()
    store = PostgresStore(
        Address(settings.postgres_url),
        topics,
        holdings,
        statement_seconds=settings.sink.stall_seconds * _OF_THE_STALL,
    )
    stop = take_signals()
    with ExitStack() as stack:
        stack.enter_context(closing(store))
        with stop.starting():
            store.begin()
            connection = Connection(settings.kafka)
            admin, found = connect(connection)
            check_topics(settings.kafka, admin, found, (topics.scores, topics.jobs))
            check_coordinators(settings.kafka, admin, found, (Coordinator.GROUPS,))
            watch = TopicWatch(connection, admin, (topics.scores, topics.jobs))
            around = stack.enter_context(surroundings(settings, NAME, stop))
            intake = Intake(topics, traced=around.tracer.on)
            source = stack.enter_context(
                closing(GroupSource(connection, topics, watch, store, holdings, intake.forget))
            )
            source.begin()
        loop = make_loop(settings, around, source, intake, store)
        return run_loop(settings, around, loop, NAME)
