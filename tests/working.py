"""Workers in this process, on topics of their own, with a scorer that does what it is told."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime

import requests
from confluent_kafka import KafkaException, Message, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from pairscore.pair import Failure, Outcome, Pair, Reason, Score
from shared.clients import connect, end_offsets, make_consumer, make_producer
from shared.connection import Connection
from shared.messages import PairMessage, ScoreMessage, decode, key_of
from shared.settings import KafkaSettings, WorkerSettings
from shared.shutdown import StopSignal
from shared.telemetry.traces import HEADER
from shared.topics import Topics, create_topics
from tests.fetching import wait_until
from worker.__main__ import GROUP, run
from worker.scoring import Scorer
from worker.transactions import Transactions

WITHIN = 30.0
_ASK_SECONDS = 5.0
SCORE = Score(25.0, 0.25, caption_truncated=False, image_sha256="0" * 64, attempts=1)
PASSING = Failure(Reason.HTTP_ERROR, "503", attempts=1, retryable=True)
_BEFORE, _AFTER = "http://e.org/", ".jpg"


def url_of(row: int) -> str:
    return f"{_BEFORE}{row}{_AFTER}"


class Told:
    """Answers at once with what `answer` gives; keeps the pair until told where that is None."""

    fingerprint = "told"

    def __init__(self, answer: Callable[[Pair], Outcome | None] = lambda _: SCORE) -> None:
        self.answer = answer
        self.seen: list[tuple[float, str]] = []
        self.urgent: list[str] = []
        self.kept: list[Future[Outcome]] = []
        self._kept_of: dict[str, Future[Outcome]] = {}

    def submit(self, pair: Pair, *, urgent: bool = False) -> Future[Outcome]:
        self.seen.append((time.time(), pair.url))
        if urgent:
            self.urgent.append(pair.url)
        future: Future[Outcome] = Future()
        outcome = self.answer(pair)
        if outcome is None:
            self._kept_of[pair.url] = future
            self.kept.append(future)
        else:
            future.set_result(outcome)
        return future

    def rows(self) -> list[int]:
        """Whose URLs were handed to it, as often as they were."""
        return sorted(int(url.removeprefix(_BEFORE).removesuffix(_AFTER)) for _, url in self.seen)

    def finish(self, rows: range) -> None:
        """Give a score to rows that are kept."""
        for row in rows:
            self._kept_of[url_of(row)].set_result(SCORE)

    def close(self) -> None:
        pass


class Fleet:
    """Topics of one test, and what is on them."""

    def __init__(self, bootstrap: str, prefix: str, **kafka: object) -> None:
        self.settings = KafkaSettings(
            bootstrap_servers=bootstrap, topic_prefix=prefix, partitions=3, **kafka
        )
        self.topics = Topics.of(self.settings)
        self.connection = Connection(self.settings)
        self.admin, found = connect(self.connection)
        create_topics(self.settings, self.admin, found)
        self.producer = make_producer(self.connection, transactional_id=None)

    def publish(
        self, rows: range, topic: str | None = None, trace: str | None = None, **changes: object
    ) -> None:
        for row in rows:
            pair = PairMessage(
                job="j", row=row, url=url_of(row), caption="a", created_at=datetime.now(UTC)
            ).model_copy(update=changes)
            self.producer.produce(
                topic or self.topics.pairs,
                key=key_of(pair.url),
                value=pair.encode(),
                headers=[] if trace is None else [(HEADER, trace)],
            )
        self.producer.flush(WITHIN)

    def publish_bytes(self, value: bytes, key: bytes | None = None) -> None:
        self.producer.produce(self.topics.pairs, key=key, value=value)
        self.producer.flush(WITHIN)

    def read(self, topic: str) -> list[Message]:
        """Everything that a read_committed reader sees."""
        numbers = self.admin.list_topics(topic, timeout=WITHIN).topics[topic].partitions
        consumer = make_consumer(
            self.connection,
            group="test",
            extra={"enable.partition.eof": True, "fetch.wait.max.ms": 20},
        )
        consumer.list_topics(topic, timeout=WITHIN)  # else it looks for leaders half a second later
        consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
        left, found = set(numbers), []
        while left:
            message = consumer.poll(WITHIN)
            assert message is not None
            if message.error() is None:
                found.append(message)
            else:
                left.discard(message.partition())
        consumer.close()
        return found

    def settled(self, topic: str) -> list[Message]:
        """The same, with what was committed this moment: readers hear of that a little later."""
        numbers = self.admin.list_topics(topic, timeout=WITHIN).topics[topic].partitions
        places = [(topic, number) for number in numbers]

        def ends(*, committed: bool) -> dict[tuple[str, int], int]:
            return end_offsets(self.admin, places, committed=committed)

        def settled() -> bool:
            try:
                return ends(committed=True) == ends(committed=False)
            except KafkaException:  # a broker that was away leads nothing for a moment
                return False

        wait_until(settled, within=WITHIN)
        return self.read(topic)

    def scores(self) -> list[ScoreMessage]:
        decoded = [
            decode(ScoreMessage, message.value()) for message in self.read(self.topics.scores)
        ]
        scores = [each for each in decoded if isinstance(each, ScoreMessage)]
        assert len(scores) == len(decoded)
        return scores

    def rows(self) -> list[int]:
        return sorted(score.row for score in self.scores())

    def members(self) -> int:
        """How many workers have partitions."""
        group = self.settings.topic_prefix + GROUP
        (described,) = self.admin.describe_consumer_groups([group]).values()
        try:
            members = described.result(_ASK_SECONDS).members
        except (TimeoutError, KafkaException):  # as of a busy broker; asked again
            return 0
        return sum(bool(member.assignment.topic_partitions) for member in members)

    def lag(self) -> int:
        partitions = [(topic, n) for topic in self.topics.to_score for n in range(3)]
        consumer = make_consumer(self.connection, group=GROUP)
        committed = consumer.committed([TopicPartition(*each) for each in partitions], WITHIN)
        consumer.close()
        ends = end_offsets(self.admin, partitions, committed=True)
        return sum(ends[c.topic, c.partition] - max(0, c.offset) for c in committed)


@contextmanager
def working(
    fleet: Fleet,
    scorer: Scorer,
    *,
    transactions: type[Transactions] = Transactions,
    **settings: object,
) -> Iterator[StopSignal]:
    """A worker in a thread; what ends it is raised on leaving."""
    options = {
        "kafka": fleet.settings,
        "worker": {"id": "w"},
        "telemetry": {"port": 0},
        "window": 1_000,
    }
    made = WorkerSettings(**(options | settings))  # type: ignore[arg-type]
    stop = StopSignal()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run(made, stop, make_scorer=lambda _: scorer, make_transactions=transactions)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)
            stop.ask()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield stop
    finally:
        stop.ask()
        thread.join(WITHIN)
        if errors:  # rather than what the test misses because of it
            raise errors[0]
    assert not thread.is_alive()


def said_by_worker(port: int) -> Mapping[str, float]:
    """Every sample of a worker's metrics, by its name and the value of its label, if it has one."""
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=WITHIN).text
    return {
        "/".join((sample.name.removeprefix("pairscore_worker_"), *sample.labels.values())): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("pairscore_worker_")
    }
