"""Waiting requests: hosts take turns, none is asked too often at once, none starves."""

import gc
import weakref
from collections import Counter, defaultdict, deque

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pairscore.fetch.waiting import HostQueues

HOSTS = ["a", "b", "c", "d"]
steps = st.lists(
    st.tuples(st.just("put"), st.sampled_from(HOSTS))
    | st.just(("take", ""))
    | st.tuples(st.just("finish"), st.sampled_from(HOSTS)),
    max_size=120,
)


class Model:
    """The rules, said plainly: what waits where, what is in flight, who was passed over by whom."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting: dict[str, deque[tuple[str, int]]] = defaultdict(deque)
        self.in_flight: Counter[str] = Counter()
        self.overtaken: dict[str, Counter[str]] = defaultdict(Counter)

    def runnable(self) -> set[str]:
        return {h for h in HOSTS if self.waiting[h] and self.in_flight[h] < self.limit}

    def take(self, item: tuple[str, int] | None) -> None:
        runnable = self.runnable()
        if item is None:
            assert not runnable
            return
        host, _ = item
        assert host in runnable
        assert self.waiting[host].popleft() == item
        self.in_flight[host] += 1
        self.overtaken.pop(host, None)
        for passed in runnable - {host}:
            self.overtaken[passed][host] += 1
            assert self.overtaken[passed][host] <= 1, "nobody goes twice while another may go"

    def forget_turns_of_those_that_may_not_go(self) -> None:
        for host in set(self.overtaken) - self.runnable():
            del self.overtaken[host]


@hypothesis_settings(deadline=None, max_examples=300)
@given(st.integers(1, 4), steps)
def test_the_queues_keep_the_rules_whatever_happens(limit, steps):
    queues: HostQueues[tuple[str, int]] = HostQueues(limit)
    model = Model(limit)
    for number, (step, host) in enumerate(steps):
        if step == "put":
            queues.put(host, (host, number))
            model.waiting[host].append((host, number))
        elif step == "take":
            model.take(queues.take())
        elif model.in_flight[host]:
            queues.finished(host)
            model.in_flight[host] -= 1
        model.forget_turns_of_those_that_may_not_go()


@hypothesis_settings(deadline=None)
@given(st.integers(1, 4), st.lists(st.sampled_from(HOSTS), max_size=60))
def test_everything_put_comes_out_once(limit, hosts):
    queues: HostQueues[tuple[str, int]] = HostQueues(limit)
    for number, host in enumerate(hosts):
        queues.put(host, (host, number))
    taken: list[tuple[str, int]] = []
    running: deque[str] = deque()
    while True:
        item = queues.take()
        if item is not None:
            taken.append(item)
            running.append(item[0])
        elif running:
            queues.finished(running.popleft())
        else:
            break
    assert sorted(number for _, number in taken) == list(range(len(hosts)))


def test_hosts_take_turns_however_many_requests_one_has():
    queues: HostQueues[str] = HostQueues(8)
    for number in range(5):
        queues.put("big", f"big{number}")
    queues.put("small", "small0")
    queues.put("other", "other0")
    taken = [queues.take() for _ in range(7)]
    assert taken == ["big0", "small0", "other0", "big1", "big2", "big3", "big4"]


def test_a_full_host_waits_until_one_of_its_requests_is_over():
    queues: HostQueues[int] = HostQueues(2)
    for number in range(4):
        queues.put("h", number)
    assert [queues.take() for _ in range(3)] == [0, 1, None]
    queues.finished("h")
    assert [queues.take(), queues.take()] == [2, None]


def test_only_what_waits_for_a_full_host_expires():
    queues: HostQueues[str] = HostQueues(1)
    for item in ("full0", "full1", "full2", "free0"):
        queues.put(item[:4], item)
    assert [queues.take(), queues.take()] == ["full0", "free0"]
    queues.finished("free")
    queues.put("free", "free1")
    assert list(queues.expire(lambda item: item != "full2")) == ["full1"]
    queues.finished("full")
    assert [queues.take(), queues.take()] == ["free1", "full2"]


def test_a_host_whose_requests_all_expired_is_forgotten_once_the_last_is_over():
    queues: HostQueues[str] = HostQueues(1)
    for item in ("a", "b"):
        queues.put("h", item)
    queues.take()
    assert list(queues.expire(lambda _: True)) == ["b"]
    queues.finished("h")
    assert queues.take() is None


def test_a_host_at_rest_is_forgotten():
    class Name(str):
        __slots__ = ("__weakref__",)

    queues: HostQueues[int] = HostQueues(1)
    host = Name("h")
    watched = weakref.ref(host)
    queues.put(host, 1)
    queues.take()
    queues.finished("h")
    del host
    gc.collect()
    assert watched() is None
