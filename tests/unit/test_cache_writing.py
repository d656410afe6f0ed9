"""Writing behind: nobody waits for it, what there is time for is kept, defects are said."""

import threading

from pairscore.cache.guarded import Guarded
from pairscore.cache.stats import WriteStats
from pairscore.cache.store import Item
from pairscore.cache.writing import Writer
from pairscore.guard import CallStats, Unavailable
from tests.fetching import wait_until

ITEM: Item = (b"key", b"value", 60)


class Store:
    """Takes items unless told to fail; each call may be held."""

    def __init__(self) -> None:
        self.taken: list[Item] = []
        self.calls = 0
        self.fails = False
        self.gate = threading.Event()
        self.gate.set()
        self.closed = threading.Event()

    def put(self, items):
        self.calls += 1
        self.gate.wait(10)
        if self.fails:
            raise Unavailable("full")
        self.taken += items

    def ping(self):
        pass

    def close(self):
        self.closed.set()


def writer(store: Store, stats: WriteStats) -> Writer:
    guarded = Guarded(store, name="store", seconds=10, stats=CallStats())  # type: ignore[arg-type]
    return Writer(guarded, stats)


def test_what_is_to_be_kept_is_written_many_at_once_before_the_end():
    store, stats = Store(), WriteStats()
    writing = writer(store, stats)
    for number in range(1_200):
        writing.keep(lambda number=number: (str(number).encode(), b"value", 60))  # type: ignore[misc]
    writing.close(10)
    assert [key for key, _, _ in store.taken] == [str(number).encode() for number in range(1_200)]
    assert store.calls <= 4
    assert (stats.entries, stats.bytes, stats.left_out) == (1_200, 6_000, 0)
    assert store.closed.wait(10)


def test_what_the_store_does_not_take_is_dropped_and_counted():
    store, stats = Store(), WriteStats()
    store.fails = True
    writing = writer(store, stats)
    writing.keep(lambda: ITEM)
    wait_until(lambda: stats.left_out == 1)
    store.fails = False
    writing.keep(lambda: ITEM)
    wait_until(lambda: stats.entries == 1)
    writing.close(10)


def test_a_defect_in_one_item_does_not_end_the_writing(caplog):
    store, stats = Store(), WriteStats()
    writing = writer(store, stats)

    def fail() -> Item:
        raise ZeroDivisionError

    for encode in (lambda: ITEM, fail):
        writing.keep(encode)
    wait_until(lambda: (stats.entries, stats.left_out) == (1, 1))
    writing.keep(lambda: ITEM)
    wait_until(lambda: stats.entries == 2)
    writing.close(10)
    assert "ZeroDivisionError" in caplog.text


def test_the_end_does_not_wait_for_a_store_that_hangs():
    store, stats = Store(), WriteStats()
    store.gate.clear()
    writing = writer(store, stats)
    writing.keep(lambda: ITEM)
    wait_until(lambda: store.calls == 1)
    writing.close(0.1)
    store.gate.set()


def test_more_than_there_is_room_for_is_dropped(monkeypatch):
    monkeypatch.setattr("pairscore.cache.writing._MOST_WAITING", 10)
    store, stats = Store(), WriteStats()
    store.gate.clear()
    writing = writer(store, stats)
    for _ in range(1_000):
        writing.keep(lambda: ITEM)
    assert stats.left_out >= 480  # one batch is on its way, and as much as there is room for waits
    store.gate.set()
    writing.close(10)
