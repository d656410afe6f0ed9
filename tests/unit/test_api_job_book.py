"""What a process knows of a job never goes back, however late it reads what it published itself."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.api.jobs import JobBook
from producer.job import OwnJob, api_job
from shared.messages import JobMessage

JOB = api_job("job", None)
LATER = JOB.model_copy(update={"created_at": JOB.created_at + timedelta(days=40)})


class Read:
    """A record of `jobs` as the client gives it."""

    def __init__(self, message: JobMessage | None) -> None:
        self._value = None if message is None else message.encode()

    def key(self) -> bytes:
        return b"job"

    def value(self) -> bytes | None:
        return self._value


def reads(book: JobBook, *messages: JobMessage | None) -> None:
    records: list[Any] = [Read(message) for message in messages]
    book.take(records)


def test_a_job_that_was_promised_stays_closed_while_older_messages_are_read():
    book = JobBook()
    reads(book, JOB.published(10))
    book.know(JOB.closed(30))
    for older in (JOB.published(10), JOB.published(20)):
        reads(book, older)
        assert book.find("job") == JobMessage(**JOB.closed(30).model_dump())
    reads(book, JOB.closed(30))
    assert book.find("job", OwnJob) == JOB.closed(30)


def test_rows_that_are_known_to_be_published_are_never_fewer():
    book = JobBook()
    book.know(JOB.published(20))
    reads(book, JOB.published(10))
    assert book.find("job", OwnJob) == JOB.published(20)
    reads(book, JOB.published(20), JOB.published(30))
    assert book.find("job", OwnJob) == JOB.published(30)


@pytest.mark.parametrize("known", [JOB.published(10), JOB.published(30), JOB.closed(30)])
def test_what_is_known_late_changes_nothing_that_was_read(known):
    book = JobBook()
    reads(book, JOB.published(10), JOB.published(30), JOB.closed(30))
    book.know(known)
    assert book.find("job", OwnJob) == JOB.closed(30)
    reads(book, None)
    assert len(book) == 0


def test_what_another_process_said_of_a_job_counts_before_its_own_is_read():
    book = JobBook()
    book.know(JOB.published(10))
    reads(book, JOB.closed(10))
    assert book.find("job", OwnJob) == JOB.closed(10)


def test_a_job_that_is_begun_anew_is_none_of_the_one_before_it():
    book = JobBook()
    reads(book, JOB.closed(30))
    book.know(LATER.published(5))
    assert book.find("job", OwnJob) == LATER.published(5)
    reads(book, JOB.closed(30), None)
    assert book.find("job", OwnJob) == LATER.published(5)
    reads(book, LATER.published(5), LATER.closed(7), None)
    assert book.find("job") is None


def test_what_is_read_counts_where_nothing_was_published_here():
    book = JobBook()
    reads(book, LATER.closed(30), JOB.published(1))
    assert book.find("job", OwnJob) == JOB.published(1)


def test_a_job_that_was_forgotten_may_be_read_again():
    book = JobBook()
    book.know(JOB.closed(30))
    book.forget("job")
    reads(book, JOB.published(10))
    assert book.find("job", OwnJob) == JOB.published(10)


@given(
    rows=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    closed=st.booleans(),
    steps=st.lists(st.booleans(), max_size=14),
    here=st.sets(st.integers(0, 7)),
)
def test_it_never_goes_back_and_ends_with_what_was_said_last(rows, closed, steps, here):
    total = 0
    log: list[OwnJob] = [JOB.published(total := total + more) for more in rows]
    if closed:
        log.append(JOB.closed(total))
    book = JobBook()
    known = read = 0
    seen = [(False, 0)]
    # Each message is known once it is published, if it was published here, and read at some time.
    for knows in [*steps, *[True] * len(log), *[False] * len(log)]:
        if knows and known < len(log):
            if known in here:
                book.know(log[known])
            known += 1
        elif not knows and read < len(log):
            reads(book, log[read])
            read += 1
        found = book.find("job")
        seen.append((False, 0) if found is None else (found.rows is not None, found.rows_published))
    assert seen == sorted(seen)
    assert book.find("job", OwnJob) == log[-1]
    reads(book, None)
    assert len(book) == 0
