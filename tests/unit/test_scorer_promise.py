"""A promise: an outcome that one thread waits for and another gives."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pairscore.pair import Failure, Outcome, Reason
from pairscore.scorer.promise import Promise

OUTCOME = Failure(Reason.TIMEOUT)
DEADLINE = 10


def test_an_outcome_that_was_given_is_there_at_once():
    promise = Promise()
    assert not promise.done()
    promise.set_result(OUTCOME)
    assert promise.done()
    assert promise.result() is OUTCOME


def test_an_error_is_raised():
    promise = Promise()
    promise.set_exception(RuntimeError("it ended"))
    assert promise.done()
    with pytest.raises(RuntimeError, match="it ended"):
        promise.result()


def test_who_asks_before_is_told_however_the_two_meet():
    def wait(promise: Promise, asking: threading.Event) -> Outcome:
        asking.set()
        return promise.result()

    with ThreadPoolExecutor(1) as pool:
        for _ in range(2_000):
            promise, asking = Promise(), threading.Event()
            waiting = pool.submit(wait, promise, asking)
            assert asking.wait(DEADLINE)
            promise.set_result(OUTCOME)
            assert waiting.result(DEADLINE) is OUTCOME
