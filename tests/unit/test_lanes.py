"""Lanes: urgent items first, from any thread, and never waiting for longer than one was told to."""

import threading
import time
from collections.abc import Callable
from queue import Empty

import pytest

from pairscore.lanes import Lanes

SECONDS = 20.0


def test_urgent_items_come_first_and_each_lane_is_in_order():
    lanes: Lanes[int] = Lanes()
    for number in range(3):
        lanes.put(number)
        lanes.put(10 + number, urgent=True)
    assert lanes.get() == (10, True)
    assert lanes.get_urgent() == 11
    assert [lanes.get(0.0) for _ in range(4)] == [(12, True), (0, False), (1, False), (2, False)]
    with pytest.raises(Empty):
        lanes.get(0.0)


def test_what_is_not_urgent_is_not_taken_for_it():
    lanes: Lanes[int] = Lanes()
    lanes.put(0)
    with pytest.raises(Empty):
        lanes.get_urgent(0.01)
    assert lanes.get() == (0, False)


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e-6, 1e-5, 1e-4])
def test_a_time_that_is_over_at_once_is_no_wait_for_ever(seconds):
    lanes: Lanes[int] = Lanes()
    ended = threading.Event()

    def get() -> None:
        for take in (lanes.get, lanes.get_urgent):
            for _ in range(2_000):
                with pytest.raises(Empty):
                    take(seconds)
        ended.set()

    threading.Thread(target=get, daemon=True).start()
    assert ended.wait(SECONDS)


def test_a_wait_ends_when_its_time_is_over_and_not_before():
    lanes: Lanes[int] = Lanes()
    began = time.monotonic()
    with pytest.raises(Empty):
        lanes.get(0.2)
    assert 0.2 <= time.monotonic() - began < SECONDS


@pytest.mark.parametrize("urgent", [False, True])
def test_who_waits_is_woken(urgent):
    lanes: Lanes[str] = Lanes()
    for seconds in (None, SECONDS):
        threading.Timer(0.05, lanes.put, ["news"], {"urgent": urgent}).start()
        assert lanes.get(seconds) == ("news", urgent)
    threading.Timer(0.05, lanes.put, ["news"], {"urgent": True}).start()
    assert lanes.get_urgent(SECONDS) == "news"


def test_nothing_is_lost_between_many_threads_that_put_and_get():
    lanes: Lanes[int | None] = Lanes()
    got: list[int] = []

    def get(take: Callable[[], int | None]) -> None:
        while (item := take()) is not None:
            got.append(item)

    def put(first: int) -> None:
        for number in range(first, first + 2_000):
            lanes.put(number, urgent=number % 3 == 0)

    takes: list[Callable[[], int | None]] = [lambda: lanes.get(SECONDS)[0]] * 3
    takes.append(lambda: lanes.get_urgent(SECONDS))
    takers = [threading.Thread(target=get, args=(take,)) for take in takes]
    putters = [threading.Thread(target=put, args=(2_000 * number,)) for number in range(4)]
    for thread in (*takers, *putters):
        thread.start()
    for thread in putters:
        thread.join(SECONDS)
    end = time.monotonic() + SECONDS
    while len(got) < 8_000 and time.monotonic() < end:
        threading.Event().wait(0.01)
    for _ in takers:
        lanes.put(None, urgent=True)
    for thread in takers:
        thread.join(SECONDS)
    assert sorted(got) == list(range(8_000))
