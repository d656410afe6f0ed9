"""The encode stage: what is urgent has batches of its own, and waits for one batch at most."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, cast

import numpy as np
import pytest

from pairscore.cache import Cache, CaptionEntry, Lifetimes
from pairscore.clip import ClipModel
from pairscore.fetch import Origin, Url
from pairscore.pair import Outcome
from pairscore.scorer import encode
from pairscore.scorer.encode import EncodeStage
from pairscore.scorer.in_flight import InFlight
from pairscore.scorer.slots import Slots
from pairscore.scorer.work import ContentWork, Row, UrlWork
from tests.fetching import wait_until

LIFETIMES = Lifetimes(least=60, most=100, absent=60, unknown_host=60)


class Token:
    truncated = False


class Model:
    """Notes the batches of images that it embeds, by their first pixels; waits for each `step`."""

    logit_scale = 100.0

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.captions: list[list[str]] = []
        self.steps = threading.Semaphore(0)

    def has_begun(self, batches: int) -> bool:
        return len(self.batches) == batches

    def tokenize(self, captions: list[str]) -> list[Token]:
        self.captions.append(captions)
        return [Token() for _ in captions]

    def embed_captions(self, captions: list[Token]) -> Any:
        return np.ones((len(captions), 1), np.float32)

    def embed_images(self, pixels: Any) -> Any:
        self.batches.append(pixels[:, 0, 0, 0].tolist())
        assert self.steps.acquire(timeout=20)
        return np.ones((len(pixels), 1), np.float32)


class Encoding:
    def __init__(self, batch_size: int) -> None:
        self.model = Model()
        self.cache = Cache(1_000_000, LIFETIMES, wall=lambda: 0.0)
        self.in_flight = InFlight(self.cache)
        self.crashes: list[BaseException] = []
        self.stage = EncodeStage(
            model=cast(ClipModel, self.model),
            batch_size=batch_size,
            in_flight=self.in_flight,
            cache=self.cache,
            slots=Slots(100),
            on_crash=self.crashes.append,
        )

    def row(self, number: int, caption: str = "a cat", *, urgent: bool = False) -> Row:
        row = Row(Url(f"http://a.example/{number}", "a.example"), caption, Future(), urgent)
        self.in_flight.enter(row)
        return row

    def decoded(self, number: int, *, urgent: bool = False) -> tuple[ContentWork, Future[Outcome]]:
        row = self.row(number, urgent=urgent)
        work = self.in_flight.admit(row)
        assert isinstance(work, UrlWork)
        content = self.in_flight.fetched(work, str(number), Origin(row.url.text))
        assert isinstance(content, ContentWork)
        content.pixels = np.full((3, 1, 1), number, np.uint8)
        assert isinstance(row.future, Future)
        return content, row.future

    def put(self, number: int, *, urgent: bool = False) -> Future[Outcome]:
        content, future = self.decoded(number, urgent=urgent)
        self.stage.put(content)
        return future


@pytest.fixture
def encoding() -> Iterator[Callable[[int], Encoding]]:
    made: list[Encoding] = []

    def make(batch_size: int) -> Encoding:
        made.append(Encoding(batch_size))
        return made[0]

    yield make
    made[0].model.steps.release(100)
    made[0].stage.close()
    assert made[0].crashes == []


def test_urgent_images_have_the_next_batch_and_have_it_alone(encoding):
    stage = encoding(4)
    futures = [stage.put(0)]
    wait_until(lambda: stage.model.batches == [[0]])
    futures += [stage.put(number) for number in (1, 2)]
    urgent = [stage.put(number, urgent=True) for number in (3, 4)]
    futures += [stage.put(5)]
    stage.model.steps.release(2)
    for future in urgent:
        future.result(20)
    stage.model.steps.release(1)
    for future in futures:
        future.result(20)
    assert stage.model.batches == [[0], [3, 4], [1, 2, 5]]


def test_no_batch_of_urgent_images_is_larger_than_others(encoding):
    stage = encoding(2)
    stage.put(0)
    wait_until(lambda: stage.model.batches == [[0]])
    stage.model.steps.release(10)
    urgent = [stage.put(number, urgent=True) for number in (1, 2, 3)]
    for future in urgent:
        future.result(20)
    assert all(len(batch) <= 2 for batch in stage.model.batches)


def test_an_urgent_image_overtakes_a_batch_that_waits_for_more(encoding, monkeypatch):
    monkeypatch.setattr(encode, "_LINGER", 3_600.0)
    stage = encoding(2)
    stage.model.steps.release(10)
    late, late_future = stage.decoded(1)  # on its way, so that the first waits for it
    first = stage.put(0)
    stage.put(2, urgent=True).result(20)
    assert not first.done()
    stage.stage.put(late)
    first.result(20)
    late_future.result(20)
    assert stage.model.batches == [[2], [0, 1]]


def test_urgent_rows_of_known_images_overtake_too(encoding):
    stage = encoding(4)
    stage.put(0)
    wait_until(lambda: stage.model.batches == [[0]])
    bulk = stage.put(1)
    row = stage.row(2, urgent=True)
    row.led_to("sha", np.ones(1, np.float32))
    stage.stage.put([row])
    stage.model.steps.release(1)
    assert isinstance(row.future, Future)
    row.future.result(20)
    assert not bulk.done()
    stage.model.steps.release(1)
    bulk.result(20)


def test_a_batch_is_the_same_where_nothing_is_urgent(encoding):
    stage = encoding(2)
    futures = [stage.put(0)]
    wait_until(lambda: stage.model.batches == [[0]])
    futures += [stage.put(number) for number in range(1, 6)]
    stage.model.steps.release(10)
    for future in futures:
        future.result(20)
    assert stage.model.batches == [[0], [1, 2], [3, 4], [5]]


def test_batches_are_shorter_for_a_while_after_something_urgent(encoding, monkeypatch):
    monkeypatch.setattr(encode, "_SHORT_SECONDS", 0.0)
    stage = encoding(16)
    stage.model.steps.release(1)
    stage.put(0).result(20)  # it knows how long an image takes from here
    for seconds, urgent, expected in (
        (3_600.0, 1, [[0], [1], [2, 3], [4, 5], [6]]),
        (0.0, 7, [[0], [1], [2, 3], [4, 5], [6], [7], [8, 9, 10, 11, 12]]),
    ):
        monkeypatch.setattr(encode, "_HURRY_SECONDS", seconds)
        begun = len(stage.model.batches)
        stage.put(urgent, urgent=True)
        wait_until(partial(stage.model.has_begun, begun + 1))
        futures = [stage.put(urgent + more) for more in range(1, 6)]
        stage.model.steps.release(len(expected) - begun)
        for future in futures:
            future.result(20)
        assert stage.model.batches == expected


def test_rows_of_one_image_leave_room_for_urgent_ones(encoding, monkeypatch):
    monkeypatch.setattr(encode, "_SHORT_SECONDS", 0.0)
    stage = encoding(16)
    stage.model.steps.release(10)
    content, first = stage.decoded(0)
    rows = [stage.row(0, f"caption {number}") for number in range(8)]
    urgent = [stage.row(0, "an urgent one", urgent=True), stage.row(1, "another", urgent=True)]
    for row in (*rows, urgent[0]):
        assert stage.in_flight.admit(row) is None  # they join
    urgent[1].led_to("sha", np.ones(1, np.float32))
    embed = stage.model.embed_captions

    def embed_captions(captions: list[Token]) -> Any:
        if len(stage.model.captions) == 2:
            stage.stage.put([urgent[1]])
        return embed(captions)

    monkeypatch.setattr(stage.model, "embed_captions", embed_captions)
    stage.stage.put(content)
    for future in (first, *(row.future for row in rows + urgent)):
        assert isinstance(future, Future)
        future.result(20)
    assert stage.model.captions == [
        ["an urgent one"],
        ["a cat", "caption 0"],
        ["another"],
        *([f"caption {number}", f"caption {number + 1}"] for number in (1, 3, 5)),
        ["caption 7"],
    ]


def test_captions_that_are_known_do_not_make_a_batch_short(encoding, monkeypatch):
    monkeypatch.setattr(encode, "_SHORT_SECONDS", 0.0)
    stage = encoding(16)
    stage.model.steps.release(10)
    stage.put(0, urgent=True).result(20)
    content, first = stage.decoded(1)
    captions = [f"caption {number}" for number in range(3)]
    for caption in captions:
        stage.cache.embedded_caption(caption, CaptionEntry(np.ones(1, np.float32), False))
    rows = [stage.row(1, caption) for caption in captions * 30]
    for row in rows:
        assert stage.in_flight.admit(row) is None
    sizes: list[int] = []
    score: Callable[[list[Row]], list[Outcome]] = stage.stage._score_rows

    def noted(some: list[Row]) -> list[Outcome]:
        sizes.append(len(some))
        return score(some)

    monkeypatch.setattr(stage.stage, "_score_rows", noted)
    stage.stage.put(content)
    for future in (first, *(row.future for row in rows)):
        assert isinstance(future, Future)
        future.result(20)
    assert sizes == [91]


@pytest.mark.parametrize("hurry", [False, True])
def test_an_image_is_not_kept_waiting_by_rows_of_known_images(encoding, monkeypatch, hurry):
    monkeypatch.setattr(encode, "_MAX_ROWS", 4)
    stage = encoding(16)
    known = [stage.row(7, f"caption {number}") for number in range(40)]
    for row in known:
        row.led_to("sha", np.ones(1, np.float32))
    stage.put(0)
    wait_until(partial(stage.model.has_begun, 1))
    if hurry:
        stage.stage.hurry()
    done: list[int] = []

    def note(number: int, _: Future[Outcome]) -> None:
        done.append(number)

    content, image = stage.decoded(1)
    for number, future in enumerate([image, *(row.future for row in known)]):
        assert isinstance(future, Future)
        future.add_done_callback(partial(note, number))
    stage.stage.put(known[:2])
    stage.stage.put(content)
    for row in known[2:]:
        stage.stage.put([row])
    stage.model.steps.release(2)
    wait_until(lambda: len(done) == 41)
    assert done.index(0) < 8
