"""The table of work in flight: each URL and each content once, every row exactly once."""

from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairscore.cache import Cache, Lifetimes
from pairscore.fetch import Origin, Url
from pairscore.pair import Failure, Reason, Score
from pairscore.scorer.work import ContentWork, Encoded, InFlight, Row, UrlWork

A = Url("http://a.example/1.jpg", "a.example")
B = Url("http://b.example/2.jpg", "b.example")
LIFETIMES = Lifetimes(least=60, most=60, absent=60, unknown_host=60)
ORIGIN = Origin(A.text)
EMBEDDING = np.full(4, 0.5, np.float32)


def table(cache_bytes: int = 100_000) -> InFlight:
    return InFlight(Cache(cache_bytes, LIFETIMES, wall=lambda: 0.0))


def row(caption: str = "a cat") -> Row:
    return Row(caption, Future())


def score(sha256: str, attempts: int) -> Score:
    return Score(1.0, 0.5, False, sha256, attempts)


def admit(flights: InFlight, url: Url, entry: Row) -> UrlWork | Encoded | Failure | None:
    flights.enter(entry)
    return flights.admit(url, entry)


def begun(admitted: object) -> UrlWork:
    assert isinstance(admitted, UrlWork), admitted
    return admitted


def decoding(fetched: object) -> ContentWork:
    assert isinstance(fetched, ContentWork), fetched
    return fetched


def test_rows_of_a_url_in_flight_wait_for_one_fetch():
    flights = table()
    first, second = row(), row()
    begun(admit(flights, A, first))
    assert admit(flights, A, second) is None
    assert flights.waiting() == 1


def test_urls_of_one_content_wait_for_one_decoding_and_keep_their_own_attempts():
    flights = table()
    rows = [row(), row()]
    works = [begun(admit(flights, url, r)) for url, r in zip((A, B), rows, strict=True)]
    works[0].attempts, works[1].attempts = 1, 3
    content = decoding(flights.fetched(works[0], "sha", ORIGIN))
    assert flights.fetched(works[1], "sha", ORIGIN) is None
    late = row()
    assert admit(flights, B, late) is None
    encoded = flights.encoded(content, EMBEDDING, by_others=False)
    assert sorted(attempts for _, attempts in encoded.rows) == [1, 3, 3]
    assert {r for r, _ in encoded.rows} == {*rows, late}
    assert flights.waiting() == 0


def test_what_was_scored_lately_needs_no_work_and_no_attempt():
    flights = table()
    work = begun(admit(flights, A, row()))
    content = decoding(flights.fetched(work, "sha", ORIGIN))
    flights.encoded(content, EMBEDDING, by_others=False)
    again = row()
    known = admit(flights, A, again)
    assert isinstance(known, Encoded)
    assert known.rows == ((again, 0),)
    other = admit(flights, B, row())
    assert isinstance(other, UrlWork)
    assert isinstance(flights.fetched(other, "sha", ORIGIN), Encoded)


@pytest.mark.parametrize("retryable", [False, True])
def test_only_failures_that_would_come_again_are_remembered(retryable):
    flights = table()
    first = row()
    work = begun(admit(flights, A, first))
    work.attempts = 2
    failure = Failure(Reason.HTTP_ERROR, "404", retryable=retryable)
    ended = flights.failed(work, failure)
    assert [(r, f.attempts) for r, f in ended] == [(first, 2)]
    again = admit(flights, A, row())
    if retryable:
        assert isinstance(again, UrlWork)
    else:
        assert again == Failure(Reason.HTTP_ERROR, "404", attempts=0)


def test_failure_of_a_content_is_that_of_every_url_that_led_to_it():
    flights = table()
    rows = [row(), row()]
    works = [begun(admit(flights, url, r)) for url, r in zip((A, B), rows, strict=True)]
    content = decoding(flights.fetched(works[0], "sha", ORIGIN))
    flights.fetched(works[1], "sha", ORIGIN)
    ended = flights.failed(content, Failure(Reason.CORRUPT_IMAGE))
    assert {r for r, _ in ended} == set(rows)
    assert isinstance(admit(flights, A, row()), Failure)
    assert isinstance(admit(flights, B, row()), Failure)


def test_abandoned_rows_raise_and_later_outcomes_for_them_are_ignored():
    flights = table()
    waiting = row()
    work = begun(admit(flights, A, waiting))
    flights.abandon(RuntimeError("stage ended"))
    flights.settle(flights.failed(work, Failure(Reason.TIMEOUT)))
    with pytest.raises(RuntimeError, match="stage ended"):
        waiting.future.result(timeout=0)


class Stages:
    """What the stages do, one step at a time; URL n has content n // 2."""

    def __init__(self) -> None:
        self.flights = table(cache_bytes=5_000)
        self.rows: list[Row] = []
        self.fetching: dict[int, UrlWork] = {}
        self.decoding: dict[str, ContentWork] = {}

    def admit(self, number: int) -> None:
        entry = row()
        self.rows.append(entry)
        admitted = admit(self.flights, Url(f"http://h.example/{number}", "h.example"), entry)
        if isinstance(admitted, UrlWork):
            self.fetching[number] = admitted
        elif isinstance(admitted, Failure):
            self.flights.settle([(entry, admitted)])
        else:
            self.score(admitted)

    def score(self, encoded: Encoded | None) -> None:
        if encoded is not None:
            self.flights.settle((r, score(encoded.sha256, n)) for r, n in encoded.rows)

    def fetch(self, number: int) -> None:
        if number in self.fetching:
            sha = str(number // 2)
            fetched = self.flights.fetched(self.fetching.pop(number), sha, ORIGIN)
            if isinstance(fetched, ContentWork):
                self.decoding[sha] = fetched
            else:
                self.score(fetched)

    def fail(self, number: int) -> None:
        if number in self.fetching:
            failure = Failure(Reason.TIMEOUT, retryable=number % 2 == 0)
            self.flights.settle(self.flights.failed(self.fetching.pop(number), failure))

    def encode(self, number: int) -> None:
        content = self.decoding.pop(str(number // 2), None)
        if content is not None:
            self.score(self.flights.encoded(content, EMBEDDING, by_others=False))


@given(
    st.lists(st.tuples(st.sampled_from(["admit", "fetch", "fail", "encode"]), st.integers(0, 5)))
)
def test_every_row_gets_exactly_one_outcome_whatever_the_order(steps):
    stages = Stages()
    for step, number in steps:
        getattr(stages, step)(number)
    for number in range(6):
        stages.fail(number)
    for number in range(6):
        stages.encode(number)
    assert all(entry.future.done() for entry in stages.rows)
    assert stages.flights.waiting() == 0
