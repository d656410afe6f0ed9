"""A fleet of real processes on real Kafka."""

import json
import random
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from shared.settings import KafkaSettings
from shared.topics import Topics, create_topics
from tests.faults.data import Feed, Row
from tests.faults.group import ASK_SECONDS, PARTITIONS, Group
from tests.faults.processes import ROOT, clean_environment
from tests.faults.reader import Scores, client, consumer
from tests.faults.stage import Stage
from tests.faults.supervisor import Command, Service, Supervisor
from tests.faults.tally import Tally, count
from tests.fetching import wait_until

TERM_SECONDS: Final = 25.0
"""A worker that is asked to end has ended by then."""

_DEFECT: Final = 1
_KAFKA: Final = "kafka__"
_MEMBER_SECONDS: Final = 60.0
_STATUS_SECONDS: Final = 60.0
_OPEN_SECONDS: Final = 45.0
"""A transaction that nobody ends is aborted by Kafka before that."""


class Fleet:
    """Workers and a sink under a supervisor, on topics of their own; see `fleet`."""

    def __init__(
        self,
        stage: Stage,
        supervisor: Supervisor,
        topics: Topics,
        scores: Scores,
        admin: AdminClient,
        group: Group,
        environment: Mapping[str, str],
    ) -> None:
        self.stage = stage
        self.supervisor = supervisor
        self.topics = topics
        self.scores = scores
        self.admin = admin
        self.group = group
        self.environment = environment
        self.random = random.Random(stage.seed)
        self.results = Path(environment["PAIRSCORE_RESULTS"])
        self._workers = 0

    def start_worker(self, arguments: Iterator[Sequence[str]] | None = None) -> Service:
        """One more worker; `arguments` are of `tests.faults.worker_main`, the next for each start.

        When they are used up, the worker is never struck again.
        """
        name = f"worker-{self._workers}"
        self._workers += 1
        environment = {**self.environment, "PAIRSCORE_WORKER__ID": name}
        module = "worker" if arguments is None else "tests.faults.worker_main"
        rest = arguments if arguments is not None else iter(())
        # Those of the long form have nothing to do with how the short one saves time.
        preloaded = not self.stage.scale.long
        command = Command(module, lambda: next(rest, ()), environment, preloaded=preloaded)
        return self.supervisor.start(name, command)

    def start_sink(self) -> Service:
        """A CSV sink; its results are in `results`."""
        return self.supervisor.start("sink", Command("sink", lambda: ("csv",), self.environment))

    @property
    def workers(self) -> list[Service]:
        """Those that are to run."""
        services = self.supervisor.services.values()
        return [each for each in services if each.wanted and each.name.startswith("worker-")]

    @property
    def sink(self) -> Service:
        """The sink."""
        return self.supervisor.services["sink"]

    def feed(
        self, job: str = "job", rows: Sequence[Row] | None = None, *, urgent: bool = False
    ) -> Feed:
        """A job to be."""
        servers, rows = self.stage.kafka.bootstrap_servers, rows or self.stage.rows
        return Feed(servers, self.topics, job, rows, urgent=urgent)

    def pause(self, most: float) -> None:
        """Let a random time pass."""
        self.supervisor.pause(self.random.uniform(0.0, most))

    def victim(self) -> Service:
        """Any worker that is at work: it has partitions."""
        found: list[Service] = []

        def look() -> bool:
            found[:] = [each for each in self.workers if each.readiness()[0] == HTTPStatus.OK]
            return bool(found)

        self.supervisor.until(look, _MEMBER_SECONDS, "no worker is ready", self.group.explain)
        return self.random.choice(found)

    def kill_sink(self) -> None:
        """SIGKILL it at a random moment of its work, whatever it had to do before."""
        self.supervisor.until(
            lambda: self.sink.readiness()[0] == HTTPStatus.OK, _MEMBER_SECONDS, "no sink is ready"
        )
        self.pause(1.5)
        self.supervisor.kill(self.sink)

    def ends(self, topic: str) -> dict[int, int]:
        """The next offset of each partition, whatever is committed or not."""
        self.admin.list_topics(timeout=ASK_SECONDS)  # else it asks for epochs that are over
        asked = self.admin.list_offsets(
            {TopicPartition(topic, number): OffsetSpec.latest() for number in range(PARTITIONS)},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=ASK_SECONDS,
        )
        return {place.partition: found.result(ASK_SECONDS).offset for place, found in asked.items()}

    def until_scored(self, job: str, rows: int) -> None:
        """Wait until that many rows of a job have an outcome."""
        self.supervisor.until(
            lambda: self.scores.count(job) >= rows,
            self.stage.scale.seconds,
            f"{job}: no outcomes of {rows:,} rows",
            self.group.explain,
        )

    def until_members(self, number: int) -> None:
        """Wait until so many workers are members of the group, each with partitions."""
        self.supervisor.until(
            lambda: self.group.members() == number,
            _MEMBER_SECONDS,
            f"not {number} workers with partitions",
            self.group.explain,
        )

    def settle(self, feed: Feed, *, codes: Collection[int] = (0,)) -> Tally:
        """Close the job, wait until all is done, end everything in order, and count.

        Raises:
            AssertionError: something is not done in time, or a worker that is asked to end does so
                with another exit code than `codes`.
        """
        feed.close()
        rows = [feed.row(index) for index in range(feed.published)]
        return self.conclude(feed.job, rows, codes=codes)

    def conclude(self, job: str, rows: Sequence[Row], *, codes: Collection[int] = (0,)) -> Tally:
        """The same for a job of these rows that is closed."""
        self.until_scored(job, len(rows))
        seconds, group, manifest = self.stage.scale.seconds, self.group, "manifest.json"
        self.supervisor.until(group.is_read, seconds, "rows are left to be read", group.explain)
        self.supervisor.until((self.results / job / manifest).exists, seconds, f"no {manifest}")
        for worker in self.workers:
            self.supervisor.end(worker, TERM_SECONDS, codes)
        # Nobody is left who could publish anything: what is there now is all there will be.
        ends = self.ends(self.topics.scores)
        self.supervisor.until(
            lambda: self.scores.has_read(ends), _OPEN_SECONDS, "a transaction stays open"
        )
        self.scores.count(job)
        status = self._sink_status()
        self.supervisor.end(self.sink, TERM_SECONDS)
        assert not self.supervisor.exits()[_DEFECT], self.supervisor.report()
        return count(job, rows, self.scores, self.results, status)

    def _sink_status(self) -> dict[str, Any]:
        """What `python -m sink status --json` says."""
        said = subprocess.run(
            [sys.executable, "-m", "sink", "status", "--json"],
            cwd=ROOT,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=_STATUS_SECONDS,
            check=False,
        )
        assert said.returncode == 0, said.stderr
        found: dict[str, Any] = json.loads(said.stdout)
        return found


@contextmanager
def fleet(
    stage: Stage, name: str, settings: Mapping[str, str] | None = None, *, workers: int = 3
) -> Iterator[Fleet]:
    """A fleet on new topics; on leaving, what still runs is killed.

    `settings` are further ones of the services, without their prefix and in lower case.
    """
    folder = stage.folder / name
    folder.mkdir(parents=True)
    own = {**_settings(stage, name), **(settings or {})}
    environment = {
        **clean_environment(),
        **{f"PAIRSCORE_{each.upper()}": value for each, value in own.items()},
    }
    kafka = KafkaSettings.model_validate(
        {each.removeprefix(_KAFKA): own[each] for each in own if each.startswith(_KAFKA)}
    )
    topics, servers = Topics.of(kafka), kafka.bootstrap_servers
    admin = AdminClient(client(servers))
    create_topics(kafka, admin, admin.list_topics(timeout=ASK_SECONDS))
    # Services that start before the broker shows what it has created end with exit code 3.
    wait_until(lambda: set(topics.all) <= admin.list_topics(timeout=ASK_SECONDS).topics.keys())
    group_name = f"{kafka.topic_prefix}worker"
    with (
        consumer(servers) as reading,
        consumer(servers, group_name) as onlooker,
        Supervisor(stage.nursery, folder) as supervisor,
    ):
        scores = Scores(reading, topics.scores, PARTITIONS)
        group = Group(group_name, topics, admin, onlooker)
        if not stage.scale.long:
            group.notice_deaths_soon()
        made = Fleet(stage, supervisor, topics, scores, admin, group, environment)
        made.start_sink()
        for _ in range(workers):
            made.start_worker()
        yield made
    admin.delete_topics(list(topics.all))


def _settings(stage: Stage, name: str) -> dict[str, str]:
    return {
        "kafka__bootstrap_servers": stage.kafka.bootstrap_servers,
        "kafka__topic_prefix": f"{name}.",
        "kafka__partitions": str(PARTITIONS),
        "kafka__retry_delays": "1,2",
        "model": "demo",
        "fetch__allow_networks": "127.0.0.0/8",
        "fetch__per_host": "64",
        "cache_dir": str(stage.folder / "cache"),
        "results": str(stage.folder / name / "results"),
        "telemetry__port": "0",
        "telemetry__log_format": "json",
        # Many small transactions, so that few moments lie outside of one.
        "worker__commit_rows": "100",
        "worker__commit_interval": "0.1",
    }
