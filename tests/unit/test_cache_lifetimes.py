"""How long what a URL led to is believed."""

import pytest

from pairscore.cache import Cache, Lifetimes
from pairscore.pair import Failure, Reason

LIFETIMES = Lifetimes(least=60, most=600, absent=30, unknown_host=10)


@pytest.mark.parametrize(("said", "seconds"), [(None, 60), (0, 60), (90, 90), (1e9, 600)])
def test_what_a_server_says_is_kept_within_bounds(said, seconds):
    assert LIFETIMES.of_image(said) == seconds


@pytest.mark.parametrize(
    ("failure", "seconds"),
    [
        (Failure(Reason.HTTP_ERROR, "404"), 30),
        (Failure(Reason.HTTP_ERROR, "410"), 30),
        (Failure(Reason.HTTP_ERROR, "403"), None),
        (Failure(Reason.HTTP_ERROR, "404", retryable=True), None),
        (Failure(Reason.NOT_AN_IMAGE), 30),
        (Failure(Reason.DNS_ERROR), 10),
        (Failure(Reason.DNS_ERROR, retryable=True), None),
        (Failure(Reason.TIMEOUT, retryable=True), None),
        (Failure(Reason.TOO_LARGE), None),
        (Failure(Reason.BLOCKED_ADDRESS), None),
        (Failure(Reason.DISALLOWED, "robots.txt"), None),
        (Failure(Reason.DISALLOWED, "X-Robots-Tag: noai"), None),
    ],
)
def test_only_failures_that_any_worker_would_find_again_are_shared(failure, seconds):
    assert LIFETIMES.of_failure(failure) == seconds


def test_what_is_not_there_may_be_believed_longer_than_what_is():
    now = 1e9
    lifetimes = Lifetimes(least=0, most=1_800, absent=9_000, unknown_host=60)
    cache = Cache(1_000_000, lifetimes, wall=lambda: now)
    cache.failed("http://e.org/1", Failure(Reason.HTTP_ERROR, "404"))
    now += 8_999
    entry = cache.url("http://e.org/1")
    assert entry is not None
    assert cache.is_fresh(entry)
    now += 1
    assert cache.url("http://e.org/1") is None
