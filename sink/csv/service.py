"""`python -m sink csv`: everything put together."""

from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from shared.clients import connect
from shared.connection import Connection
from shared.settings import SinkSettings
from shared.topics import Topics, check_topics
from sink.csv.finish import Finisher
from sink.csv.folder import locked
from sink.csv.source import AssignedSource
from sink.csv.spool import Spool
from sink.csv.store import CsvStore
from sink.intake import Intake
from sink.running import make_loop, run_loop, surroundings, take_signals
from sink.topics import TopicWatch

NAME: Final = "sink csv"


def serve_csv(settings: SinkSettings) -> int:
    """Store outcomes and write results until asked to end; the exit code.

    Raises:
        PairscoreError: it cannot begin, or cannot go on.
    """
    results = Path(settings.results)
    topics = Topics.of(settings.kafka)
    stop = take_signals()
    with ExitStack() as stack:
        with stop.starting():
            stack.enter_context(locked(results))
            spool = stack.enter_context(Spool(results, topics.scores, _now))
            connection = Connection(settings.kafka)
            admin, cluster = connect(connection)
            check_topics(settings.kafka, admin, cluster, (topics.scores, topics.jobs))
            watch = TopicWatch(connection, admin, (topics.scores, topics.jobs))
            found = watch.read()
            around = stack.enter_context(surroundings(settings, NAME, stop))
            source = stack.enter_context(closing(AssignedSource(connection, topics, watch)))
            finisher = stack.enter_context(closing(Finisher(spool, results, _now)))
            store = CsvStore(spool, finisher, around.metrics)
            store.see_topics(found)
            source.begin(found, store.offsets())
        loop = make_loop(settings, around, source, Intake(topics, traced=around.tracer.on), store)
        return run_loop(settings, around, loop, NAME)


def _now() -> datetime:
    return datetime.now(UTC)
