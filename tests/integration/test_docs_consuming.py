"""The consumers of docs/consuming.md, run as they stand there against real Kafka."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Producer

from deploy.local import Kafka
from pairscore.pair import Reason
from shared.clients import make_producer
from shared.examples import EXAMPLES
from shared.messages import JobMessage, JobState, ScoreMessage, decode, key_of
from tests.documents import blocks
from tests.fetching import wait_until
from tests.producing import Place, place

PAGE = "consuming.md"
READ_COMMITTED = '"isolation.level": "read_committed"'
WITHIN = 60.0
THEN = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)

Sent = Callable[..., None]


@pytest.fixture
def topics(kafka: Kafka, topic_prefix: str) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix)


@pytest.fixture
def send(topics: Place) -> Sent:
    """Publishes as a worker does: messages of one transaction, which is committed or aborted."""
    producer = make_producer(topics.connection, transactional_id="worker.test")
    producer.init_transactions(WITHIN)

    def publish(*messages: ScoreMessage | JobMessage, abort: bool = False) -> None:
        producer.begin_transaction()
        for message in messages:
            _produce(producer, topics, message)
        assert producer.flush(WITHIN) == 0  # what is aborted is on the topic too
        if abort:
            producer.abort_transaction(WITHIN)
        else:
            producer.commit_transaction(WITHIN)

    return publish


def _produce(producer: Producer, topics: Place, message: ScoreMessage | JobMessage) -> None:
    if isinstance(message, ScoreMessage):
        producer.produce(topics.topics.scores, message.encode(), key_of(message.url))
    else:
        producer.produce(topics.topics.jobs, message.encode(), message.job.encode())


def scored(row: int, similarity: float, job: str = "j") -> ScoreMessage:
    return ScoreMessage(
        job=job,
        row=row,
        url=f"https://images.example/{row}.jpg",
        caption="a cat",
        similarity=similarity,
        cosine=similarity / 100,
        model="m",
        attempts=1,
        scored_at=THEN,
    )


def failed(row: int, reason: Reason, job: str = "j") -> ScoreMessage:
    update = {"similarity": None, "cosine": None, "error": reason}
    return scored(row, 0.0, job).model_copy(update=update)


def said(job: str, published: int, rows: int | None = None) -> JobMessage:
    return JobMessage(
        job=job,
        source="api",
        rows_published=published,
        rows=rows,
        state=JobState.OPEN if rows is None else JobState.CLOSED,
        created_at=THEN,
    )


class Running:
    """A program of the page, and what it has printed so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: Path) -> None:
        self._process = process
        self._output = output

    @property
    def lines(self) -> list[str]:
        return self._output.read_text().splitlines()

    def expect(self, *lines: str) -> None:
        """Wait for these lines, in any order, and see that there are no others."""

        def all_there() -> bool:
            assert self._process.poll() is None, self._output.read_text()
            return len(self.lines) >= len(lines)

        wait_until(all_there, WITHIN)
        assert sorted(self.lines) == sorted(lines)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(WITHIN)


@contextmanager
def running(code: str, folder: Path, name: str, arguments: Sequence[str]) -> Iterator[Running]:
    script, output = folder / f"{name}.py", folder / f"{name}.out"
    script.write_text(code)
    with (
        output.open("wb") as out,
        subprocess.Popen(
            [sys.executable, str(script), *arguments], stdout=out, stderr=subprocess.DEVNULL
        ) as process,
    ):
        try:
            yield Running(process, output)
        finally:
            process.kill()


def test_the_consumer_prints_each_committed_row_and_goes_on_where_it_was(topics, send, tmp_path):
    code = blocks(PAGE, "python")[0]
    assert sum(1 for line in code.splitlines() if line.strip()) <= 15
    send(scored(0, 28.5), scored(1, 19.25))
    send(scored(2, 99.0), scored(3, 99.0), abort=True)
    send(scored(2, 30.0), failed(3, Reason.HTTP_ERROR))
    arguments = (topics.settings.bootstrap_servers, "readers", topics.topics.scores)
    committed = ("j 0 28.5 None", "j 1 19.25 None", "j 2 30.0 None", "j 3 None http_error")

    with running(code, tmp_path, "first", arguments) as consumer:
        consumer.expect(*committed)
        consumer.interrupt()
    send(scored(4, 21.0))
    with running(code, tmp_path, "second", arguments) as consumer:
        consumer.expect("j 4 21.0 None")

    assert READ_COMMITTED in code
    careless = code.replace(READ_COMMITTED, '"isolation.level": "read_uncommitted"')
    others = (topics.settings.bootstrap_servers, "careless", topics.topics.scores)
    with running(careless, tmp_path, "careless", others) as consumer:
        consumer.expect(*committed, "j 2 99.0 None", "j 3 99.0 None", "j 4 21.0 None")


def test_a_job_is_complete_when_it_is_closed_and_all_its_rows_are_there(topics, send, tmp_path):
    arguments = (
        topics.settings.bootstrap_servers,
        "counters",
        topics.topics.scores,
        topics.topics.jobs,
    )
    send(said("early", 2), said("empty", 0))
    send(scored(0, 1.0, "early"), scored(1, 2.0, "early"), scored(0, 3.0, "late"))
    with running(blocks(PAGE, "python")[1], tmp_path, "counter", arguments) as counter:
        send(said("empty", 0, rows=0))
        counter.expect("empty is complete")
        send(said("late", 2, rows=2))
        send(scored(1, 4.0, "late"), abort=True)
        send(said("early", 2, rows=2))
        counter.expect("empty is complete", "early is complete")
        send(failed(1, Reason.TIMEOUT, "late"))
        counter.expect("empty is complete", "early is complete", "late is complete")


def test_the_messages_of_the_page_are_what_is_published():
    scores = [decode(ScoreMessage, text.encode()) for text in blocks(PAGE, "json")[:2]]
    assert scores == list(EXAMPLES["score"])
    shown = [json.loads(text) for text in blocks(PAGE, "json")]
    encoded = [*EXAMPLES["score"], EXAMPLES["job"][1]]
    assert shown == [json.loads(message.encode()) for message in encoded]
