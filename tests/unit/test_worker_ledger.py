"""The ledger, example by example and against a naive model."""

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

import worker.ledger
from worker.ledger import AHEAD, Ledger, Plan, Record

A, B = ("pairs", 0), ("pairs", 1)


@pytest.fixture
def ledger():
    made: Ledger[str] = Ledger()
    made.assign(A)
    return made


def test_plan_holds_outcomes_up_to_the_first_unfinished_record(ledger):
    first, second, third = (ledger.observe(A, offset) for offset in (10, 11, 12))
    ledger.resolve(first, "first")
    ledger.resolve(third, "third")
    plan = ledger.plan()
    assert (plan.outcomes, plan.offsets) == (("first",), {A: 11})
    ledger.confirm(plan)
    assert not ledger.plan()
    ledger.resolve(second, "second")
    assert ledger.plan().outcomes == ("second", "third")
    assert ledger.plan().offsets == {A: 13}


def test_next_offset_skips_what_is_no_record(ledger):
    first, second = ledger.observe(A, 3), ledger.observe(A, 7)
    ledger.resolve(first, "first")
    assert ledger.plan().offsets == {A: 4}
    ledger.resolve(second, "second")
    assert ledger.plan().offsets == {A: 8}


def test_unconfirmed_plan_is_planned_again(ledger):
    ledger.resolve(ledger.observe(A, 0), "only")
    assert ledger.plan().outcomes == ("only",)
    assert ledger.plan().outcomes == ("only",)
    ledger.confirm(ledger.plan())
    assert not ledger.plan()
    assert ledger.unconfirmed == 0


def test_outcomes_that_come_after_the_plan_are_in_the_next_one(ledger):
    first, second = ledger.observe(A, 0), ledger.observe(A, 1)
    ledger.resolve(first, "first")
    plan = ledger.plan()
    ledger.resolve(second, "second")
    ledger.confirm(plan)
    assert ledger.plan().outcomes == ("second",)
    assert ledger.plan().offsets == {A: 2}


def test_limit_bounds_the_plan_and_its_offsets(ledger):
    ledger.assign(B)
    for partition in (A, B):
        for offset in range(3):
            ledger.resolve(ledger.observe(partition, offset), f"{partition[1]}.{offset}")
    plan = ledger.plan(4)
    assert plan.outcomes == ("0.0", "0.1", "0.2", "1.0")
    assert plan.offsets == {A: 3, B: 1}
    ledger.confirm(plan)
    assert ledger.plan(4).outcomes == ("1.1", "1.2")


def test_bytes_bound_the_plan_and_its_offsets(ledger):
    ledger.assign(B)
    for partition in (A, B):
        for offset, size in enumerate([10, 20, 30]):
            ledger.resolve(ledger.observe(partition, offset, size), f"{partition[1]}.{offset}")
    plan = ledger.plan(limit_bytes=70)
    assert (plan.outcomes, plan.offsets) == (("0.0", "0.1", "0.2", "1.0"), {A: 3, B: 1})
    ledger.confirm(plan)
    assert ledger.ready_bytes == 50
    assert ledger.plan(limit_bytes=49).outcomes == ("1.1",)


def test_record_of_more_than_the_bytes_is_planned_alone(ledger):
    ledger.assign(B)
    for partition, size in ((A, 101), (B, 0), (A, 5)):
        offset = ledger.next_offset(partition)
        ledger.resolve(ledger.observe(partition, offset, size), f"{partition[1]}.{offset}")
    for outcomes in (("0.0",), ("0.1", "1.0")):
        plan = ledger.plan(limit_bytes=100)
        assert plan.outcomes == outcomes
        ledger.confirm(plan)


def test_plan_of_some_partitions_leaves_the_others(ledger):
    ledger.assign(B)
    for partition in (A, B):
        for offset in range(3):
            ledger.resolve(ledger.observe(partition, offset), f"{partition[1]}.{offset}")
    plan = ledger.plan(only={B})
    assert (plan.outcomes, plan.offsets) == (("1.0", "1.1", "1.2"), {B: 3})
    ledger.confirm(plan)
    assert ledger.plan().outcomes == ("0.0", "0.1", "0.2")


def test_outcome_of_an_earlier_assignment_is_dropped(ledger):
    record = ledger.observe(A, 5)
    ledger.forget(A)
    assert not ledger.resolve(record, "late")
    ledger.assign(A)
    again = ledger.observe(A, 5)
    assert not ledger.resolve(record, "late")
    assert not ledger.is_current(record)
    assert ledger.is_current(again)
    assert ledger.resolve(again, "now")
    assert ledger.plan().outcomes == ("now",)


def test_plan_of_an_earlier_assignment_confirms_nothing(ledger):
    ledger.resolve(ledger.observe(A, 5), "then")
    plan = ledger.plan()
    ledger.assign(A)
    ledger.resolve(ledger.observe(A, 5), "now")
    ledger.confirm(plan)
    assert ledger.plan().outcomes == ("now",)


def test_end_of_a_partition_is_committed_once_nothing_before_it_is_unfinished(ledger):
    record = ledger.observe(A, 5)
    ledger.reached(A, 7)
    assert not ledger.plan()
    ledger.resolve(record, "only")
    assert ledger.plan().offsets == {A: 7}
    ledger.confirm(ledger.plan())
    assert not ledger.plan()
    ledger.reached(A, 7)
    assert not ledger.plan()
    ledger.reached(A, 9)
    plan = ledger.plan()
    assert (plan.outcomes, plan.offsets) == ((), {A: 9})


def test_end_of_a_partition_does_not_hide_a_record_after_it(ledger):
    ledger.reached(A, 7)
    record = ledger.observe(A, 7)
    assert not ledger.plan()
    ledger.resolve(record, "seven")
    assert ledger.plan().offsets == {A: 8}


def test_offsets_that_do_not_rise_are_refused(ledger):
    ledger.observe(A, 5)
    assert ledger.next_offset(A) == 6
    with pytest.raises(ValueError, match="offset 5, and 6 is next"):
        ledger.observe(A, 5)


def test_offsets_below_an_end_that_was_reached_are_refused(ledger):
    ledger.reached(A, 7)
    for _ in ("not committed", "committed"):
        with pytest.raises(ValueError, match="offset 3, and 7 is next"):
            ledger.observe(A, 3)
        ledger.confirm(ledger.plan())


def test_assignment_begins_where_the_group_has_got_to(ledger):
    ledger.begin(A, 7)
    ledger.reached(A, 7)
    assert not ledger.plan(), "that is committed already"
    with pytest.raises(ValueError, match="offset 6, and 7 is next"):
        ledger.observe(A, 6)
    ledger.assign(A)
    assert ledger.next_offset(A) == 0


def test_second_outcome_is_refused(ledger):
    record = ledger.observe(A, 5)
    ledger.observe(A, 6)
    ledger.resolve(record, "one")
    with pytest.raises(ValueError, match="resolved already"):
        ledger.resolve(record, "two")


def test_record_of_a_foreign_partition_is_refused(ledger):
    with pytest.raises(KeyError):
        ledger.observe(B, 0)


def test_sizes_are_counted_until_confirmed_or_forgotten(ledger):
    ledger.assign(B)
    ledger.observe(B, 0, 1_000)
    ledger.resolve(ledger.observe(A, 0, 10), "one")
    ledger.observe(A, 1, 20)
    assert (ledger.unconfirmed, ledger.unconfirmed_bytes) == (3, 1_030)
    ledger.confirm(ledger.plan())
    assert (ledger.unconfirmed, ledger.unconfirmed_bytes) == (2, 1_020)
    ledger.forget(B)
    assert (ledger.unconfirmed, ledger.unconfirmed_bytes) == (1, 20)


U = ("urgent", 0)


@pytest.fixture
def ahead():
    made: Ledger[str] = Ledger(ahead="urgent")
    made.assign(U)
    return made


def test_outcomes_of_the_topic_do_not_wait_for_those_before_them(ahead):
    first, *others, last = (ahead.observe(U, offset, 10) for offset in (10, 11, 14, 15))
    for record in others:
        ahead.resolve(record, str(record.offset))
    assert ahead.has_ready(U)
    plan = ahead.plan()
    assert (plan.outcomes, plan.offsets, plan.ahead) == (("11", "14"), {U: 10}, {U: (11, 14)})
    ahead.confirm(plan)
    assert not ahead.plan()
    assert not ahead.has_ready(U)
    assert (ahead.ready, ahead.unconfirmed, ahead.unconfirmed_bytes) == (0, 2, 20)
    ahead.resolve(first, "10")
    plan = ahead.plan()
    assert (plan.outcomes, plan.offsets, plan.ahead) == (("10",), {U: 15}, {})
    ahead.confirm(plan)
    ahead.resolve(last, "15")
    assert (ahead.plan().outcomes, ahead.plan().offsets) == (("15",), {U: 16})


def test_who_has_the_partition_next_leaves_out_what_was_published_ahead(ahead):
    ahead.begin(U, 10, {11, 14})
    first = ahead.observe(U, 10)
    published = [ahead.observe(U, offset) for offset in (11, 14)]
    last = ahead.observe(U, 15)
    found = [ahead.is_published(each) for each in (first, *published, last)]
    assert found == [False, True, True, False]
    assert ahead.unconfirmed == 2
    ahead.resolve(last, "15")
    plan = ahead.plan()
    assert (plan.outcomes, plan.offsets, plan.ahead) == (("15",), {U: 10}, {U: (11, 14, 15)})
    ahead.confirm(plan)
    ahead.resolve(first, "10")
    assert (ahead.plan().outcomes, ahead.plan().offsets) == (("10",), {U: 16})


def test_what_was_published_ahead_and_is_not_read_yet_stays_known(ahead):
    ahead.begin(U, 10, {14, 19})
    ahead.resolve(ahead.observe(U, 10), "10")
    plan = ahead.plan()
    assert (plan.offsets, plan.ahead) == ({U: 11}, {U: (14, 19)})
    ahead.confirm(plan)
    assert ahead.is_published(ahead.observe(U, 14))
    plan = ahead.plan()
    assert (plan.outcomes, plan.offsets, plan.ahead) == ((), {U: 15}, {U: (19,)})
    ahead.confirm(plan)
    ahead.reached(U, 25)
    assert (ahead.plan().offsets, ahead.plan().ahead) == ({U: 25}, {})


def test_nothing_is_published_further_ahead_than_can_be_said(ahead):
    first = ahead.observe(U, 10)
    near, far = ahead.observe(U, 10 + AHEAD - 1), ahead.observe(U, 10 + AHEAD)
    for record in (near, far):
        ahead.resolve(record, str(record.offset))
    assert ahead.ready == 1
    plan = ahead.plan()
    assert plan.outcomes == (str(near.offset),)
    ahead.confirm(plan)
    assert not ahead.plan()
    assert not ahead.has_ready(U)
    ahead.resolve(first, "10")
    assert ahead.plan().outcomes == ("10", str(far.offset))


def test_what_is_near_once_the_first_is_finished_can_be_published(ahead):
    first, second = ahead.observe(U, 10), ahead.observe(U, 20)
    far = ahead.observe(U, 10 + AHEAD)
    ahead.resolve(far, "far")
    assert not ahead.has_ready(U)
    ahead.resolve(first, "10")
    assert ahead.plan().outcomes == ("10", "far")
    assert ahead.plan().offsets == {U: 20}
    ahead.confirm(ahead.plan())
    ahead.resolve(second, "20")
    assert (ahead.plan().outcomes, ahead.plan().offsets) == (("20",), {U: 11 + AHEAD})


def test_what_was_published_ahead_counts_as_ready_nowhere(ledger):
    ledger.begin(A, 3, {4})
    first, published = ledger.observe(A, 3), ledger.observe(A, 4, 7)
    assert ledger.is_published(published)
    ledger.resolve(first, "3")
    ledger.confirm(ledger.plan())
    assert (ledger.ready, ledger.ready_bytes, ledger.unconfirmed) == (0, 0, 0)
    assert not ledger.has_ready(A)


def name(number: int) -> tuple[str, int]:
    """Two of a topic of the usual kind, and one whose outcomes may go ahead."""
    return ("u" if number == 2 else "t", number)


NEAR = 6
"""`AHEAD` of the ledger that is compared with the model."""


class AgainstModel(RuleBasedStateMachine):
    """A broker's view: what is committed, what was published; and all that may be asked of both."""

    records = Bundle("records")

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(worker.ledger, "AHEAD", NEAR)
        self.ledger: Ledger[tuple[int, int]] = Ledger(ahead="u")
        self.assigned: set[int] = set()
        self.log: dict[int, list[int]] = {0: [], 1: [], 2: []}  # offsets that are records
        self.position: dict[int, int] = {}
        self.committed: dict[int, int] = {0: 0, 1: 0, 2: 0}
        self.ahead: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
        self.open: dict[int, dict[int, bool]] = {}  # observed now: offset -> finished
        self.sizes: dict[tuple[int, int], int] = {}
        self.published: list[tuple[int, int]] = []
        self.pending: Plan[tuple[int, int]] | None = None

    @rule(number=st.sampled_from([0, 1, 2]))
    def assign(self, number):
        self.ledger.assign(name(number))
        self.ledger.begin(name(number), self.committed[number], self.ahead[number])
        self.assigned.add(number)
        self.position[number] = self.committed[number]
        self.open[number] = {}
        self.pending = None

    @rule(number=st.sampled_from([0, 1, 2]))
    def forget(self, number):
        self.ledger.forget(name(number))
        self.assigned.discard(number)
        self.open.pop(number, None)
        self.pending = None

    @rule(
        number=st.sampled_from([0, 1, 2]),
        gap=st.integers(0, 3),
        size=st.integers(0, 5),
        target=records,
    )
    def observe(self, number, gap, size):
        if number not in self.assigned:
            return multiple()
        later = [offset for offset in self.log[number] if offset >= self.position[number]]
        if later:
            offset = later[0]
        else:
            offset = max([self.position[number], *(o + 1 for o in self.log[number])]) + gap
            self.log[number].append(offset)
        self.position[number] = offset + 1
        record = self.ledger.observe(name(number), offset, size)
        published = offset in self.ahead[number]
        assert self.ledger.is_published(record) == published
        if published:
            return multiple()
        self.open[number][offset] = False
        self.sizes[number, offset] = size
        return record

    @rule(record=consumes(records))
    def resolve(self, record: Record[tuple[int, int]]):
        number = record.partition[1]
        current = self.ledger.resolve(record, (number, record.offset))
        if current:
            assert self.open[number][record.offset] is False
            self.open[number][record.offset] = True

    def finished(self, number):
        """The offsets before the first that is unfinished, or all where they may go ahead."""
        offsets = sorted(self.open[number])
        if number == 2:
            unfinished = min((o for o in offsets if not self.open[number][o]), default=1 << 62)
            return [o for o in offsets if self.open[number][o] and o < unfinished + NEAR]
        return list(itertools.takewhile(self.open[number].__getitem__, offsets))

    @rule(
        limit=st.one_of(st.none(), st.integers(1, 4)),
        limit_bytes=st.one_of(st.none(), st.integers(1, 12)),
        only=st.one_of(st.none(), st.sets(st.sampled_from([0, 1, 2]))),
    )
    def plan(self, limit, limit_bytes, only):
        some = None if only is None else {name(number) for number in only}
        self.pending = self.ledger.plan(limit, limit_bytes=limit_bytes, only=some)
        planned = self.pending.outcomes
        size = sum(self.sizes[each] for each in planned)
        assert limit is None or len(planned) <= limit
        assert limit_bytes is None or size <= limit_bytes or len(planned) == 1
        for number in self.assigned:
            finished = [(number, offset) for offset in self.finished(number)]
            taken = [each for each in planned if each[0] == number]
            assert taken == finished[: len(taken)]
            if only is not None and number not in only:
                assert not taken
            elif len(taken) < len(finished):
                more = size + self.sizes[finished[len(taken)]]
                assert len(planned) == limit or (limit_bytes is not None and more > limit_bytes)
                assert planned
        for (_, number), offset in self.pending.offsets.items():
            unfinished = [o for o, done in self.open[number].items() if not done]
            assert offset <= min(unfinished, default=offset)

    @precondition(lambda self: self.pending is not None)
    @rule()
    def confirm(self):
        assert self.pending is not None
        self.ledger.confirm(self.pending)
        self.published += self.pending.outcomes
        for (_, number), offset in self.pending.offsets.items():
            now = {o for each, o in self.pending.outcomes if each == number}
            known = {o for o in self.ahead[number] | now if o >= offset}
            assert offset > self.committed[number] or known > self.ahead[number]
            assert offset >= self.committed[number]
            assert set(self.pending.ahead.get(name(number), ())) == known
            assert number == 2 or not known
            self.committed[number] = offset
            self.ahead[number] = known
            self.open[number] = {
                o: d for o, d in self.open[number].items() if o >= offset and o not in now
            }
        self.pending = None

    @invariant()
    def everything_that_is_committed_was_published_once(self):
        expected = [
            (number, offset)
            for number, offsets in self.log.items()
            for offset in offsets
            if offset < self.committed[number] or offset in self.ahead[number]
        ]
        assert sorted(self.published) == sorted(expected)

    @invariant()
    def counts_agree(self):
        assert self.ledger.unconfirmed == sum(len(each) for each in self.open.values())
        assert self.ledger.unconfirmed_bytes == sum(
            self.sizes[number, offset] for number, each in self.open.items() for offset in each
        )
        ready = [(number, offset) for number in self.open for offset in self.finished(number)]
        assert self.ledger.ready == len(ready)
        assert self.ledger.ready_bytes == sum(self.sizes[each] for each in ready)
        for number in self.assigned:
            assert self.ledger.has_ready(name(number)) == bool(self.finished(number))

    def teardown(self):
        self.patch.undo()


AgainstModel.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestLedgerAgainstModel = AgainstModel.TestCase


def test_a_partition_has_something_ready_until_that_is_confirmed():
    ledger: Ledger[str] = Ledger()
    ledger.assign(("urgent", 0))
    first, second = (ledger.observe(("urgent", 0), offset) for offset in range(2))
    ledger.resolve(second, "second")
    assert not ledger.has_ready(("urgent", 0))
    ledger.resolve(first, "first")
    assert ledger.has_ready(("urgent", 0))
    ledger.confirm(ledger.plan(only=[("urgent", 0)]))
    assert not ledger.has_ready(("urgent", 0))
    assert not ledger.has_ready(("elsewhere", 0))
