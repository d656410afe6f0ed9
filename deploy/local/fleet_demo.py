"""`make demo`: the demo's data set through a whole fleet, which is gone when it is done.

Where no Kafka can be had, the same in one process, aloud.
"""

import csv
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Final

from rich.console import Console

from deploy.local import fleet_kafka, fleet_programs
from deploy.local.broker import Kafka
from deploy.local.cluster import ADDRESS, kafka
from deploy.local.fleet_programs import Surroundings
from deploy.local.fleet_supervisor import Supervisor
from deploy.local.guarding import guarded
from deploy.local.ports import free_ports
from deploy.local.ways import Unavailable
from pairscore.cli.demo import show_extremes
from pairscore.cli.process import run as run_pairscore
from pairscore.demo.dataset import CSV_NAME
from shared.results import JobStatus, open_results
from shared.settings import (
    KafkaSettings,
    StoreSettings,
    WorkerSettings,
    read_service_settings,
)
from shared.shutdown import StopSignal

WORKERS: Final = 2

_DATA_SECONDS = 60.0
_JOB_SECONDS = 300.0
_SHOWN = 5
_PREFIX: Final = "PAIRSCORE_KAFKA__TOPIC_PREFIX"
# Timeout and attempts as `pairscore demo --score` has them: what is dead does not hold it up.
_SETTINGS: Final = {
    "PAIRSCORE_MODEL": "demo",
    "PAIRSCORE_FETCH__ALLOW_NETWORKS": "127.0.0.1/32",
    "PAIRSCORE_FETCH__TIMEOUT": "2",
    "PAIRSCORE_FETCH__ATTEMPTS": "2",
    "PAIRSCORE_KAFKA__RETRY_DELAYS": "1",
    "PAIRSCORE_KAFKA__PARTITIONS": "4",
    "PAIRSCORE_POSTGRES_URL": "",
}


def run_demo(folder: Path, environment: Mapping[str, str] = os.environ) -> int:
    """Score the demo's data set; the exit code: 0 if every row came out as it should.

    Raises:
        PairscoreError: it cannot be done, in one line.
        KeyboardInterrupt: asked to end.
    """
    console, begun = Console(soft_wrap=True), time.monotonic()

    def say(line: str) -> None:
        console.out(line, highlight=False)

    # A mistake in them is said before anything is started.
    read_service_settings(WorkerSettings)
    try:
        with kafka(environment=environment) as cluster:
            say(fleet_kafka.describe(cluster))
            right = _Demo(folder, cluster, environment, console).run()
    except Unavailable as why:
        # Who names a Kafka means that one and no other way.
        if environment.get(ADDRESS):
            raise
        say(f"no fleet here: {why}")
        say("the same in one process instead, as make demo-local does:")
        return run_pairscore(["demo", str(folder), "--score"])
    say(f"everything has ended; all of it took {time.monotonic() - begun:.0f} s")
    return 0 if right else 1


class _Demo:
    def __init__(
        self, folder: Path, cluster: Kafka, environment: Mapping[str, str], console: Console
    ) -> None:
        self._folder = folder
        self._results = folder / "results"
        self._cluster = cluster
        self._console = console
        # Of its own, so that it neither meets an earlier demo nor what a cluster is there for.
        prefix = f"{environment.get(_PREFIX, '')}demo-{uuid.uuid4().hex[:8]}."
        own = {
            "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
            _PREFIX: prefix,
            "PAIRSCORE_RESULTS": str(self._results),
        }
        self._around = Surroundings({**_SETTINGS, **own}, folder / "logs")

    def run(self) -> bool:
        """Whether each row came out as it should."""
        settings = self._around.settings().kafka
        try:
            self._score(settings)
        finally:
            if self._cluster.how == "environment":
                fleet_kafka.remove(settings)
        [status] = open_results(StoreSettings(results=str(self._results), postgres_url=None)).jobs()
        return self._show(status)

    def _score(self, settings: KafkaSettings) -> None:
        stop = StopSignal()
        with guarded("demo") as guard, Supervisor(guard, stop, self._say) as supervisor:
            stop.install()
            self._prepare(supervisor, guard.folder / "data.log", settings)
            supervisor.start(*fleet_programs.services(self._around, WORKERS, "csv"))
            self._say(f"started {WORKERS} workers with the demo model, and a sink")
            source = self._folder / CSV_NAME
            self._say(f"publishing {source}, and waiting for its outcomes")
            supervisor.run(fleet_programs.producer(self._around, source), _JOB_SECONDS)

    def _prepare(self, supervisor: Supervisor, log: Path, settings: KafkaSettings) -> None:
        [port] = free_ports(1)
        data = fleet_programs.pictures(self._folder, port, log)
        supervisor.start(data)
        fleet_kafka.create(settings)
        supervisor.until(lambda: data.ready(), _DATA_SECONDS, "the demo's data are not served")
        self._say(f"made {fleet_programs.DEMO_ROWS} rows in {self._folder}, served on port {port}")
        # The folder is the demo's now; of an earlier run nothing is to be left.
        for earlier in (self._results, self._around.logs):
            shutil.rmtree(earlier, ignore_errors=True)
            earlier.mkdir()

    def _show(self, status: JobStatus) -> bool:
        scored = Path(status.result or "")
        show_extremes(self._console, scored)
        expected = self._folder / "expected.csv"
        wrong = differences(scored, expected)
        self._say("")
        for line in wrong[:_SHOWN]:
            self._say(line)
        if wrong:
            self._say(f"{len(wrong)} rows are not as {expected} says; logs: {self._around.logs}")
        else:
            self._say(f"each of the {status.done} rows is as {expected} says")
        return not wrong

    def _say(self, line: str) -> None:
        self._console.out(line, highlight=False)


def differences(scored: Path, expected: Path) -> list[str]:
    """Which rows of a result did not come out as `expected` says, a line each."""
    lines = []
    for row, (had, wanted) in enumerate(zip_longest(_read(scored), _read(expected))):
        if had is None or wanted is None:
            lines.append(f"row {row}: {'is missing' if had is None else 'is one too many'}")
            continue
        reason = (had["error"] or "").partition(":")[0]
        if reason != wanted["expected"] or bool(had["similarity"]) != (not reason):
            ended = had["error"] or had["similarity"] or "nothing"
            lines.append(
                f"row {row}: {ended} instead of {wanted['expected'] or 'a score'} "
                f"({wanted['note']})"
            )
    return lines


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
