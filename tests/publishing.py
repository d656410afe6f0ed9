"""Publishing within a test's own process: bare transactions, and runs that crash where told to."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pairscore.csv_file import survey_input
from producer.csv_rows import CsvRows
from producer.job import CsvJob, describe_job
from producer.job_log import JobLog
from producer.publication import Publication, Published
from producer.pulse import Pulse
from producer.transactions import Transactions
from shared.settings import ProducerOptions
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from shared.telemetry.traces import Tracer
from tests.producing import Place

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Publisher:
    """Transactions of one transactional id, and what became of them."""

    def __init__(self, where: Place, **options: Any) -> None:
        self.stop = StopSignal()
        self.ended: Counter[str] = Counter()
        self.topic = where.topics.pairs
        self.transactions = Transactions(
            where.connection,
            "an-id",
            pulse=Pulse(self.stop, Health()),
            ended=lambda result: self.ended.update([result]),
            **options,
        )

    def begin(self, *values: str) -> None:
        self.transactions.begin()
        self.add(*values)

    def add(self, *values: str) -> None:
        for value in values:
            self.transactions.add(self.topic, value.encode(), value.encode())

    def commit(self, settled: Callable[[], bool] | None = None) -> None:
        self.transactions.commit(settled or never)


def never() -> bool:
    raise AssertionError("there is no doubt about the transaction")


def values(where: Place) -> list[str]:
    return sorted((record.value() or b"").decode() for record in where.records(where.topics.pairs))


class Crash(Exception):
    """What a test ends a run with."""


class Run:
    """One run of publishing a file, and what it told."""

    def __init__(self, here: Place, source: Path, job: str = "a-job", **settings: Any) -> None:
        options = {k: v for k, v in settings.items() if k in ProducerOptions.model_fields}
        survey = survey_input(source, **{k: settings[k] for k in settings.keys() - options.keys()})
        self.stop = StopSignal()
        self.start: int | None = None
        self.told: list[int] = []
        pulse = Pulse(self.stop, Health())
        self.publication = Publication(
            CsvRows(job, survey),
            describe_job(job, survey, NOW),
            transactions=Transactions(
                here.connection, f"producer.{job}", pulse=pulse, ended=lambda _: None
            ),
            log=JobLog(here.connection, here.admin, here.topics.jobs, pulse, CsvJob),
            topics=here.topics,
            options=ProducerOptions(**options),
            pulse=pulse,
            watcher=self,
            tracer=Tracer(),
        )

    def run(self) -> Published:
        return self.publication.run()

    def begins(self, start: int, *, closed: bool) -> None:
        self.start = start

    def reached(self, rows: int) -> None:
        self.told.append(rows)


class Crashing(Run):
    """A run that ends with a crash after so many transactions."""

    def __init__(self, *arguments: Any, after: int, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._after = after

    def reached(self, rows: int) -> None:
        super().reached(rows)
        if len(self.told) == self._after:
            raise Crash
