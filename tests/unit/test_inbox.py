"""The inbox: in order, from any thread, and never waiting for longer than it was told to."""

import threading
import time
from queue import Empty

import pytest

from pairscore.inbox import Inbox

SECONDS = 20.0


def test_items_come_in_the_order_in_which_they_were_put():
    inbox: Inbox[int] = Inbox()
    for number in range(3):
        inbox.put(number)
    assert [inbox.get(), inbox.get(1.0), inbox.get_nowait()] == [0, 1, 2]
    with pytest.raises(Empty):
        inbox.get_nowait()


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e-6, 1e-5, 1e-4])
def test_a_time_that_is_over_at_once_is_no_wait_for_ever(seconds):
    # queue.SimpleQueue hangs here after some thousand times at most.
    inbox: Inbox[int] = Inbox()
    ended = threading.Event()

    def get() -> None:
        for _ in range(3_000):
            with pytest.raises(Empty):
                inbox.get(seconds)
        ended.set()

    threading.Thread(target=get, daemon=True).start()
    assert ended.wait(SECONDS)


def test_a_wait_ends_when_its_time_is_over_and_not_before():
    inbox: Inbox[int] = Inbox()
    began = time.monotonic()
    with pytest.raises(Empty):
        inbox.get(0.2)
    assert 0.2 <= time.monotonic() - began < SECONDS


def test_nothing_that_many_threads_put_is_lost_or_waited_for_in_vain():
    inbox: Inbox[tuple[int, int]] = Inbox()

    def put(thread: int) -> None:
        for number in range(2_000):
            inbox.put((thread, number))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    got = [inbox.get(SECONDS) for _ in range(8_000)]
    assert sorted(got) == [(thread, number) for thread in range(4) for number in range(2_000)]
    for thread_number in range(4):
        assert [n for t, n in got if t == thread_number] == list(range(2_000))


def test_who_waits_is_woken():
    inbox: Inbox[str] = Inbox()
    for seconds in (None, SECONDS):
        timer = threading.Timer(0.05, inbox.put, ["news"])
        timer.start()
        assert inbox.get(seconds) == "news"
