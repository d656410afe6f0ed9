"""What a process remembers of batches, and for how long; what it publishes again, and what not."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Response

from pairscore.errors import EnvironmentFault
from producer.api import batches
from producer.api.answers import Answers, Awaited
from producer.api.batch import Batch, Sender, is_batch
from producer.api.batches import Batches
from producer.api.jobs import JobBook, Jobs
from producer.api.problems import Kind, ProblemError
from producer.api.quotas import open_quotas
from producer.api.service import is_unkeyed, job_name
from producer.job import OwnJob
from shared.messages import ScoreMessage, check_job
from shared.results import JobStatus, Page, make_status
from tests.api_clients import a_client
from tests.fetching import wait_until

NOW = datetime(2026, 1, 31, tzinfo=UTC)
FAR = 20.0


class Store:
    """Has all outcomes of the jobs that it is told to have."""

    def __init__(self, book: JobBook) -> None:
        self.book = book
        self.has: set[str] = set()

    def job(self, name: str) -> JobStatus | None:
        message = self.book.find(name)
        if message is None or name not in self.has:
            return None
        return make_status(
            [("", "m", message.rows_published)],
            job=name,
            source="api",
            state="closed",
            rows_published=message.rows_published,
            rows=message.rows,
            result=None,
            created_at=NOW,
            updated_at=NOW,
        )

    def page(self, name: str, start: int, limit: int) -> Page:
        # No more than two at a time, as where they are long.
        rows = range(start, start + min(limit, 2))
        return Page([outcome(name, row) for row in rows], more=True)


class Service:
    """Publishes into a list, unless a fault is put in its way."""

    def __init__(self) -> None:
        self.answers = Answers("k")
        self.book = JobBook()
        self.store = Store(self.book)
        self.jobs = Jobs(self.book, self.store)  # type: ignore[arg-type]
        self.parts = SimpleNamespace(answers=self.answers, stop=SimpleNamespace(asked=False))
        self.quotas = open_quotas(None, 1.0)
        self.faults: list[EnvironmentFault] = []
        self.lots: list[tuple[str, Awaited]] = []
        self.held = asyncio.Event()
        self.held.set()

    def check_kafka(self) -> None:
        pass

    async def read(self, function: Callable[..., Any], *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return function(*arguments)

    async def publish_lot(
        self, pairs: Sequence[Any], *, client: str | None, job: OwnJob, awaited: Awaited
    ) -> None:
        await asyncio.sleep(0)
        await self.held.wait()
        if self.faults:
            raise self.faults.pop()
        self.answers.expect(awaited, job.job, 0)
        self.book.know(job.closed(len(pairs)))
        self.lots.append((job.job, awaited))

    def answer(self, lot: int) -> None:
        name, awaited = self.lots[lot]
        awaited.outcomes[:] = [outcome(name, row) for row in range(len(awaited.outcomes))]
        awaited.done.set()


def outcome(job: str, row: int) -> ScoreMessage:
    return ScoreMessage(
        job=job,
        row=row,
        url="u",
        caption="c",
        similarity=row,
        cosine=0.5,
        model="m",
        attempts=1,
        scored_at=NOW,
    )


def batch_of(rows: int, *, engine: str = "e", client: Any = None, **more: Any) -> Batch:
    sender = Sender(engine, more.pop("id", "1"), client)
    return Batch.of(sender, tuple((f"u{row}", "c") for row in range(rows)), **more)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def kept(service: Service) -> Batches:
    return Batches(service)  # type: ignore[arg-type]


async def send(kept: Batches, batch: Batch, seconds: float = 0) -> list[float | None] | None:
    found = await kept.send(batch, seconds, Response())
    return None if found is None else [each.similarity for each in found.outcomes]


def test_names_tell_apart_what_is_not_the_same_batch():
    acme, other = a_client("acme"), a_client("other")
    made = [
        batch_of(2),
        batch_of(3),
        batch_of(2, id="2"),
        batch_of(2, engine="f"),
        batch_of(2, client=acme),
        batch_of(2, client=other),
        batch_of(2, numbers=(1, 2)),
        batch_of(2, numbers=(2, 1)),
        batch_of(2, told="q"),
        Batch.of(Sender("e", "1", None), (("u", "0c"), ("u1", "c"))),
    ]
    names = [batch.name for batch in made]
    assert len(set(names)) == len(made)
    assert names == [batch.name for batch in made]
    for name in names:
        assert check_job(name) == name


@pytest.mark.parametrize("engine", ["bigquery", "snowflake"])
def test_names_are_known_for_what_they_are(engine):
    batches_made = [batch_of(2, engine=engine), batch_of(2, engine=engine, numbers=(2, 1))]
    made = [*(batch.name for batch in batches_made), job_name("acme", None), job_name("acme", "k")]
    assert [is_batch(name) for name in made] == [True, True, False, False]
    assert [is_unkeyed(name) for name in made] == [False, False, True, False]


async def _late(service: Service, kept: Batches) -> None:
    assert await send(kept, batch_of(3)) is None
    assert await send(kept, batch_of(3)) is None
    service.answer(0)
    assert await send(kept, batch_of(3)) == [0, 1, 2]
    assert await send(kept, batch_of(3)) == [0, 1, 2]
    assert len(service.lots) == 1


def test_late_batch_is_published_once_and_goes_on(service, kept):
    asyncio.run(_late(service, kept))


async def _unheard(service: Service, kept: Batches) -> None:
    batch = batch_of(3)
    waiting = asyncio.create_task(send(kept, batch, FAR))
    await asyncio.sleep(0.2)
    service.store.has.add(batch.name)
    # No reply comes, and nobody asks again.
    assert await waiting == [0, 1, 2]
    assert await send(kept, batch) == [0, 1, 2]
    assert len(service.lots) == 1


def test_batch_whose_replies_are_lost_is_read_from_the_store(service, kept, monkeypatch):
    monkeypatch.setattr(batches, "STORE_SECONDS", 0.05)
    asyncio.run(_unheard(service, kept))


async def _unreadable(service: Service, kept: Batches) -> None:
    async def read(*_: Any) -> Any:
        raise EnvironmentFault("the store is away")

    service.read = read  # type: ignore[method-assign,assignment]
    waiting = asyncio.create_task(send(kept, batch_of(3), FAR))
    await asyncio.sleep(0.2)
    service.answer(0)
    assert await waiting == [0, 1, 2]


def test_batch_is_waited_for_while_the_store_is_away(service, kept, monkeypatch):
    monkeypatch.setattr(batches, "STORE_SECONDS", 0.05)
    asyncio.run(_unreadable(service, kept))


async def _slow_store(service: Service, kept: Batches) -> None:
    async def read(*_: Any) -> Any:
        await asyncio.sleep(FAR)

    service.read = read  # type: ignore[method-assign,assignment]
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await send(kept, batch_of(3)) is None
    assert await send(kept, batch_of(3), 0.3) is None
    waiting = [asyncio.create_task(send(kept, batch_of(3), FAR)) for _ in range(2)]
    await asyncio.sleep(0.3)
    service.answer(0)
    assert [await each for each in waiting] == [[0, 1, 2]] * 2
    assert loop.time() - began < FAR / 10


def test_store_that_is_slow_holds_up_no_answer(service, kept, monkeypatch):
    monkeypatch.setattr(batches, "STORE_SECONDS", 0.05)
    asyncio.run(_slow_store(service, kept))


async def _failing(service: Service, kept: Batches) -> None:
    client = a_client(rows_per_day=3)
    batch = batch_of(3, client=client)
    service.faults.append(EnvironmentFault("Kafka is away"))
    found = await asyncio.gather(*[send(kept, batch) for _ in range(3)], return_exceptions=True)
    assert [str(each) for each in found] == ["Kafka is away"] * 3
    assert len(kept) == 0
    # Its rows were given back, or this would be more than the client may have in a day.
    assert await send(kept, batch) is None
    service.answer(0)
    assert await send(kept, batch) == [0, 1, 2]


def test_batch_that_was_not_published_begins_anew(service, kept):
    asyncio.run(_failing(service, kept))


async def _refused(service: Service, kept: Batches) -> None:
    with pytest.raises(ProblemError) as refused:
        await send(kept, batch_of(3, client=a_client(rows_per_day=2)))
    assert refused.value.kind is Kind.TOO_MANY
    assert (len(kept), service.lots) == (0, [])


def test_batch_that_is_over_the_quota_is_not_remembered(service, kept):
    asyncio.run(_refused(service, kept))


async def _many(service: Service, kept: Batches) -> None:
    for number in range(4):
        assert await send(kept, batch_of(3, id=str(number))) is None
    assert len(kept) == 3
    # What is forgotten is not waited for, and comes from the store.
    assert len(service.answers) == 9
    assert await send(kept, batch_of(3, id="0")) is None
    service.store.has.add(service.lots[0][0])
    assert await send(kept, batch_of(3, id="0")) == [0, 1, 2]
    assert len(service.lots) == 4


def test_too_many_rows_are_forgotten_the_oldest_first(service, kept, monkeypatch):
    monkeypatch.setattr(batches, "KEPT_ROWS", 9)
    asyncio.run(_many(service, kept))


async def _old(service: Service, kept: Batches) -> None:
    assert await send(kept, batch_of(3)) is None
    assert len(kept) == 1
    await asyncio.to_thread(wait_until, lambda: len(kept) == 0)
    assert len(service.answers) == 0


def test_batches_that_nobody_asks_for_are_forgotten_after_a_while(service, kept, monkeypatch):
    monkeypatch.setattr(batches, "KEPT_SECONDS", 0.1)
    asyncio.run(_old(service, kept))


async def _asked(service: Service, kept: Batches) -> None:
    waiting = asyncio.create_task(send(kept, batch_of(3), FAR))
    await asyncio.to_thread(wait_until, lambda: len(service.lots) == 1)
    for number in range(3):
        assert await send(kept, batch_of(3, id=f"n{number}")) is None
    assert len(kept) == 1
    service.answer(0)
    assert await waiting == [0, 1, 2]


def test_batch_that_is_asked_for_is_not_forgotten(service, kept, monkeypatch):
    monkeypatch.setattr(batches, "KEPT_ROWS", 0)
    asyncio.run(_asked(service, kept))


async def _cut_off(service: Service, kept: Batches) -> None:
    service.held.clear()
    asking = asyncio.create_task(send(kept, batch_of(3)))
    await asyncio.to_thread(wait_until, lambda: len(kept) == 1)
    asking.cancel()
    await asyncio.wait({asking})
    assert (len(kept), service.lots) == (1, [])
    service.held.set()
    await asyncio.to_thread(wait_until, lambda: len(service.lots) == 1)
    await asyncio.to_thread(wait_until, lambda: len(kept) == 0)
    assert len(service.answers) == 0


def test_batch_whose_client_went_away_is_published_and_forgotten(service, kept, monkeypatch):
    monkeypatch.setattr(batches, "KEPT_ROWS", 0)
    asyncio.run(_cut_off(service, kept))


async def _ending(service: Service, kept: Batches) -> None:
    waiting = asyncio.create_task(send(kept, batch_of(3), 600))
    await asyncio.to_thread(wait_until, lambda: len(service.lots) == 1)
    service.parts.stop.asked = True
    assert await asyncio.wait_for(waiting, FAR) is None


def test_process_that_is_to_end_keeps_nobody_waiting(service, kept):
    asyncio.run(_ending(service, kept))
