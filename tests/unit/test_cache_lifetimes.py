"""How long what a URL led to is believed."""

import pytest

from pairscore.cache import Lifetimes
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
