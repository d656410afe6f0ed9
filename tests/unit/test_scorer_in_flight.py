"""The table of work in flight: each URL and each content once, every row exactly once."""

from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairscore.cache import Cache, CaptionEntry, Lifetimes, UrlEntry
from pairscore.cache.shared import Found
from pairscore.fetch import Origin, Url
from pairscore.pair import Failure, Reason, Score
from pairscore.scorer.in_flight import InFlight
from pairscore.scorer.work import ContentWork, Row, UrlWork

A = Url("http://a.example/1.jpg", "a.example")
B = Url("http://b.example/2.jpg", "b.example")
LIFETIMES = Lifetimes(least=60, most=100, absent=60, unknown_host=60)
ORIGIN = Origin(A.text)
EMBEDDING = np.full(4, 0.5, np.float32)


def table(cache_bytes: int = 100_000) -> InFlight:
    return InFlight(Cache(cache_bytes, LIFETIMES, wall=lambda: 0.0))


def row(url: Url = A) -> Row:
    return Row(url, "a cat", Future())


def score(sha256: str, attempts: int) -> Score:
    return Score(1.0, 0.5, False, sha256, attempts)


def admit(flights: InFlight, entry: Row) -> UrlWork | Row | Failure | None:
    flights.enter(entry)
    return flights.admit(entry)


def begun(admitted: object) -> UrlWork:
    assert isinstance(admitted, UrlWork), admitted
    return admitted


def decoding(fetched: object) -> ContentWork:
    assert isinstance(fetched, ContentWork), fetched
    return fetched


def test_rows_of_a_url_in_flight_wait_for_one_fetch():
    flights = table()
    first, second = row(), row()
    begun(admit(flights, first))
    assert admit(flights, second) is None
    assert flights.waiting() == 1


def test_urls_of_one_content_wait_for_one_decoding_and_keep_their_own_attempts():
    flights = table()
    rows = [row(A), row(B)]
    works = [begun(admit(flights, each)) for each in rows]
    works[0].attempts, works[1].attempts = 1, 3
    content = decoding(flights.fetched(works[0], "sha", ORIGIN))
    assert flights.fetched(works[1], "sha", ORIGIN) is None
    late = row(B)
    assert admit(flights, late) is None
    encoded = flights.encoded(content, EMBEDDING, by_others=False)
    assert sorted(each.attempts for each in encoded) == [1, 3, 3]
    assert set(encoded) == {*rows, late}
    assert {(each.sha256, each.image is EMBEDDING) for each in encoded} == {("sha", True)}
    assert flights.waiting() == 0


def test_work_is_urgent_from_when_an_urgent_row_waits_for_it():
    flights = table()
    works = [begun(admit(flights, row(url))) for url in (A, B)]
    content = decoding(flights.fetched(works[0], "sha", ORIGIN))
    assert flights.fetched(works[1], "sha", ORIGIN) is None
    assert not content.urgent
    assert admit(flights, Row(B, "a dog", Future(), urgent=True)) is None
    assert (works[0].urgent, works[1].urgent, content.urgent) == (False, True, True)
    assert begun(admit(table(), Row(A, "a dog", Future(), urgent=True))).urgent


def test_what_was_scored_lately_needs_no_work_and_no_attempt():
    flights = table()
    work = begun(admit(flights, row()))
    content = decoding(flights.fetched(work, "sha", ORIGIN))
    flights.encoded(content, EMBEDDING, by_others=False)
    again = row()
    assert admit(flights, again) is again
    assert (again.sha256, again.attempts) == ("sha", 0)
    recalled = row()
    assert flights.recall(recalled) is None
    assert (recalled.image is EMBEDDING, recalled.sha256) == (True, "sha")
    other = row(B)
    work = begun(admit(flights, other))
    assert flights.fetched(work, "sha", ORIGIN) == [other]


@pytest.mark.parametrize("retryable", [False, True])
def test_only_failures_that_would_come_again_are_remembered(retryable):
    flights = table()
    first = row()
    work = begun(admit(flights, first))
    work.attempts = 2
    failure = Failure(Reason.HTTP_ERROR, "404", retryable=retryable)
    ended = flights.failed(work, failure)
    assert [(r, f.attempts) for r, f in ended] == [(first, 2)]
    again = admit(flights, row())
    if retryable:
        assert isinstance(again, UrlWork)
    else:
        assert again == Failure(Reason.HTTP_ERROR, "404", attempts=0)


def test_failure_of_a_content_is_that_of_every_url_that_led_to_it():
    flights = table()
    rows = [row(A), row(B)]
    works = [begun(admit(flights, each)) for each in rows]
    content = decoding(flights.fetched(works[0], "sha", ORIGIN))
    flights.fetched(works[1], "sha", ORIGIN)
    ended = flights.failed(content, Failure(Reason.CORRUPT_IMAGE))
    assert {r for r, _ in ended} == set(rows)
    assert isinstance(admit(flights, row()), Failure)
    assert isinstance(admit(flights, row(B)), Failure)


def test_abandoned_rows_raise_and_later_outcomes_for_them_are_ignored():
    flights = table()
    waiting = row()
    work = begun(admit(flights, waiting))
    flights.abandon(RuntimeError("stage ended"))
    flights.settle(flights.failed(work, Failure(Reason.TIMEOUT)))
    assert waiting.future.done()
    with pytest.raises(RuntimeError, match="stage ended"):
        waiting.future.result()


def led_to(sha256: str, fresh_until: float) -> tuple[UrlEntry, np.ndarray]:
    return UrlEntry(sha256, fresh_until, etag="x"), EMBEDDING


def test_rows_are_given_what_others_know_and_it_is_remembered():
    flights = table()
    known, stale, unknown = row(A), row(B), row(Url("http://c.example/3.jpg", "c.example"))
    text = CaptionEntry(EMBEDDING, truncated=False)
    found = Found({A.text: led_to("a", 30.0), B.text: led_to("b", -1.0)}, {"a cat": text})
    assert flights.learn([known, stale, unknown], found) == [known]
    assert (known.image is EMBEDDING, known.sha256, known.attempts) == (True, "a", 0)
    assert all(each.text is text for each in (known, stale, unknown))
    work = begun(admit(flights, stale))
    assert work.earlier is not None
    assert work.earlier[0].sha256 == "b"
    again = row(A)
    assert flights.recall(again) is None
    assert (again.image is EMBEDDING, again.text is text) == (True, True)


@pytest.mark.parametrize("ends", [30.0, 90.0])
def test_of_what_is_known_here_and_to_others_that_which_holds_longer_is_believed(ends):
    flights = table()
    work = begun(admit(flights, row()))
    content = decoding(flights.fetched(work, "here", ORIGIN))  # for 60 seconds
    flights.encoded(content, EMBEDDING, by_others=False)
    entry = row()
    ready = flights.learn([entry], Found({A.text: led_to("there", ends)}, {}))
    assert ready == ([entry] if ends > 60 else [])
    assert flights.admit(entry) is entry
    assert entry.sha256 == ("there" if ends > 60 else "here")


class Stages:
    """What the stages do, one step at a time; URL n has content n // 2."""

    def __init__(self) -> None:
        self.flights = table(cache_bytes=5_000)
        self.rows: list[Row] = []
        self.fetching: dict[int, UrlWork] = {}
        self.decoding: dict[str, ContentWork] = {}

    def admit(self, number: int) -> None:
        entry = row(Url(f"http://h.example/{number}", "h.example"))
        self.rows.append(entry)
        admitted = admit(self.flights, entry)
        if isinstance(admitted, UrlWork):
            self.fetching[number] = admitted
        elif isinstance(admitted, Failure):
            self.flights.settle([(entry, admitted)])
        elif admitted is not None:
            self.score([admitted])

    def score(self, rows: list[Row]) -> None:
        self.flights.settle((each, score(each.sha256, each.attempts)) for each in rows)

    def fetch(self, number: int) -> None:
        if number in self.fetching:
            sha = str(number // 2)
            fetched = self.flights.fetched(self.fetching.pop(number), sha, ORIGIN)
            if isinstance(fetched, ContentWork):
                self.decoding[sha] = fetched
            elif fetched is not None:
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
