"""When a URL is asked again, and when it is given up."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pairscore.fetch.retry import RetryPolicy
from pairscore.pair import Failure, Reason

LOST = Failure(Reason.CONNECT_ERROR, retryable=True)
seconds = st.floats(0, 3600)
policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 2000),
    backoff_base=seconds,
    backoff_cap=seconds,
    retry_after_cap=seconds,
)
fractions = st.floats(0, 1, exclude_max=True)
made = st.integers(1, 2000)


def busy(retry_after: float) -> Failure:
    return Failure(Reason.HTTP_ERROR, "429", retryable=True, retry_after=retry_after)


@hypothesis_settings(deadline=None)
@given(policies, made, fractions, st.none() | seconds)
def test_a_failure_that_is_not_retryable_is_never_tried_again(policy, attempts, random, asked):
    failure = Failure(Reason.HTTP_ERROR, "404", retry_after=asked)
    assert policy.delay(failure, attempts, random) is None


@hypothesis_settings(deadline=None)
@given(policies, st.integers(0, 10), fractions)
def test_no_more_attempts_than_allowed_are_made(policy, more, random):
    assert policy.delay(LOST, policy.attempts + more, random) is None
    if policy.attempts > 1:
        assert policy.delay(LOST, policy.attempts - 1, random) is not None


@hypothesis_settings(deadline=None)
@given(policies, made, fractions)
def test_a_delay_lies_between_zero_and_its_ceiling(policy, attempts, random):
    delay = policy.delay(LOST, attempts, random)
    if delay is not None:
        assert 0 <= delay <= policy.backoff_cap
        assert delay <= policy.backoff_base * 2.0 ** min(attempts - 1, 1000)


@hypothesis_settings(deadline=None)
@given(policies, fractions)
def test_later_attempts_never_wait_less_for_the_same_random_number(policy, random):
    policy = RetryPolicy(3000, policy.backoff_base, policy.backoff_cap, policy.retry_after_cap)
    delays = [policy.delay(LOST, attempts, random) for attempts in range(1, 40)]
    assert delays == sorted(delays)
    # What rounds to nothing as one second does not reach the cap by doubling either.
    if policy.backoff_base >= 1e-3:
        assert policy.delay(LOST, 2999, random) == random * policy.backoff_cap


@hypothesis_settings(deadline=None)
@given(policies, made, fractions, seconds)
def test_retry_after_is_waited_out_or_given_up(policy, attempts, random, asked):
    delay = policy.delay(busy(asked), attempts, random)
    if attempts >= policy.attempts or asked > policy.retry_after_cap:
        assert delay is None
    else:
        assert delay is not None
        assert asked <= delay <= asked + policy.backoff_base


def test_the_ceiling_doubles_from_the_base_to_the_cap():
    policy = RetryPolicy(attempts=9, backoff_base=0.5, backoff_cap=6, retry_after_cap=60)
    ceilings = [policy.delay(LOST, attempts, 0.5) for attempts in range(1, 7)]
    assert ceilings == [0.25, 0.5, 1.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize(("asked", "expected"), [(0.0, 0.25), (60.0, 60.25), (60.5, None)])
def test_retry_after_up_to_the_cap_is_honoured_with_jitter(asked, expected):
    policy = RetryPolicy(attempts=4, backoff_base=0.5, backoff_cap=30, retry_after_cap=60)
    assert policy.delay(busy(asked), 1, 0.5) == expected


def test_one_attempt_means_no_second():
    policy = RetryPolicy(attempts=1, backoff_base=0.5, backoff_cap=30, retry_after_cap=60)
    assert policy.delay(LOST, 1, 0.0) is None
