"""A fleet of real processes on real Kafka, and the two counts of what came of its rows."""

import csv
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConsumerGroupDescription,
    OffsetSpec,
    ResourceType,
)

from deploy.local import Kafka
from shared.settings import KafkaSettings
from shared.topics import Topics, create_topics
from tests.faults.data import Feed, Row
from tests.faults.processes import ROOT, Command, Nursery, Service, Supervisor, clean_environment
from tests.faults.reader import Scores, client, consumer
from tests.fetching import wait_until

Place: TypeAlias = tuple[str, int]

PARTITIONS: Final = 12
TERM_SECONDS: Final = 25.0
"""A worker that is asked to end has ended by then."""

_KAFKA: Final = "kafka__"
_SESSION_MS: Final = 6_000
_ASK_SECONDS: Final = 20.0
_OPEN_SECONDS: Final = 45.0
"""A transaction that nobody ends is aborted by Kafka before that."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The short form, or the long one with all the numbers that are promised."""

    long: bool

    def of(self, short: int, long: int) -> int:
        """The number for this form."""
        return long if self.long else short

    @property
    def rows(self) -> int:
        """How many rows a scenario has."""
        return self.of(1_500, 20_000)

    @property
    def seconds(self) -> float:
        """How long the rows of a scenario may take, faults and all."""
        return self.of(90, 900)


@dataclass(frozen=True, slots=True)
class Stage:
    """What scenarios are played on.

    `pictures` is where the demo's server answers, `patience` where that of pictures which need it.
    """

    kafka: Kafka
    nursery: Nursery
    scale: Scale
    pictures: str
    patience: str
    rows: Sequence[Row]
    folder: Path
    seed: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of a job's rows: counted by the reader, and by the sink."""

    rows: int
    lost: int
    duplicated: int
    sink_rows: int
    sink_duplicates: int
    wrong: Sequence[str]

    def __str__(self) -> str:
        return (
            f"lost {self.lost}, duplicated {self.duplicated} (reader: "
            f"{self.rows - self.lost:,} of {self.rows:,}; sink: {self.sink_rows:,} of "
            f"{self.rows:,}, {self.sink_duplicates} came again)"
        )

    def check(self) -> None:
        """Each row is there once, by either count, with the outcome that it should have."""
        assert (self.lost, self.duplicated) == (0, 0), str(self)
        assert (self.sink_rows, self.sink_duplicates) == (self.rows, 0), str(self)
        assert not self.wrong, f"{len(self.wrong)} outcomes are wrong: {self.wrong[:3]}"


class Fleet:
    """Workers and a sink under a supervisor, on topics of their own; see `fleet`."""

    def __init__(
        self,
        stage: Stage,
        supervisor: Supervisor,
        settings: KafkaSettings,
        scores: Scores,
        admin: AdminClient,
        onlooker: Consumer,
        environment: Mapping[str, str],
    ) -> None:
        self.stage = stage
        self.supervisor = supervisor
        self.topics = Topics.of(settings)
        self.scores = scores
        self.admin = admin
        self.onlooker = onlooker
        self.environment = environment
        self.random = random.Random(stage.seed)
        self.results = Path(environment["PAIRSCORE_RESULTS"])
        self.group = group_of(settings)
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

    def feed(self, job: str = "job", rows: Sequence[Row] | None = None) -> Feed:
        """A job to be."""
        return Feed(self.stage.kafka.bootstrap_servers, self.topics, job, rows or self.stage.rows)

    def pause(self, most: float) -> None:
        """Let a random time pass."""
        self.supervisor.pause(self.random.uniform(0.0, most))

    def until_scored(self, job: str, rows: int, within: float | None = None) -> None:
        """Wait until that many rows of a job have an outcome."""
        self.supervisor.until(
            lambda: self.scores.count(job) >= rows,
            within or self.stage.scale.seconds,
            f"{job}: no outcomes of {rows:,} rows",
            self.explain,
        )

    def until_members(self, count: int, within: float = 60.0) -> None:
        """Wait until so many workers are members of the group, each with partitions."""
        self.supervisor.until(
            lambda: self.members() == count, within, f"not {count} workers with partitions"
        )

    def members(self) -> int:
        """How many members of the workers' group have partitions; -1 where nobody says."""
        try:
            return sum(1 for each in self._describe().members if each.assignment.topic_partitions)
        except (KafkaException, TimeoutError):
            return -1

    def is_read(self) -> bool:
        """Whether the workers' next offsets are the ends of all that they read."""
        try:
            return not self.lags()
        except (KafkaException, TimeoutError):
            return False

    def settle(self, feed: Feed) -> Tally:
        """Close the job, wait until all is done, end everything in order, and count.

        Raises:
            AssertionError: something is not done in time, or does not end as it should.
        """
        feed.close()
        return self.conclude(feed.job, [feed.row(index) for index in range(feed.published)])

    def conclude(self, job: str, rows: Sequence[Row]) -> Tally:
        """The same for a job of these rows that is closed."""
        seconds = self.stage.scale.seconds
        self.until_scored(job, len(rows))
        self.supervisor.until(self.is_read, seconds, "rows are left to be read", self.explain)
        manifest = self.results / job / "manifest.json"
        self.supervisor.until(manifest.exists, seconds, f"the sink did not write {manifest.name}")
        for worker in self.workers:
            self.supervisor.end(worker, TERM_SECONDS)
        # Nobody is left who could publish anything: what is there now is all there will be.
        ends = self.scores.ends()
        self.supervisor.until(
            lambda: self.scores.has_read(ends), _OPEN_SECONDS, "a transaction stays open"
        )
        self.scores.count(job)
        status = self.sink_status()
        self.supervisor.end(self.supervisor.services["sink"], TERM_SECONDS)
        return self._tally(job, rows, status)

    def _tally(self, job: str, rows: Sequence[Row], status: Mapping[str, Any]) -> Tally:
        [sink] = [each for each in status["jobs"] if each["job"] == job]
        with (self.results / sink["result"]).open(newline="", encoding="utf-8") as file:
            written = list(csv.DictReader(file, restval=""))
        manifest = json.loads((self.results / job / "manifest.json").read_bytes())
        assert sink["state"] == "complete", sink
        assert sink["missing"] == 0, sink
        assert len(written) == manifest["rows"], manifest
        assert len(written) == manifest["scored"] + sum(manifest["failed"].values()), manifest
        lost = self.scores.lost(job, len(rows))
        wrong = [f"row {row} was never published" for row in self.scores.beyond(job, len(rows))]
        for index, row in enumerate(rows):
            value, line = self.scores.found.get((job, index)), written[index]
            if value is not None and not _is_right(row, value):
                wrong.append(f"row {index}: {row}: {value}")
            if line["error"].partition(":")[0] != (row.expected or ""):
                wrong.append(f"line {index}: {row}: {line}")
        return Tally(
            rows=len(rows),
            lost=len(lost),
            duplicated=self.scores.duplicated(job),
            sink_rows=len(written),
            sink_duplicates=status["duplicates"],
            wrong=wrong,
        )

    def sink_status(self) -> dict[str, Any]:
        """What `python -m sink status --json` says."""
        said = subprocess.run(
            [sys.executable, "-m", "sink", "status", "--json"],
            cwd=ROOT,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert said.returncode == 0, said.stderr
        found: dict[str, Any] = json.loads(said.stdout)
        return found

    def lags(self) -> dict[Place, tuple[int, int]]:
        """Of the partitions that are not read and committed to their ends: next offset and end."""
        places = [
            TopicPartition(topic, number)
            for topic in self.topics.to_score
            for number in range(PARTITIONS)
        ]
        self.admin.list_topics(timeout=_ASK_SECONDS)  # else it asks for epochs that are over
        asked = self.admin.list_offsets(
            {place: OffsetSpec.latest() for place in places}, request_timeout=_ASK_SECONDS
        )
        ends = {
            (place.topic, place.partition): future.result(_ASK_SECONDS).offset
            for place, future in asked.items()
        }
        committed = {
            (place.topic, place.partition): max(0, place.offset)
            for place in self.onlooker.committed(places, timeout=_ASK_SECONDS)
        }
        both = {place: (committed[place], end) for place, end in ends.items()}
        return {place: (at, end) for place, (at, end) in both.items() if at != end}

    def explain(self) -> str:
        """Who has which partitions, and what is not done of them."""
        group = self._describe()
        lines = [f"group: {group.state}"]
        for member in group.members:
            held = (f"{p.topic}-{p.partition}" for p in member.assignment.topic_partitions)
            lines.append(f"member {member.member_id} {member.client_id}: {' '.join(sorted(held))}")
        lines += [
            f"{topic}-{number}: {at} of {end}" for (topic, number), (at, end) in self.lags().items()
        ]
        return "\n".join(lines)

    def _describe(self) -> ConsumerGroupDescription:
        asked = self.admin.describe_consumer_groups([self.group], request_timeout=_ASK_SECONDS)
        found: ConsumerGroupDescription = asked[self.group].result(_ASK_SECONDS)
        return found


def _is_right(row: Row, value: Mapping[str, Any]) -> bool:
    expected = None if row.expected is None else row.expected.value
    as_published = (value["url"], value["caption"], tuple(value["columns"])) == (
        row.url,
        row.caption,
        row.cells,
    )
    return as_published and value.get("error") == expected


@contextmanager
def fleet(
    stage: Stage,
    name: str,
    settings: Mapping[str, str] | None = None,
    *,
    workers: int = 3,
    sink: bool = True,
) -> Iterator[Fleet]:
    """A fleet on new topics; on leaving, what still runs is killed.

    `settings` are further ones of the services, without their prefix and in lower case.
    """
    folder = stage.folder / name
    folder.mkdir(parents=True)
    servers = stage.kafka.bootstrap_servers
    own = {
        "kafka__bootstrap_servers": servers,
        "kafka__topic_prefix": f"{name}.",
        "kafka__partitions": str(PARTITIONS),
        "kafka__retry_delays": "1,2",
        "model": "demo",
        "fetch__allow_networks": "127.0.0.0/8",
        "fetch__per_host": "64",
        "cache_dir": str(stage.folder / "cache"),
        "results": str(folder / "results"),
        "telemetry__port": "0",
        "telemetry__log_format": "json",
        # Many small transactions, so that few moments lie outside of one.
        "worker__commit_rows": "100",
        "worker__commit_interval": "0.1",
        **(settings or {}),
    }
    environment = {
        **clean_environment(),
        **{f"PAIRSCORE_{each.upper()}": value for each, value in own.items()},
    }
    kafka = KafkaSettings.model_validate(
        {each.removeprefix(_KAFKA): own[each] for each in own if each.startswith(_KAFKA)}
    )
    admin = AdminClient(client(servers))
    create_topics(kafka, admin, admin.list_topics(timeout=_ASK_SECONDS))
    _await_topics(admin, Topics.of(kafka).all)
    if not stage.scale.long:
        _notice_deaths_soon(admin, group_of(kafka))
    with (
        consumer(servers) as reading,
        consumer(servers, group_of(kafka)) as onlooker,
        Supervisor(stage.nursery, folder) as supervisor,
    ):
        # Librdkafka's admin client hangs if asked of a group while its coordinator is being made.
        onlooker.committed([TopicPartition(Topics.of(kafka).pairs, 0)], timeout=_ASK_SECONDS)
        scores = Scores(reading, Topics.of(kafka).scores, PARTITIONS)
        made = Fleet(stage, supervisor, kafka, scores, admin, onlooker, environment)
        if sink:
            made.start_sink()
        for _ in range(workers):
            made.start_worker()
        yield made
    admin.delete_topics(list(Topics.of(kafka).all))


def group_of(settings: KafkaSettings) -> str:
    """The workers' consumer group."""
    return f"{settings.topic_prefix}worker"


def _await_topics(admin: AdminClient, names: Sequence[str]) -> None:
    """Wait until the broker shows what it has created; services that start earlier end with 3."""
    wait_until(lambda: set(names) <= admin.list_topics(timeout=_ASK_SECONDS).topics.keys())


def _notice_deaths_soon(admin: AdminClient, group: str) -> None:
    """Have Kafka miss a killed member after the shortest time that it allows."""
    entry = ConfigEntry(
        "consumer.session.timeout.ms",
        str(_SESSION_MS),
        incremental_operation=AlterConfigOpType.SET,
    )
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(_ASK_SECONDS)
