"""The budget of a host: what several workers get of it, by a model and by what must hold."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pairscore.politeness.budget import (
    AHEAD,
    BURST,
    FAILURES,
    LEAST_PAUSE,
    LONGEST,
    MOST_PAUSE,
    SECOND,
    Grant,
    HostBudget,
    Question,
)

INTERVAL = SECOND // 20
LEASE = 20 * SECOND


@dataclass
class World:
    """A budget, a clock, and the workers' requests: when each may begin, until it ends."""

    connections: int = 8
    interval: int = INTERVAL
    now: int = 1_764_000_000 * SECOND
    budget: HostBudget = field(default_factory=HostBudget)
    pending: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    running: Counter[str] = field(default_factory=Counter)
    began: list[int] = field(default_factory=list)

    def ask(self, worker: str = "a", wanted: int = 1, **news: object) -> Grant:
        held = self.running[worker] + len(self.pending[worker])
        grant = self._say(worker, Question("h", wanted, held, **news))  # type: ignore[arg-type]
        first = self.now + grant.first
        self.pending[worker] += [first + n * grant.interval for n in range(grant.permits)]
        return grant

    def tell(self, worker: str = "a", **news: object) -> Grant:
        return self._say(worker, Question("h", 0, None, **news))  # type: ignore[arg-type]

    def _say(self, worker: str, question: Question) -> Grant:
        return self.budget.ask(
            question,
            worker=worker,
            now=self.now,
            interval=self.interval,
            connections=self.connections,
            lease=LEASE,
        )

    def begin(self, worker: str) -> None:
        due = [each for each in self.pending[worker] if each <= self.now]
        self.pending[worker] = [each for each in self.pending[worker] if each > self.now]
        self.began += [self.now] * len(due)
        self.running[worker] += len(due)

    def end(self, worker: str, count: int = 1) -> None:
        self.running[worker] -= min(count, self.running[worker])


steps = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.integers(0, 12),
        st.integers(0, 3),
        st.sampled_from([0, 1, 1_000, 20_000, 50_000, 200_000, 1_000_000, 3_000_000]),
    ),
    max_size=80,
)


@hypothesis_settings(deadline=None, max_examples=300)
@given(steps, st.integers(1, 8), st.sampled_from([0, 5_000, INTERVAL, 700_000, 3_000_000]))
def test_no_host_is_asked_above_its_rate_nor_over_more_connections(steps, connections, interval):
    world = World(connections=connections, interval=interval)
    for worker, wanted, ended, passed in steps:
        world.now += passed
        for each in "abcd":
            world.begin(each)
        world.end(worker, ended)
        world.ask(worker, wanted)
        world.begin(worker)
        # Those of workers that have not been heard of for as long as a request may last are free.
        assert sum(world.running.values()) <= connections or passed_long(steps)
    if not interval:
        return
    burst = max(1, BURST // interval)
    for number, when in enumerate(world.began):
        for later, end in enumerate(world.began[number:], start=1):
            # Late ones come at once, of which there are no more than connections.
            allowed = (end - when) // interval + burst + connections
            assert later <= allowed


def passed_long(steps: list[tuple[str, int, int, int]]) -> bool:
    return sum(passed for *_, passed in steps) >= LEASE


@hypothesis_settings(deadline=None, max_examples=100)
@given(st.integers(1, 20), st.integers(1, 16), st.sampled_from([0, INTERVAL]))
def test_workers_that_all_want_more_get_about_the_same(workers, connections, interval):
    names = [f"w{n}" for n in range(workers)]
    world = World(connections=connections, interval=interval)
    got: Counter[str] = Counter()
    again = dict.fromkeys(names, 0)
    for _ in range(3_000):
        world.now += 10_000
        for name in names:
            before = len(world.began)
            world.begin(name)
            got[name] += len(world.began) - before
            # Each request takes one step.
            if world.running[name]:
                world.end(name, world.running[name])
                again[name] = 0
            if not world.pending[name] and world.now >= again[name]:
                again[name] = world.now + world.ask(name, 50).again
    assert min(got.values()) > 0
    total = sum(got.values())
    if interval:
        # 30 s at 20 a second. Where many workers take turns at few connections, those whose turn it
        # is learn of it when they ask the next time.
        least = 0.8 if workers <= 2 * connections else 0.4
        assert least * 600 <= total <= 600 + BURST // interval + connections
    if workers <= connections:
        assert min(got.values()) >= 0.4 * total / workers


def test_a_host_at_rest_takes_a_burst_and_then_its_rate():
    world = World()
    assert [world.ask(wanted=3).first, world.ask(wanted=2).first] == [-4 * INTERVAL, -INTERVAL]
    grant = world.ask(wanted=3)
    assert (grant.permits, grant.first, grant.interval) == (3, INTERVAL, INTERVAL)


def test_requests_are_granted_one_second_ahead_and_not_more():
    world = World(connections=100)
    grant = world.ask(wanted=100)
    assert grant.permits == 5 + AHEAD // INTERVAL
    assert world.ask(wanted=1).permits == 0
    again = world.ask(wanted=1).again
    world.now += again
    assert world.ask(wanted=1).permits == 1


def test_connections_are_shared_between_those_that_want_some():
    world = World(interval=0)
    assert world.ask("a", 20).permits == 8
    assert world.ask("b", 20).permits == 0
    world.begin("a")
    world.end("a", 5)
    assert world.ask("a", 20).permits == 1  # its half
    assert world.ask("b", 20).permits == 4


def test_what_a_worker_held_that_is_gone_is_free_after_a_while():
    world = World(interval=0)
    world.ask("a", 8)
    assert world.ask("b", 8).permits == 0
    world.now += LEASE
    assert world.ask("b", 8).permits == 8


def test_a_host_is_left_alone_by_all_for_as_long_as_it_asks():
    world = World()
    world.tell("a", close=60 * SECOND)
    world.tell("b", close=10 * SECOND)  # does not shorten it
    world.now += 59 * SECOND
    for worker in "ab":
        grant = world.ask(worker)
        assert (grant.permits, grant.closed, grant.unreachable) == (0, SECOND, False)
    world.now += SECOND
    assert world.ask("b").permits == 1


def test_no_host_can_ask_to_be_left_alone_for_over_a_day():
    world = World()
    world.tell(close=10 * LONGEST)
    assert world.ask().closed == LONGEST


def test_failures_in_a_row_close_a_host_and_one_probe_says_when_it_is_back():
    world = World()
    world.tell("a", failures=FAILURES - 1)
    assert world.ask("a").permits == 1
    world.tell("b", failures=1)
    grant = world.ask("a")
    assert (grant.closed, grant.unreachable) == (LEAST_PAUSE, True)
    world.tell("b", failures=3)  # of requests that had begun before
    assert world.ask("a").closed == LEAST_PAUSE
    world.now += LEAST_PAUSE
    world.pending.clear()
    assert world.ask("b", 5).permits == 1
    world.begin("b")
    assert [world.ask("a", 5).permits, world.ask("b", 5).permits] == [0, 0]
    world.end("b")
    assert world.ask("b", 5, failures=1).closed == 2 * LEAST_PAUSE
    world.now += 2 * LEAST_PAUSE
    assert world.ask("a", 5).permits == 1
    world.begin("a")
    world.end("a")
    assert world.ask("a", 3, answered=True).permits == 3
    assert world.ask("b", 3).permits > 0


def test_the_pause_of_a_host_that_is_gone_grows_up_to_ten_minutes():
    world = World()
    world.tell("a", failures=FAILURES)
    pauses = []
    for _ in range(9):
        pauses.append(world.ask("a").closed // SECOND)
        world.now += world.ask("a").closed
        assert world.ask("a").permits == 1
        world.begin("a")
        world.end("a")
        world.tell("a", failures=1)
    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    assert MOST_PAUSE == 600 * SECOND


def test_a_probe_that_came_to_nothing_is_made_again():
    world = World()
    world.tell("a", failures=FAILURES)
    world.now += LEAST_PAUSE
    assert world.ask("a").permits == 1
    world.pending.clear()  # its name did not resolve, say
    assert world.ask("a").permits == 1
    world.now += LEASE  # the worker died
    assert world.ask("b").permits == 1


def test_one_answer_is_enough_to_forget_failures():
    world = World()
    world.tell(failures=FAILURES - 1)
    assert world.tell().troubled
    assert not world.tell(answered=True).troubled
    world.tell(failures=FAILURES - 1)
    assert world.ask().permits == 1


def test_a_host_rests_once_nothing_is_to_be_remembered():
    world = World()
    world.ask()
    assert not world.budget.rests(world.now + 2 * LEASE)
    world.pending.clear()
    world.ask(wanted=0)
    assert not world.budget.rests(world.now)
    assert world.budget.rests(world.now + 2 * SECOND)
    world.tell(failures=1)
    assert not world.budget.rests(world.now + 2 * SECOND)
    assert world.budget.rests(world.now + 2 * MOST_PAUSE + SECOND)
    world.tell(close=SECOND, answered=True)
    assert not world.budget.rests(world.now + SECOND)


def test_after_one_worker_has_failed_to_reach_a_host_another_one_tries():
    world = World()
    world.tell("a", failures=FAILURES)
    world.now += LEAST_PAUSE
    assert world.ask("b").permits == 0 or world.ask("a").permits == 0  # one probe at a time
    world = World()
    world.tell("a", failures=FAILURES)
    world.now += LEAST_PAUSE
    assert world.ask("a").permits == 1
    world.begin("a")
    world.end("a")
    assert world.ask("a", failures=1).closed == 2 * LEAST_PAUSE
    world.ask("b")
    world.now += 2 * LEAST_PAUSE - SECOND
    world.ask("b")  # it still waits
    world.now += SECOND
    assert [world.ask("a").permits, world.ask("b").permits] == [0, 1]


def test_alone_a_worker_goes_on_trying():
    world = World()
    world.tell("a", failures=FAILURES)
    for pause in (LEAST_PAUSE, 2 * LEAST_PAUSE):
        world.now += pause
        assert world.ask("a").permits == 1
        world.begin("a")
        world.end("a")
        world.tell("a", failures=1)
