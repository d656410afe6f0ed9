"""The circuit breaker: when it opens, what it lets through, when it closes."""

from pairscore.guard.breaker import Breaker, State


def breaker() -> Breaker:
    return Breaker(failures=2, least=1.0, most=3.0)


def test_it_opens_after_so_many_failures_in_a_row():
    tried = breaker()
    tried.failed(0.0)
    tried.succeeded()
    tried.failed(1.0)
    assert tried.state(1.0) is State.CLOSED
    tried.failed(1.5)
    assert tried.state(1.5) is State.OPEN
    assert tried.state(2.4) is State.OPEN
    assert tried.state(2.5) is State.HALF_OPEN


def test_while_a_probe_is_out_nothing_else_is_let_through():
    tried = breaker()
    tried.failed(0.0)
    tried.failed(0.0)
    tried.probe()
    assert tried.state(5.0) is State.OPEN
    tried.succeeded()
    assert tried.state(5.0) is State.CLOSED


def test_each_probe_that_fails_doubles_the_rest_up_to_the_most():
    tried, now, rests = breaker(), 0.0, []
    tried.failed(now)
    tried.failed(now)
    for _ in range(4):
        began = now
        while tried.state(now) is State.OPEN:
            now += 0.25
        rests.append(now - began)
        tried.probe()
        tried.failed(now)
    assert rests == [1.0, 2.0, 3.0, 3.0]


def test_failures_of_what_was_under_way_when_it_opened_do_not_prolong_the_rest():
    tried = breaker()
    for now in (0.0, 0.0, 0.5, 0.9):
        tried.failed(now)
    assert tried.state(1.0) is State.HALF_OPEN


def test_after_a_success_the_rest_is_short_again():
    tried = breaker()
    tried.failed(0.0)
    tried.failed(0.0)
    tried.probe()
    tried.failed(1.0)
    tried.probe()
    tried.succeeded()
    tried.failed(10.0)
    tried.failed(10.0)
    assert tried.state(11.0) is State.HALF_OPEN


def test_after_a_probe_one_failure_is_too_many():
    tried = breaker()
    tried.failed(0.0)
    assert tried.failed(0.0)
    tried.probe()
    tried.probed()
    assert tried.state(1.0) is State.CLOSED
    assert not tried.failed(1.0)
    assert tried.state(2.9) is State.OPEN
    assert tried.state(3.0) is State.HALF_OPEN
    tried.probe()
    tried.probed()
    assert tried.succeeded()
    assert not tried.succeeded()
