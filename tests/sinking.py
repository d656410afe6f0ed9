"""Outcomes for a sink to store: published as workers publish them, and what should come of them."""

import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from pairscore.csv_file import Plan, prepare, run
from pairscore.csv_file.layout import malformation
from pairscore.csv_file.records import Record, quote_cell
from pairscore.csv_file.source import open_source
from pairscore.pair import Failure, Outcome, Pair, Reason, Score
from shared.clients import connect, make_admin, make_producer
from shared.connection import Connection
from shared.messages import CsvFormat, JobMessage, JobState, PairMessage, ScoreMessage, key_of
from shared.results.folder import FolderResults
from shared.results.status import JobStatus
from shared.settings import KafkaSettings
from shared.topics import Topics, create_topics
from tests import commands
from tests.fetching import wait_until

MODEL = "model-one"
DEADLINE = 60.0
COMMAND = [sys.executable, "-m", "sink"]

ODD = (
    b"\xef\xbb\xbfid,url,caption\r\n"
    b'1,http://a/1,"x, ""y""\r\nz"\r\n'
    b"2,http://a/2\r\n"
    b"\r\n"
    b"3,http://a/3,caf\xc3\xa9 \xf0\x9f\x90\x88\r\n"
    b'4,http://a/bad,c,surplus,"a\nb"\r\n'
    b'5,"http://a/bad",c\r\n'
    b"  \r\n"
    b'"6",http://a/4,d"x"\r\n'
    b'7,http://a/5," q"tail\r\n'
    b"8,http://a/6,d"
)
"""A file of everything that is easily lost: marks, terminators, quotes nobody needed, odd rows."""


def outcome_of(pair: Pair) -> Outcome:
    """An outcome that depends on the pair alone."""
    if "bad" in pair.url:
        return Failure(Reason.HTTP_ERROR, '404, "gone"', attempts=3)
    digest = hashlib.sha256(f"{pair.url}\0{pair.caption}".encode()).hexdigest()
    value = int(digest[:4], 16) / 0xFFFF
    return Score(value * 100, value, "é" in pair.caption, digest, 1)


@dataclass(frozen=True)
class Job:
    """A CSV file's outcomes as messages, and the file that they must become."""

    name: str
    scores: list[ScoreMessage]
    closed: JobMessage
    expected: bytes
    output_name: str

    @property
    def begun(self) -> JobMessage:
        """What is said when no row is published yet."""
        return self.closed.model_copy(
            update={"state": JobState.OPEN, "rows": None, "rows_published": 0}
        )


def job_of(source: Path, name: str, *, output: str | None = None, **options: Any) -> Job:
    """Have `pairscore.csv_file` score a file, and say the same in messages."""
    place = source.with_name(output) if output is not None else None
    plan = prepare(source, place, **options)
    summary = run(plan, lambda pairs: map(outcome_of, pairs), fingerprint=MODEL)
    with open_source(source) as opened:
        header, *records = opened.records(plan.dialect.delimiter)
    layout = plan.layout
    closed = JobMessage(
        job=name,
        source=source.name,
        source_sha256=plan.input_sha256,
        header=plan.header,
        csv=CsvFormat.model_validate(
            {
                "delimiter": layout.delimiter,
                "terminator": layout.terminator,
                "bom": plan.dialect.bom,
                "header_raw": _exact(header, layout.delimiter),
                "dropped": tuple(sorted(layout.dropped)),
                "details": layout.details,
                "output_name": plan.output.name,
            }
        ),
        rows_published=len(records),
        rows=len(records),
        state=JobState.CLOSED,
        created_at=datetime.now(UTC),
    )
    scores = [_score(plan, name, row, record) for row, record in enumerate(records)]
    return Job(name, scores, closed, summary.output.read_bytes(), plan.output.name)


def plain_job(name: str, rows: int, folder: Path, output: str | None = None) -> Job:
    """A job of a plain file, every 7th row of which is a failure."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{name}.csv"
    with source.open("w") as file:
        file.write("url,caption\n")
        for row in range(rows):
            file.write(f"http://a/{'bad' if row % 7 == 3 else 'good'}/{row},caption {row}\n")
    return job_of(source, name, output=output)


def _score(plan: Plan, job: str, row: int, record: Record) -> ScoreMessage:
    cells = record.cells
    url = cells[plan.url.index] if plan.url.index < len(cells) else ""
    caption = cells[plan.caption.index] if plan.caption.index < len(cells) else ""
    pair = PairMessage(
        job=job,
        row=row,
        url=url,
        caption=caption,
        columns=tuple(cells),
        raw=_exact(record, plan.layout.delimiter),
        width=plan.layout.width,
        created_at=datetime.now(UTC),
    )
    outcome = malformation(len(cells), plan.layout.width) or outcome_of(Pair(url, caption))
    return ScoreMessage.of(pair, outcome, model=MODEL, scored_at=datetime.now(UTC))


def _exact(record: Record, delimiter: str) -> str | None:
    plain = delimiter.join(quote_cell(cell, delimiter) for cell in record.cells)
    return None if plain == record.raw else record.raw


@dataclass
class Place:
    """Topics of a prefix's own, a folder of results, and the command that fills it."""

    settings: KafkaSettings
    results: Path
    connection: Connection = field(init=False)
    admin: AdminClient = field(init=False)
    topics: Topics = field(init=False)
    _producer: Producer | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.connection = Connection(self.settings)
        self.admin = make_admin(self.connection)
        self.topics = Topics.of(self.settings)

    def create(self) -> "Place":
        """Create the topics, or those that are missing."""
        create_topics(self.settings, *connect(self.connection))
        return self

    @property
    def producer(self) -> Producer:
        """A transactional producer, made when it is first needed."""
        if self._producer is None:
            self._producer = make_producer(self.connection, transactional_id="test")
            self._producer.init_transactions(DEADLINE)
        return self._producer

    def forget_producer(self) -> None:
        """Publish with another from now on: after brokers hung, this one may never find them again.

        See `shared.clients.REDISCOVERY`; the services begin anew then.
        """
        self._producer = None

    def publish(self, messages: Iterable[ScoreMessage | JobMessage], at_once: int = 1000) -> None:
        """Publish messages in transactions, outcomes by their URLs' partitions."""
        values = list(messages)
        for start in range(0, len(values), at_once):
            some = values[start : start + at_once]
            self._commit([self._record(message) for message in some])

    def _record(self, message: ScoreMessage | JobMessage) -> dict[str, Any]:
        if isinstance(message, JobMessage):
            return {"topic": self.topics.jobs, "value": message.encode(), "key": message.job}
        key = key_of(message.url)
        return {"topic": self.topics.scores, "value": message.encode(), "key": key}

    def publish_bytes(
        self, values: Sequence[bytes | None], topic: str | None = None, partition: int = 0
    ) -> None:
        """Publish what may be no message at all."""
        place = {"topic": topic or self.topics.scores, "key": b"key", "partition": partition}
        self._commit([{**place, "value": value} for value in values])

    def _commit(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Publish in one transaction, with a new producer if this one has lost its brokers."""
        deadline = time.monotonic() + 2 * DEADLINE
        while True:
            self.producer.begin_transaction()
            try:
                for record in records:
                    self.producer.produce(**record)
                self.producer.commit_transaction(DEADLINE)
            except KafkaException as error:
                if not error.args[0].txn_requires_abort() or time.monotonic() > deadline:
                    raise
                self.forget_producer()  # the next one's start aborts what this one began
            else:
                return

    def environment(self, **more: str) -> dict[str, str]:
        """What the command finds in its environment."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PAIRSCORE_")}
        return {
            **clean,
            "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS": self.settings.bootstrap_servers,
            "PAIRSCORE_KAFKA__TOPIC_PREFIX": self.settings.topic_prefix,
            "PAIRSCORE_KAFKA__PARTITIONS": str(self.settings.partitions),
            "PAIRSCORE_RESULTS": str(self.results),
            "PAIRSCORE_TELEMETRY__PORT": "0",
            **more,
        }

    def run(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return commands.run([*COMMAND, *arguments], self.environment(**more), within=DEADLINE)

    @contextmanager
    def sink(self, *module: str, **more: str) -> "Iterator[Sink]":
        """The CSV sink while the block runs, and never longer; `module` stands in for `sink`."""
        log = self.results.parent / f"sink-{len(list(self.results.parent.glob('sink-*')))}.log"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", *(module or ("sink",)), "csv"],
                env=self.environment(**more),
                stderr=stderr,
            )
            try:
                yield Sink(process, log)
            finally:
                process.kill()
                process.wait(DEADLINE)

    @property
    def status(self) -> dict[str, JobStatus]:
        """The jobs of the folder, by name."""
        return {status.job: status for status in FolderResults(self.results).jobs()}

    def complete(self, *jobs: str) -> bool:
        """Whether all these jobs are."""
        found = self.status
        return all(job in found and found[job].state == "complete" for job in jobs)

    def result(self, job: Job) -> bytes:
        """The file of a job's result."""
        return (self.results / job.name / job.output_name).read_bytes()

    def manifest(self, job: str) -> dict[str, Any]:
        """A job's manifest."""
        found: dict[str, Any] = json.loads((self.results / job / "manifest.json").read_bytes())
        return found

    def assert_exact(self, job: Job) -> None:
        """The result is byte for byte the expected one, and everything that counts it agrees."""
        assert self.result(job) == job.expected
        failed: dict[str, int] = {}
        for score in job.scores:
            if score.error is not None:
                failed[score.error.value] = failed.get(score.error.value, 0) + 1
        rows, scored = len(job.scores), len(job.scores) - sum(failed.values())
        manifest = self.manifest(job.name)
        assert (manifest["rows"], manifest["scored"], manifest["failed"]) == (rows, scored, failed)
        assert manifest["output_sha256"] == hashlib.sha256(job.expected).hexdigest()
        assert manifest["input_sha256"] == job.closed.source_sha256
        status = self.status[job.name]
        assert status.state == "complete"
        assert (status.rows, status.scored, status.lag) == (rows, scored, 0)
        assert {reason.value: count for reason, count in status.failed.items()} == failed


@dataclass(frozen=True)
class Sink:
    """A running sink."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        found = []
        for line in self.log.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"message": line, "level": "raw"})
        return found

    @property
    def ended(self) -> bool:
        """Whether the process has."""
        return self.process.poll() is not None

    def said(self, text: str) -> bool:
        """Whether a line has the text in its message."""
        return any(text in line["message"] for line in self.lines)

    @property
    def port(self) -> int:
        """Of its telemetry."""
        wait_until(lambda: any("port" in line for line in self.lines), within=DEADLINE)
        return int(next(line["port"] for line in self.lines if "port" in line))

    def terminate(self) -> int:
        """Ask it to end; its exit code."""
        self.process.terminate()
        return self.process.wait(DEADLINE)


def get(sink: Sink, path: str) -> tuple[int, str]:
    """What the sink's port answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{sink.port}{path}", timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def place(servers: str, prefix: str, folder: Path, **settings: Any) -> Place:
    """A place whose topics are there."""
    kafka = KafkaSettings(
        **{"bootstrap_servers": servers, "topic_prefix": prefix, "partitions": 3} | settings
    )
    return Place(kafka, folder / "results").create()
