"""Where redirects lead a request, and what a next attempt forgets of it."""

import pytest

from pairscore.fetch import Url
from pairscore.fetch.request import Request
from pairscore.pair import Failure, Reason

FIRST = Url("http://example.org/a", "example.org")


@pytest.fixture
def request_for_a():
    return Request(FIRST, lambda _result: None)


def test_redirects_are_followed_up_to_the_limit(request_for_a):
    assert request_for_a.follow("https://Other.example/b#x", 0.5, limit=2) is None
    assert request_for_a.target == Url("https://other.example/b", "other.example")
    assert request_for_a.follow("http://third.example/", 0.25, limit=2) is None
    assert request_for_a.target.host == "third.example"
    assert request_for_a.seconds == 0.75
    failure = request_for_a.follow("http://fourth.example/", 0.25, limit=2)
    assert failure == Failure(Reason.TOO_MANY_REDIRECTS, "more than 2")
    assert request_for_a.target.host == "third.example"


@pytest.mark.parametrize("location", ["ftp://h/", "http://h:99999/", "http://\ufffd/", "http:///"])
def test_a_redirect_to_what_is_no_image_url_is_a_failure(request_for_a, location):
    failure = request_for_a.follow(location, 0.5, limit=5)
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.INVALID_URL
    assert failure.detail.startswith("redirected to ")
    assert request_for_a.target == FIRST


def test_the_next_attempt_begins_where_the_first_did(request_for_a):
    request_for_a.follow("http://other.example/", 3.0, limit=1)
    request_for_a.begin_again()
    assert (request_for_a.attempts, request_for_a.target, request_for_a.seconds) == (2, FIRST, 0.0)
    assert request_for_a.follow("http://other.example/", 0.5, limit=1) is None
