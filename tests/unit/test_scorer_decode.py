"""The decode stage: what is urgent goes first, and waits for no slot of what is not."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np

from pairscore.cache import Cache, Lifetimes
from pairscore.fetch import Fetched, Url
from pairscore.pair import Failure
from pairscore.scorer.decode import DecodeStage
from pairscore.scorer.in_flight import InFlight
from pairscore.scorer.slots import Slots
from pairscore.scorer.work import ContentWork, Pixels, Row, UrlWork
from tests.fetching import wait_until

LIFETIMES = Lifetimes(least=60, most=100, absent=60, unknown_host=60)


class Decoder:
    """Notes what it decodes; waits over bodies that have a gate."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.gates: dict[bytes, threading.Event] = {}

    def gate(self, body: bytes) -> bytes:
        self.gates[body] = threading.Event()
        return body

    def configure_thread(self) -> None:
        pass

    def __call__(self, body: bytes) -> Pixels | Failure:
        self.begun.append(body)
        if body in self.gates:
            assert self.gates[body].wait(20)
        return np.zeros((3, 1, 1), np.uint8)


class Decoding:
    """A stage of one thread, and what it hands on."""

    def __init__(self, decoder: Decoder, slots: Slots) -> None:
        self.in_flight = InFlight(Cache(0, LIFETIMES, wall=lambda: 0.0))
        self.out: list[ContentWork] = []
        self.crashes: list[BaseException] = []
        self.stage = DecodeStage(
            1,
            decoder=decoder,
            in_flight=self.in_flight,
            slots=slots,
            consumed=lambda _: None,
            claim=lambda _content, _fetched: False,
            hand_on=self._take,
            on_crash=self.crashes.append,
        )

    def put(self, body: bytes, *, urgent: bool = False) -> Row:
        url = Url(f"http://a.example/{body.decode()}", "a.example")
        row = Row(url, "a cat", Future(), urgent)
        work = self.in_flight.admit(row)
        assert isinstance(work, UrlWork)
        self.stage.put(work, Fetched(body, 1))
        return row

    def urls(self) -> list[str]:
        return [content.urls[0].url.text.rpartition("/")[2] for content in self.out]

    def _take(self, item: ContentWork | list[Row]) -> None:
        assert isinstance(item, ContentWork)
        self.out.append(item)


@contextmanager
def decoding(
    make_slots: Callable[[], Slots] = lambda: Slots(100),
) -> Iterator[tuple[Decoding, Decoder]]:
    decoder = Decoder()
    made = Decoding(decoder, make_slots())
    try:
        yield made, decoder
    finally:
        for gate in decoder.gates.values():
            gate.set()
        made.stage.close()
    assert made.crashes == []


def test_urgent_bodies_are_decoded_before_those_that_came_earlier():
    with decoding() as (stage, decoder):
        stage.put(decoder.gate(b"first"))
        wait_until(lambda: decoder.begun == [b"first"])
        stage.put(decoder.gate(b"urgent0"), urgent=True)
        wait_until(lambda: decoder.begun == [b"first", b"urgent0"])  # on the thread of its own
        stage.put(b"bulk")
        stage.put(b"urgent1", urgent=True)
        decoder.gates[b"first"].set()
        wait_until(lambda: len(stage.out) == 3)
        assert decoder.begun[2:] == [b"urgent1", b"bulk"]


def test_an_urgent_image_waits_neither_for_slots_of_others_nor_for_threads_that_do():
    with decoding(lambda: Slots(1)) as (stage, decoder):
        for body in (b"bulk0", b"bulk1", b"bulk2"):
            stage.put(body)
        wait_until(lambda: decoder.begun == [b"bulk0", b"bulk1"])  # the thread waits for a slot
        stage.put(b"urgent", urgent=True)
        wait_until(lambda: stage.urls() == ["bulk0", "urgent"])


def test_a_slot_goes_back_to_those_it_is_from_though_its_image_became_urgent():
    slots = Slots(1)
    row = Row(Url("http://a.example/", "a.example"), "a cat", Future())
    work = UrlWork.of(row)
    content = ContentWork("sha", [work])
    assert slots.take(content, 0.01)
    work.join(Row(row.url, "a dog", Future(), True))
    assert content.urgent
    other, urgent = ContentWork("b", [UrlWork.of(row)]), ContentWork("c", [work])
    assert not slots.take(other, 0.01)
    assert slots.take(urgent, 0.01)
    slots.give_back(content)
    assert slots.take(other, 0.01)
    slots.give_back(urgent)
    assert slots.take(urgent, 0.01)
