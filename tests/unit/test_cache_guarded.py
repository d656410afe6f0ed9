"""A store behind its guard: it answers in time, or is done without until it does."""

import logging
import threading

from pairscore.cache.guarded import Guarded
from pairscore.cache.stats import Call
from pairscore.cache.store import Answer, Question
from pairscore.guard import CallStats, State, Unavailable
from tests.fetching import wait_until

QUESTION = Question([b"url"], [])
ANSWER = Answer([(None, None)], [])


class Store:
    """Answers, unless told to fail, to hang or to have a defect."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0
        self.pinged = 0

    def look_up(self, question):
        self.asked += 1
        self.gate.wait(10)
        if self.error is not None:
            raise self.error
        return ANSWER

    def ping(self):
        self.pinged += 1
        self.look_up(QUESTION)

    def close(self):
        pass


class World:
    """A guarded store and a clock that is set."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.now = 0.0
        self.store, self.stats = Store(), CallStats()
        self.guarded = Guarded(
            self.store,  # type: ignore[arg-type]
            name="the store",
            seconds=seconds,
            stats=self.stats,
            clock=lambda: self.now,
        )

    def fail(self) -> None:
        self.store.error = Unavailable("no")
        for _ in range(2):
            assert self.guarded.look_up(QUESTION) is None


def test_an_answer_is_given_and_counted():
    world = World()
    assert world.guarded.look_up(QUESTION) is ANSWER
    assert (world.stats.calls[Call.LOOK_UP], world.stats.keys[Call.LOOK_UP]) == (1, 1)
    world.guarded.close()


def test_after_two_failures_nobody_is_asked_until_a_probe_went_well(caplog):
    caplog.set_level(logging.INFO)
    world = World()
    world.fail()
    assert not world.guarded.available
    assert world.guarded.look_up(QUESTION) is None
    assert world.store.asked == 2
    assert world.stats.left_out[Call.LOOK_UP] == 1
    world.store.error = None
    world.now = 1.0
    assert not world.guarded.available  # a probe goes out, and nobody waits for it
    wait_until(lambda: world.guarded.available)
    assert world.store.pinged == 1
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert world.guarded.look_up(QUESTION) is ANSWER
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]
    world.guarded.close()


def test_a_store_that_answers_nothing_but_probes_is_left_alone_for_longer_and_longer(caplog):
    caplog.set_level(logging.INFO)
    world = World()
    world.fail()
    for now, rest in ((1.0, 2.0), (3.0, 4.0), (7.0, 8.0)):
        world.now = now
        world.store.error = None
        assert not world.guarded.available
        wait_until(lambda: world.guarded.available)
        world.store.error = Unavailable("full")
        assert world.guarded.look_up(QUESTION) is None  # one is enough now
        world.now = now + rest - 0.1
        assert not world.guarded.available
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    world.guarded.close()


def test_a_probe_that_fails_makes_the_rest_longer():
    world = World()
    world.fail()
    for now, probes in ((0.9, 0), (1.0, 1), (2.9, 1), (3.0, 2)):
        world.now = now
        assert not world.guarded.available
        wait_until(lambda probes=probes: world.store.pinged == probes)  # type: ignore[misc]
        wait_until(lambda: world.store.asked == 2 + world.store.pinged)
    world.guarded.close()


def test_a_call_that_does_not_come_back_is_given_up_and_no_other_made_meanwhile():
    world = World(seconds=0.05)
    world.store.gate.clear()
    assert world.guarded.look_up(QUESTION) is None
    assert world.stats.errors[Call.LOOK_UP] == 1
    assert not world.guarded.available
    assert world.guarded.look_up(QUESTION) is None
    assert world.store.asked == 1
    world.store.gate.set()
    wait_until(lambda: world.guarded.available)
    world.guarded.close()


def test_while_a_call_is_under_way_the_store_is_available_to_others():
    world = World()
    world.store.gate.clear()
    asking = threading.Thread(target=world.guarded.look_up, args=(QUESTION,))
    asking.start()
    wait_until(lambda: world.store.asked == 1)
    assert world.guarded.available
    world.store.gate.set()
    asking.join(10)
    world.guarded.close()


def test_a_defect_of_the_store_is_said_and_done_without(caplog):
    world = World()
    world.store.error = ZeroDivisionError("defect")
    assert world.guarded.look_up(QUESTION) is None
    assert "ZeroDivisionError: defect" in caplog.text
    world.store.error = None
    assert world.guarded.look_up(QUESTION) is ANSWER
    assert world.stats.state is State.CLOSED
    world.guarded.close()


def test_the_end_does_not_wait_for_a_call_that_hangs(monkeypatch):
    monkeypatch.setattr("pairscore.guard.guard._CLOSE_SECONDS", 0.1)
    world = World(seconds=0.05)
    world.store.gate.clear()
    world.guarded.look_up(QUESTION)
    world.guarded.close()
    world.store.gate.set()
