"""Waiting requests: hosts take turns, none is asked too often at once, none starves."""

from collections import Counter, defaultdict, deque
from itertools import pairwise
from typing import Generic, TypeAlias, TypeVar

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pairscore.fetch.waiting import Ending, HostQueues
from pairscore.politeness import Grant, Question
from pairscore.politeness.budgets import LocalBudgets
from pairscore.politeness.limits import Budget, HostLimits

T = TypeVar("T")
ANSWERED = Ending(answered=True)
FAILED = Ending(failed=True)

HOSTS = ["a", "b", "c", "d"]
steps = st.lists(
    st.tuples(st.sampled_from(["put", "hurry"]), st.sampled_from(HOSTS))
    | st.sampled_from([("take", ""), ("take urgent", "")])
    | st.tuples(st.just("finish"), st.sampled_from(HOSTS)),
    max_size=120,
)


class Turns(Generic[T]):
    """Queues with budgets that answer at once, and a clock that is set."""

    def __init__(self, connections: int, rate: float = 0.0) -> None:
        self.now = 1_000.0
        self.queues: HostQueues[T] = HostQueues()
        limits = HostLimits(Budget(rate, connections))
        self.budgets = LocalBudgets(limits, lease=60, clock=lambda: self.now)
        self.asked: list[Question] = []
        self.grants: dict[str, Grant] = {}
        self.waited = 0.0

    def put(self, host: str, item: T, *, urgent: bool = False) -> None:
        self.queues.put(host, item, self.now, urgent=urgent)

    def take(self, *, urgent: bool = False, room: int = 1_000) -> T | None:
        while questions := self.queues.questions(room, self.now):
            self.asked += questions
            for question, grant in zip(questions, self.budgets.ask(questions), strict=True):
                self.grants[question.host] = grant
                self.queues.answered(question, grant, self.now)
        taken = self.queues.take(self.now, urgent=urgent)
        if taken is None:
            return None
        item, self.waited = taken
        return item

    def finished(self, host: str, ending: Ending = ANSWERED) -> None:
        self.queues.finished(host, ending, self.now)

    def expire(self, limit: float) -> list[T]:
        return [item for _, item in self.queues.expire(limit, self.now)]


Item: TypeAlias = tuple[str, int, bool]
"""Host, number, and whether it is urgent."""


class Model:
    """The rules, said plainly: what waits where, what is in flight, who was passed over by whom."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting: dict[tuple[str, bool], deque[Item]] = defaultdict(deque)
        self.in_flight: Counter[str] = Counter()
        self.overtaken: dict[tuple[str, bool], Counter[str]] = defaultdict(Counter)

    def runnable(self, *, urgent: bool) -> set[str]:
        return {h for h in HOSTS if self.waiting[h, urgent] and self.in_flight[h] < self.limit}

    def take(self, item: Item | None, *, urgent_only: bool) -> None:
        urgent = bool(self.runnable(urgent=True)) or urgent_only
        runnable = self.runnable(urgent=urgent)
        if item is None:
            assert not runnable
            return
        host, _, was_urgent = item
        assert was_urgent == urgent, "what is urgent goes first, and alone where there is no room"
        assert host in runnable
        assert self.waiting[host, urgent].popleft() == item
        self.in_flight[host] += 1
        for lane in (False, True):  # an urgent request is a turn of its host
            self.overtaken.pop((host, lane), None)
        for passed in runnable - {host}:
            self.overtaken[passed, urgent][host] += 1
            assert self.overtaken[passed, urgent][host] <= 1, "nobody goes twice while another may"

    def forget_turns_of_those_that_may_not_go(self) -> None:
        for host, urgent in list(self.overtaken):
            if host not in self.runnable(urgent=urgent):
                del self.overtaken[host, urgent]


@hypothesis_settings(deadline=None, max_examples=300)
@given(st.integers(1, 4), steps)
def test_the_queues_keep_the_rules_whatever_happens(limit, steps):
    queues: Turns[Item] = Turns(limit)
    model = Model(limit)
    for number, (step, host) in enumerate(steps):
        if step in ("put", "hurry"):
            item = (host, number, step == "hurry")
            queues.put(host, item, urgent=item[2])
            model.waiting[host, item[2]].append(item)
        elif step == "take":
            model.take(queues.take(), urgent_only=False)
        elif step == "take urgent":
            model.take(queues.take(urgent=True, room=0), urgent_only=True)
        elif model.in_flight[host]:
            queues.finished(host)
            model.in_flight[host] -= 1
        model.forget_turns_of_those_that_may_not_go()


@hypothesis_settings(deadline=None)
@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from(HOSTS), st.booleans()), max_size=60))
def test_everything_put_comes_out_once(limit, puts):
    queues: Turns[tuple[str, int]] = Turns(limit)
    for number, (host, urgent) in enumerate(puts):
        queues.put(host, (host, number), urgent=urgent)
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
    assert sorted(number for _, number in taken) == list(range(len(puts)))


def test_hosts_take_turns_however_many_requests_one_has():
    queues: Turns[str] = Turns(8)
    for number in range(5):
        queues.put("big", f"big{number}")
    queues.put("small", "small0")
    queues.put("other", "other0")
    taken = [queues.take() for _ in range(7)]
    assert taken == ["big0", "small0", "other0", "big1", "big2", "big3", "big4"]


def test_a_full_host_waits_until_one_of_its_requests_is_over():
    queues: Turns[int] = Turns(2)
    for number in range(4):
        queues.put("h", number)
    assert [queues.take() for _ in range(3)] == [0, 1, None]
    queues.finished("h")
    assert [queues.take(), queues.take()] == [2, None]


def test_only_what_waits_for_a_full_host_expires():
    queues: Turns[str] = Turns(1)
    for item in ("full0", "full1", "free0"):
        queues.put(item[:4], item)
    assert [queues.take(), queues.take(), queues.take()] == ["full0", "free0", None]
    queues.now += 2
    queues.put("full", "full2")
    queues.finished("free")
    queues.put("free", "free1")
    queues.now += 2
    assert queues.expire(3) == ["full1"]  # there is no room for the other host's
    queues.finished("full")
    assert [queues.take(), queues.take()] == ["free1", "full2"]
    assert queues.waited == 2


def test_waiting_for_room_is_not_waiting_for_a_host():
    queues: Turns[str] = Turns(1)
    for item in ("h0", "h1"):
        queues.put("h", item)
    assert [queues.take(), queues.take()] == ["h0", None]
    queues.now += 2
    queues.finished("h")
    queues.now += 50  # nobody takes it
    assert queues.expire(3) == []
    assert queues.take() == "h1"
    assert queues.waited == 2


def test_a_host_whose_requests_all_expired_is_forgotten_once_the_last_is_over():
    queues: Turns[str] = Turns(1)
    for item in ("a", "b"):
        queues.put("h", item)
    assert [queues.take(), queues.take()] == ["a", None]
    queues.now += 1
    assert queues.expire(0.5) == ["b"]
    queues.finished("h")
    assert queues.take() is None
    assert queues.queues.hosts == 0


def test_what_is_at_rest_is_forgotten_and_its_budget_is_told():
    queues: Turns[int] = Turns(1)
    queues.put("h", 1)
    queues.take()
    queues.finished("h")
    assert queues.take() is None
    assert queues.asked == [Question("h", 1, 0), Question("h", 0, 0)]
    assert queues.queues.hosts == 0


def test_a_host_is_asked_at_its_rate_and_no_other_waits_for_that():
    queues: Turns[str] = Turns(8, rate=10)
    for number in range(20):
        queues.put("slow", f"slow{number}")
    began: list[tuple[float, str]] = []
    for _ in range(200):
        if queues.now == 1_000.5:
            queues.put("other", "other")
        while (item := queues.take()) is not None:
            began.append((queues.now, item))
            queues.finished(item.rstrip("0123456789"))
        queues.now = round(queues.now + 0.01, 2)
    slow = [when for when, item in began if item.startswith("slow")]
    assert [item for _, item in began if item != "other"] == [f"slow{n}" for n in range(20)]
    assert slow[:2] == [1_000.0, 1_000.0]  # a burst of a quarter of a second
    assert all(later - earlier >= 0.09 for earlier, later in pairwise(slow[1:]))
    assert slow[-1] <= 1_001.9
    assert (1_000.5, "other") in began


def test_nothing_is_asked_of_budgets_before_it_can_be_of_use():
    queues: Turns[int] = Turns(8, rate=0.1)
    for number in range(9):
        queues.put("h", number)
    assert queues.take() == 0
    for _ in range(50):
        assert queues.take() is None
    assert len(queues.asked) <= 2
    time = queues.queues.next_time()
    assert time is not None
    assert 1_000 < time <= 1_010


def test_a_host_that_wants_to_be_left_alone_is_and_its_requests_wait():
    queues: Turns[int] = Turns(2)
    for number in range(4):
        queues.put("h", number)
    assert [queues.take(), queues.take()] == [0, 1]
    queues.finished("h", Ending(answered=True, close=30.0))
    queues.finished("h")
    assert queues.take() is None
    assert queues.grants["h"].closed == 30_000_000
    queues.now += 29.9
    assert queues.take() is None
    queues.now += 0.2
    assert [queues.take(), queues.take(), queues.take()] == [2, 3, None]


def test_a_host_that_does_not_answer_is_asked_by_one_request_at_a_time_until_it_does():
    queues: Turns[int] = Turns(5)
    for number in range(12):
        queues.put("h", number)
    assert [queues.take() for _ in range(5)] == [0, 1, 2, 3, 4]
    for _ in range(5):
        queues.finished("h", FAILED)
    assert queues.take() is None
    assert queues.grants["h"].unreachable
    queues.now += 10
    assert [queues.take(), queues.take()] == [5, None]
    queues.finished("h", FAILED)
    assert queues.take() is None
    queues.now += 19
    assert queues.take() is None
    queues.now += 1
    assert [queues.take(), queues.take()] == [6, None]
    queues.finished("h", ANSWERED)
    assert [queues.take() for _ in range(6)] == [7, 8, 9, 10, 11, None]


def test_answers_between_failures_keep_a_host_reachable():
    queues: Turns[int] = Turns(1)
    for number in range(20):
        queues.put("h", number)
        assert queues.take() == number
        queues.finished("h", ANSWERED if number % 4 == 3 else FAILED)


def test_dropped_requests_are_given_and_the_rest_goes_on():
    queues: Turns[int] = Turns(1)
    for number in range(3):
        queues.put("h", number)
    assert queues.take() == 0
    assert queues.queues.drop("h", queues.now) == [1, 2]
    queues.put("h", 3)
    assert queues.take() is None
    queues.finished("h")
    assert queues.take() == 3


def test_what_comes_after_the_dropped_asks_anew_about_a_closed_host():
    queues: Turns[int] = Turns(1)
    queues.put("h", 0)
    assert queues.take() == 0
    queues.finished("h", Ending(answered=True, close=3_600.0))
    queues.put("h", 1)
    assert queues.take() is None
    assert queues.queues.drop("h", queues.now) == [1]
    asked = len(queues.asked)
    queues.put("h", 2)
    assert queues.take() is None
    assert queues.asked[asked:] == [Question("h", 0, 0), Question("h", 1, 0)]


def test_a_wait_is_foreseen_by_how_fast_the_host_has_been():
    queues: Turns[int] = Turns(1)
    for number in range(50):
        queues.put("h", number)
    for _ in range(9):
        assert queues.take() is not None
        queues.finished("h")
    assert [queues.take(), queues.take()] == [9, None]
    queues.now += 10
    backlog = queues.queues.backlog
    assert backlog("h", 31.0, queues.now) is None  # too soon to tell
    assert backlog("h", 30.0, queues.now) == 40.0
    assert backlog("h", 40.0, queues.now) is None  # short enough
    queues.queues.lets_go("h")
    assert backlog("h", 30.0, queues.now) == 41.0
    assert backlog("other", 1.0, queues.now) is None
    assert queues.queues.held == 40
    queues.finished("h")
    assert queues.queues.held == 0  # what may begin waits for room alone
    assert backlog("h", 1.0, queues.now) is None


def test_what_was_granted_too_long_ago_is_asked_for_anew():
    queues: Turns[int] = Turns(8)
    for number in range(3):
        queues.put("h", number)
    assert queues.take() == 0
    queues.now += 10  # there was no room
    asked = len(queues.asked)
    assert queues.queues.take(queues.now) is None
    assert queues.take() == 1
    assert queues.asked[asked:] == [Question("h", 2, 1)]


def test_what_was_asked_before_a_host_wanted_to_be_left_alone_is_void():
    queues: Turns[int] = Turns(8)
    queues.put("h", 0)
    assert queues.take() == 0
    queues.put("h", 1)
    [question] = queues.queues.questions(10, queues.now)  # under way
    queues.finished("h", Ending(answered=True, close=60.0))
    [told] = queues.queues.questions(10, queues.now)
    assert told.close == 60_000_000
    queues.budgets.ask([told])
    queues.queues.answered(question, Grant(permits=1), queues.now)
    assert queues.take() is None
    assert queues.grants["h"].closed == 60_000_000


def test_a_connection_that_is_not_needed_any_more_is_given_back_at_once():
    queues: Turns[int] = Turns(8)
    for number in range(3):
        queues.put("h", number)
    assert [queues.take(), queues.take(), queues.take()] == [0, 1, 2]
    asked = len(queues.asked)
    queues.finished("h")
    assert queues.take() is None
    assert queues.asked[asked:] == [Question("h", 0, 2)]
    assert queues.queues.farewell() == [Question("h", 0, 0)]


def test_what_is_urgent_goes_before_all_others_of_its_host_and_of_any():
    queues: Turns[str] = Turns(8)
    for number in range(3):
        queues.put("big", f"big{number}")
        queues.put("other", f"other{number}")
    assert queues.take() == "big0"
    for item in ("late0", "big3", "late1", "new0"):
        queues.put({"l": "other", "b": "big", "n": "new"}[item[0]], item, urgent=True)
    first = [queues.take() for _ in range(4)]
    assert first == ["late0", "big3", "new0", "late1"]
    rest = [queues.take() for _ in range(6)]
    assert sorted(map(str, rest[:5])) == ["big1", "big2", "other0", "other1", "other2"]
    assert rest[5] is None


def test_without_room_only_what_is_urgent_is_asked_for_and_taken():
    queues: Turns[str] = Turns(8)
    queues.put("bulk", "bulk0")
    queues.put("mixed", "bulk1")
    queues.put("mixed", "urgent0", urgent=True)
    assert queues.take(urgent=True, room=0) == "urgent0"
    assert queues.take(urgent=True, room=0) is None
    assert [question.host for question in queues.asked] == ["mixed"]
    assert {queues.take(), queues.take()} == {"bulk0", "bulk1"}


def test_a_host_is_asked_no_more_often_for_what_is_urgent():
    queues: Turns[str] = Turns(1)
    queues.put("h", "first")
    assert queues.take() == "first"
    queues.put("h", "second")
    queues.put("h", "urgent", urgent=True)
    assert queues.take(urgent=True) is None
    queues.finished("h")
    assert queues.take(urgent=True) == "urgent"
    queues.finished("h")
    assert queues.take() == "second"


def test_what_is_urgent_expires_and_is_dropped_like_all_else():
    queues: Turns[str] = Turns(1)
    queues.put("h", "first")
    assert queues.take() == "first"
    queues.put("h", "second")
    queues.put("h", "urgent0", urgent=True)
    assert queues.take() is None
    queues.now += 2
    queues.put("h", "urgent1", urgent=True)
    queues.now += 2
    assert queues.queues.held == 3
    assert queues.expire(3) == ["urgent0", "second"]
    queues.put("h", "third")
    assert queues.queues.drop("h", queues.now) == ["urgent1", "third"]
    queues.finished("h")
    assert queues.take() is None
    assert queues.queues.hosts == 0


def test_an_urgent_request_waits_for_urgent_ones_of_its_host_only():
    queues: Turns[int] = Turns(1)
    for number in range(50):
        queues.put("h", number)
    for _ in range(9):
        assert queues.take() is not None
        queues.finished("h")
    assert [queues.take(), queues.take()] == [9, None]
    queues.now += 10
    backlog = queues.queues.backlog
    assert backlog("h", 5.0, queues.now) == 40.0
    assert backlog("h", 5.0, queues.now, urgent=True) is None
    for number in range(6):
        queues.put("h", 100 + number, urgent=True)
    assert queues.take() is None
    assert backlog("h", 5.0, queues.now, urgent=True) == 6.0
