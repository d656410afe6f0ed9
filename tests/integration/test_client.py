"""The client against the real API, with Kafka, a worker and the CSV sink behind it."""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from deploy.local import Kafka
from pairscore.client import ApiError, Client, Pending, Unfinished
from pairscore.errors import InputError
from pairscore.pair import Failure, Outcome, Pair, Reason
from shared.messages import JobMessage, decode
from tests.api_clients import a_key, write_keys
from tests.fetching import wait_until
from tests.serving import Api, serving_api
from tests.sinking import Place
from tests.working import SCORE, Fleet, Told, url_of, working

WITHIN = 60.0
GONE = Failure(Reason.HTTP_ERROR, "404", attempts=1)


def gone_where_bad(pair: Pair) -> Outcome:
    return GONE if "bad" in pair.url else SCORE


DEADLINE = datetime(2026, 12, 24, 6, tzinfo=UTC)


class World:
    """A fleet, where the sink and the API are started when a test wants them."""

    def __init__(self, kafka: Kafka, prefix: str, folder: Path) -> None:
        self.fleet = Fleet(kafka.bootstrap_servers, prefix)
        self.folder = folder
        self.results = folder / "results"
        self.results.mkdir()

    @contextmanager
    def api(self, **options: Any) -> Iterator[Api]:
        with serving_api(self.fleet.settings, self.results, api=options) as api:
            yield api

    @contextmanager
    def storing(self) -> Iterator[None]:
        """The real CSV sink."""
        with Place(self.fleet.settings, self.results).sink():
            yield

    @contextmanager
    def all(self, told: Told, *, window: int = 1_000) -> Iterator[Client]:
        with ExitStack() as stack:
            stack.enter_context(self.storing())
            stack.enter_context(working(self.fleet, told, window=window))
            api = stack.enter_context(self.api())
            yield stack.enter_context(Client(api.url))


@pytest.fixture
def world(kafka: Kafka, topic_prefix: str, tmp_path: Path) -> World:
    return World(kafka, topic_prefix, tmp_path)


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """What a worker says of cancellations; the API has taken the place of pytest's log handlers."""
    logger, messages = logging.getLogger("worker.cancellations"), list[str]()

    def hear(record: logging.LogRecord) -> bool:
        messages.append(record.getMessage())
        return True

    logger.addFilter(hear)
    yield messages
    logger.removeFilter(hear)


def pairs_of(count: int) -> list[tuple[str, str]]:
    return [(url_of(row), f"caption {row}") for row in range(count)]


def test_pairs_are_scored_in_line(world: World) -> None:
    told = Told(gone_where_bad)
    with (
        working(world.fleet, told),
        world.api() as api,
        Client(api.url) as client,
    ):
        given: list[Pair | tuple[str, str]] = [
            Pair(url_of(1), "a"),
            ("http://e.org/bad.jpg", "b"),
            (url_of(3), "c"),
        ]
        assert client.score(given) == [SCORE, GONE, SCORE]
        assert client.score(pairs_of(1_100)) == [SCORE] * 1_100
    assert len(told.seen) == 1_103


def test_what_is_pending_is_had_from_the_results(world: World) -> None:
    told = Told(lambda pair: SCORE if pair.url == url_of(0) else None)
    with world.all(told) as client:
        first, second = client.score(pairs_of(2), 0.0, wait=False)
        # A row may be there at once; the one that is kept cannot be.
        assert isinstance(second, Pending)
        assert first == SCORE or isinstance(first, Pending)
        wait_until(lambda: len(told.kept) == 1, within=WITHIN)
        with pytest.raises(Unfinished) as caught:
            client.score([("http://e.org/9.jpg", "c")], 0.0, within=0.5)
        assert isinstance(caught.value.outcomes[0], Pending)
        wait_until(lambda: len(told.kept) == 2, within=WITHIN)
        told.finish(range(1, 2))
        told.finish(range(9, 10))
        rows = client.job(second.job).scores(second.row, follow=True)
        assert next(rows).outcome == SCORE
        told.answer = lambda _: SCORE
        assert client.score(pairs_of(50), 0.0, within=WITHIN) == [SCORE] * 50


@pytest.mark.parametrize("kind", ["pairs", "ndjson", "csv"])
def test_a_job_is_submitted_waited_for_and_downloaded(world: World, kind: str) -> None:
    count = 2_500
    pairs = [*pairs_of(count), ("http://e.org/bad.jpg", 'an "odd", one')]
    source: Any = (pair for pair in pairs)
    if kind == "ndjson":
        source = world.folder / "in.ndjson"
        source.write_text("".join(json.dumps({"url": u, "caption": c}) + "\n" for u, c in pairs))
    elif kind == "csv":
        source = world.folder / "in.csv"
        rows = [
            f'{n},{url},"{c.replace(chr(34), chr(34) * 2)}"\n' for n, (url, c) in enumerate(pairs)
        ]
        source.write_text("id,picture,words\n" + "".join(rows))
    columns: dict[str, Any] = (
        {"url_column": "picture", "caption_column": "words"} if kind == "csv" else {}
    )
    with world.all(Told(gone_where_bad)) as client:
        job = client.submit(source, **columns)
        seen = list(job.events())
        status = job.wait(within=WITHIN)
        assert seen[-1] == status
        assert (status.rows, status.scored, status.failed) == (2_501, 2_500, {"http_error": 1})
        outcomes = list(job.scores())
        assert [each.row for each in outcomes] == list(range(2_501))
        assert [(each.url, each.caption) for each in outcomes] == pairs
        assert {each.outcome for each in outcomes} == {SCORE, GONE}
        assert [each.row for each in job.scores(2_499, follow=True)] == [2_499, 2_500]
        lines = job.download(world.folder / "out.ndjson", "ndjson").read_text().splitlines()
        assert [json.loads(line)["row"] for line in lines] == list(range(2_501))
        text = job.download(world.folder / "out.csv").read_text()
        (listed,) = client.jobs()
        assert listed == status
    begins = (
        "id,picture,words,similarity,error" if kind == "csv" else "url,caption,similarity,error"
    )
    first, *rows = text.splitlines()
    assert first == begins
    assert len(rows) == 2_501
    assert rows[-1].endswith('http://e.org/bad.jpg,"an ""odd"", one",,http_error: 404')


def test_rows_are_followed_in_order_while_they_come(world: World) -> None:
    told = Told(lambda pair: None if pair.url == url_of(1) else SCORE)
    rows: list[int] = []
    with world.all(told) as client:
        job = client.submit(pairs_of(20))

        def follow() -> None:
            rows.extend(each.row for each in job.scores(follow=True))

        thread = threading.Thread(target=follow)
        thread.start()
        # Some are held back behind the one that is kept, in its partition; others are not.
        wait_until(lambda: job.status().scored >= 1, within=WITHIN)
        wait_until(lambda: len(told.kept) == 1, within=WITHIN)
        assert not any(row > 0 for row in rows)
        with pytest.raises(Unfinished):
            job.download(world.folder / "out.csv")
        told.finish(range(1, 2))
        thread.join(WITHIN)
    assert rows == list(range(20))


def test_a_cancelled_job_completes_with_what_was_scored(world: World, heard: list[str]) -> None:
    told = Told(lambda _: None)
    with world.all(told, window=2) as client:
        job = client.submit(pairs_of(40))
        wait_until(lambda: len(told.kept) > 0, within=WITHIN)
        assert job.cancel().rows == 40
        wait_until(lambda: f"job {job.name} is cancelled" in heard, within=WITHIN)
        for kept in told.kept:
            kept.set_result(SCORE)
        status = job.wait(within=WITHIN)
        assert status.scored == len(told.kept) < 40
        assert status.failed == {Reason.CANCELLED: 40 - status.scored}
        found = [each.outcome for each in job.scores()]
    assert sum(isinstance(each, Failure) for each in found) == status.failed[Reason.CANCELLED]


def test_the_same_key_is_the_same_job(world: World) -> None:
    with world.api() as api, Client(api.url) as client:
        first = client.submit(pairs_of(3), idempotency_key="k1")
        assert client.submit(pairs_of(3), idempotency_key="k1").name == first.name
        other = client.submit(
            pairs_of(3), deadline=DEADLINE.astimezone(timezone(timedelta(hours=9)))
        )
        assert other.name != first.name
        said = {each.key(): each.value() for each in world.fleet.settled(world.fleet.topics.jobs)}
        message = decode(JobMessage, said[other.name.encode()])
        assert isinstance(message, JobMessage)
        assert message.deadline == DEADLINE
        with pytest.raises(InputError, match="time zone"):
            client.submit(pairs_of(3), deadline=DEADLINE.replace(tzinfo=None))
        with pytest.raises(ApiError) as caught:
            client.submit(pairs_of(4), idempotency_key="k1")
        assert caught.value.status == 409
        assert len(client.jobs()) == 2
        assert len(client.jobs(limit=1)) == 1


def test_a_bad_row_is_named(world: World) -> None:
    source = world.folder / "in.ndjson"
    source.write_text('{"url": "u", "caption": "c"}\n\n{"url": "u"}\n')
    with world.api() as api, Client(api.url) as client, pytest.raises(ApiError) as caught:
        client.submit(source)
    assert (caught.value.status, caught.value.row, caught.value.line) == (422, 1, 3)
    assert caught.value.type == "urn:pairscore:problem:invalid"
    assert caught.value.request_id


def test_a_job_belongs_to_who_made_it(world: World) -> None:
    keys = world.folder / "keys.json"
    (one, of_one), (two, of_two) = a_key("one"), a_key("two")
    write_keys(keys, of_one, of_two)
    with world.api(keys=str(keys)) as api:
        with Client(api.url, one) as first, Client(api.url, two) as second:
            job = first.submit(pairs_of(3))
            assert job.status().rows == 3
            assert second.jobs() == []
            with pytest.raises(ApiError) as caught:
                second.job(job.name).status()
            assert caught.value.status == 404
        for wrong in (None, one[:-1] + "!"):
            with Client(api.url, wrong) as client, pytest.raises(ApiError) as caught:
                client.jobs()
            assert caught.value.status == 401


def test_a_long_upload_that_is_refused_says_why(world: World) -> None:
    """The API answers and hangs up while most of the body is still to be sent."""
    keys = world.folder / "keys.json"
    write_keys(keys, a_key("one")[1])
    source = world.folder / "in.csv"
    source.write_text("url,caption\n" + "http://e.org/1.jpg,a cat\n" * 800_000)
    with (
        world.api(keys=str(keys)) as api,
        Client(api.url, "ps_abcdef_" + "x" * 43) as client,
        pytest.raises(ApiError) as caught,
    ):
        client.submit(source)
    assert caught.value.status == 401


def test_pairs_that_kafka_may_have_are_not_sent_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = world.fleet
    with world.api() as api, Client(api.url) as client:
        # As if Kafka had not said in time what became of the transaction.
        monkeypatch.setattr("producer.api.service._KNOWN_SECONDS", 0.0)
        with pytest.raises(ApiError, match="it is not known whether") as caught:
            client.score([("http://e.org/1", "c"), ("http://e.org/2", "c")])
        assert (caught.value.status, caught.value.retry_after) == (504, 5.0)
        wait_until(lambda: len(fleet.settled(fleet.topics.interactive)) == 2, within=WITHIN)
    assert len(fleet.settled(fleet.topics.interactive)) == 2
