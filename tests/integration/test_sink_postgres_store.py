"""What goes into a real PostgreSQL comes out of it: once, whole, and counted."""

import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from deploy import local
from pairscore.errors import EnvironmentFault, SettingsError
from pairscore.pair import Reason
from shared.messages import (
    MAX_ROWS,
    CsvFormat,
    Defect,
    JobMessage,
    JobState,
    Rejection,
    ScoreMessage,
    decode,
)
from shared.results import Page, open_results
from shared.results.page import PAGE_BYTES
from shared.results.postgres import Address, PostgresResults, prepare, schema
from shared.results.postgres.schema import VERSION
from shared.settings import KafkaSettings, StoreSettings
from shared.topics import Topics
from sink.faults import StoreFault
from sink.intake import Batch, Place, Rejected, Scored, Stored
from sink.loop import Due
from sink.postgres.holdings import Held, Holdings
from sink.postgres.store import PostgresStore
from tests.fetching import wait_until
from tests.postgres_sinks import ask, database, url_of
from tests.services import had

TOPICS = Topics.of(KafkaSettings())
NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
IDS = {TOPICS.scores: "one", TOPICS.jobs: "two"}


@pytest.fixture(scope="module", params=["UTF8", "SQL_ASCII"])
def shared_url(request, postgres_service) -> Iterator[str]:
    with database(postgres_service.url, request.param) as url:
        yield url


@pytest.fixture
def url(postgres_service) -> Iterator[str]:
    with database(postgres_service.url) as url:
        yield url


class Sink:
    """A store with the partitions that it was given, as the loop would hold it."""

    def __init__(self, url: str) -> None:
        self.holdings = Holdings()
        self.store = PostgresStore(
            Address(SecretStr(url)), TOPICS, self.holdings, statement_seconds=30.0
        )
        self.store.begin()

    def hold(self, *places: Place) -> None:
        """Take partitions over, as the group does."""
        for place, stored in self.store.claim(places, IDS).items():
            self.holdings.add(place, Held(stored, stored or 0))

    def close(self) -> None:
        self.store.close()


@contextmanager
def sink_at(url: str, partitions: int = 2) -> Iterator[Sink]:
    with closing(Sink(url)) as sink:
        sink.hold((TOPICS.jobs, 0), *((TOPICS.scores, p) for p in range(partitions)))
        yield sink


@contextmanager
def results_at(url: str) -> Iterator[PostgresResults]:
    with closing(PostgresResults(SecretStr(url))) as results:
        yield results


def score(row: int, job: str = "job", **changes) -> ScoreMessage:
    outcome = {"similarity": 20.5, "cosine": 0.205, "image_sha256": "ab" * 32}
    if "error" in changes:
        outcome = {}
    fields = {
        "job": job,
        "row": row,
        "url": f"http://a/{row}",
        "caption": f"caption {row}",
        "columns": (f"http://a/{row}", f"caption {row}"),
        "model": "m1",
        "attempts": 1,
        "scored_at": NOW,
    }
    return ScoreMessage(**{**fields, **outcome, **changes})


def said(job: str = "job", *, published: int, rows: int | None = None) -> JobMessage:
    return JobMessage(
        job=job,
        source=f"{job}.csv",
        header=("url", "caption"),
        rows_published=published,
        rows=rows,
        state=JobState.OPEN if rows is None else JobState.CLOSED,
        created_at=NOW,
    )


def batch(
    messages: Sequence[ScoreMessage] = (),
    *,
    partition: int = 0,
    start: int = 0,
    jobs: Sequence[JobMessage] = (),
    jobs_start: int = 0,
) -> Batch:
    """Messages as they are read from a partition, from offset `start` on."""
    scores = [Scored(partition, start + i, m, m.encode()) for i, m in enumerate(messages)]
    after = {}
    if scores:
        after[TOPICS.scores, partition] = start + len(scores)
    if jobs:
        after[TOPICS.jobs, 0] = jobs_start + len(jobs)
    return Batch(scores, list(jobs), [], after, 0)


@contextmanager
def of_version(number: int) -> Iterator[None]:
    """As of an earlier pairscore, which knew the first ones only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "_VERSIONS", schema._VERSIONS[:number])
        patch.setattr(schema, "VERSION", number)
        yield


def texts() -> st.SearchStrategy[str]:
    odd = st.sampled_from(
        ["", "\0", "a\0b", "\\N", "\t", "\n", '"', "{}", "\\u0000", "\uffff", "😺"]
    )
    return odd | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def times() -> st.SearchStrategy[datetime]:
    zones = st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))])
    return st.datetimes(timezones=zones)


FIELDS = {
    "url": texts(),
    "caption": texts(),
    "columns": st.lists(texts(), max_size=4).map(tuple),
    "raw": st.none() | texts(),
    "image_sha256": st.none() | texts(),
    "model": texts() | st.just("é" * 5000),
    "attempts": st.integers(0, 3) | st.integers(0, 10**30),
    "scored_at": times(),
    "error_detail": st.none() | texts(),
}
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
MESSAGES = st.builds(
    score,
    row=st.integers(0, 5) | st.integers(0, (1 << 62) - 1),
    similarity=NUMBERS,
    cosine=NUMBERS,
    caption_truncated=st.booleans(),
    **FIELDS,
) | st.builds(score, row=st.integers(0, 5), error=st.sampled_from(Reason), **FIELDS)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(messages=st.lists(MESSAGES, max_size=8))
def test_whatever_is_a_message_is_stored_and_read_back_whole(shared_url, messages):
    first: dict[int, ScoreMessage] = {}
    for message in messages:
        assert decode(ScoreMessage, message.encode()) == message
        first.setdefault(message.row, message)
    with sink_at(shared_url) as sink, results_at(shared_url) as results:
        ask(shared_url, "TRUNCATE pairscore.scores, pairscore.counts, pairscore.offsets")
        sink.hold((TOPICS.scores, 0))
        stored = sink.store.store(batch(messages))
        assert results.page("job", 0, 100).outcomes == [first[row] for row in sorted(first)]
        assert stored.duplicates == len(messages) - len(first)
        status = results.job("job")
        assert (status.done if status else 0) == len(first) == sum(stored.rows.values())


def test_a_character_that_text_cannot_hold_is_told_in_the_row_and_kept_in_the_message(url):
    odd = score(1, caption="nul \0 here", columns=("\0", "x"))
    with sink_at(url) as sink, results_at(url) as results:
        sink.store.store(batch([score(0), odd, score(2)]))
        assert results.page("job").outcomes == [score(0), odd, score(2)]
    found = ask(url, "SELECT caption, columns, original FROM pairscore.scores ORDER BY row")
    assert found[1] == ("nul \ufffd here", ["\ufffd", "x"], odd.encode())
    assert found[0][2] is None, "kept twice for no reason"


def test_an_outcome_of_a_row_that_has_one_is_counted_and_left_out(url):
    with sink_at(url) as sink, results_at(url) as results:
        first = sink.store.store(batch([score(0), score(1), score(1, model="late")]))
        assert (first.rows, first.duplicates) == ({"": 2}, 1)
        again = [score(1, model="later"), score(2, error=Reason.TIMEOUT)]
        second = sink.store.store(batch(again, partition=1))
        assert (second.rows, second.duplicates) == ({"timeout": 1}, 1)
        assert results.duplicates() == 2
        status = results.job("job")
        assert status is not None
        assert (status.scored, status.failed) == (2, {Reason.TIMEOUT: 1})
        assert status.models == {"m1": 3}
        assert [outcome.model for outcome in results.page("job").outcomes] == ["m1", "m1", "m1"]


def test_sinks_that_store_at_once_count_every_row_once(url):
    def run(number: int) -> None:
        with closing(Sink(url)) as sink:
            sink.hold((TOPICS.scores, number))
            for start in range(0, 500, 50):
                # Rows 0 to 99 of every sink are those of the others too.
                rows = [n if n < 100 else 1000 * number + n for n in range(start, start + 50)]
                sink.store.store(batch([score(n) for n in rows], partition=number, start=start))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    with results_at(url) as results:
        status = results.job("job")
        assert status is not None
        assert status.scored == 100 + 4 * 400
        assert results.duplicates() == 3 * 100
    assert ask(url, "SELECT count(*) FROM pairscore.scores") == [(status.scored,)]


def test_a_partition_that_another_sink_went_on_with_is_left_to_it(url):
    with sink_at(url) as slow, sink_at(url) as fast:
        fast.store.store(batch([score(0), score(1)]))
        mixed = batch([score(0, model="slow")])
        other = batch([score(7, model="slow")], partition=1)
        mixed.scores += other.scores
        mixed.next_offsets |= other.next_offsets
        stored = slow.store.store(mixed)
        assert (stored.rows, stored.duplicates) == ({"": 1}, 0)
        assert slow.holdings.take_contested() == {(TOPICS.scores, 0)}
        assert (TOPICS.scores, 0) not in slow.holdings.held
        # Taken over again, it goes on behind what the other one stored.
        assert slow.store.claim([(TOPICS.scores, 0)], IDS) == {(TOPICS.scores, 0): 2}
    with results_at(url) as results:
        found = [(outcome.row, outcome.model) for outcome in results.page("job").outcomes]
        assert found == [(0, "m1"), (1, "m1"), (7, "slow")]


def test_sinks_that_begin_at_once_on_an_empty_database_all_begin(postgres_service):
    for _ in range(3):
        with database(postgres_service.url) as url:
            ready = threading.Barrier(6)

            def begin(url: str = url, ready: threading.Barrier = ready) -> None:
                ready.wait(30.0)
                Sink(url).close()

            with ThreadPoolExecutor(6) as pool:
                for future in [pool.submit(begin) for _ in range(6)]:
                    future.result(60.0)
            found = ask(url, "SELECT version FROM pairscore.version ORDER BY 1")
            assert found == [(number + 1,) for number in range(VERSION)]


def test_a_commit_whose_answer_was_lost_is_not_done_twice(url):
    with proxy(url) as (through, cut), sink_at(through) as sink, results_at(url) as results:
        cut.set()
        given = batch([score(0), score(1)])
        with pytest.raises(StoreFault, match="cannot be used"):
            sink.store.store(given)
        wait_until(lambda: len(results.page("job").outcomes) == 2)
        assert sink.store.store(given) == Stored({"": 2}, 0, {})
        assert results.duplicates() == 0
        more = sink.store.store(batch([score(2)], start=2))
        assert more.rows == {"": 1}
        status = results.job("job")
        assert status is not None
        assert status.scored == 3


def test_a_commit_that_was_not_done_is_done_again(url):
    with sink_at(url) as sink, results_at(url) as results:
        ask(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'pairscore sink' AND datname = current_database()",
        )
        given = batch([score(0)])
        with pytest.raises(StoreFault):
            sink.store.store(given)
        assert results.page("job").outcomes == []
        assert sink.store.store(given).rows == {"": 1}
        assert results.page("job").outcomes == [score(0)]


def test_what_is_said_of_a_job_only_grows_and_a_closed_one_stays_so(url):
    with sink_at(url) as sink, results_at(url) as results:
        sink.store.store(batch(jobs=[said(published=5), said(published=3)]))
        status = results.job("job")
        assert status is not None
        assert (status.state, status.rows_published, status.rows) == ("open", 5, None)
        sink.store.store(batch(jobs=[said(published=6, rows=6)], jobs_start=2))
        sink.store.store(batch(jobs=[said(published=9)], jobs_start=3))
        status = results.job("job")
        assert status is not None
        assert (status.state, status.rows_published, status.rows) == ("closed", 6, 6)
        assert (status.source, status.created_at, status.result) == ("job.csv", NOW, None)


def test_whatever_is_said_of_a_job_is_stored(url):
    odd = JobMessage(
        job="odd",
        source="nul \0.csv",
        source_sha256="\0",
        header=("a\0b", "", "😺"),
        csv=CsvFormat(header_raw="a\0b", dropped=(10**40,), output_name="o.csv"),
        rows_published=MAX_ROWS,
        state=JobState.OPEN,
        created_at=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
    )
    with sink_at(url) as sink, results_at(url) as results:
        sink.store.store(batch([score(0)], jobs=[odd, said(published=1)]))
        found = {status.job: status for status in results.jobs()}
        assert (found["odd"].source, found["odd"].rows_published) == ("nul \ufffd.csv", MAX_ROWS)
        assert found["job"].rows_published == 1
    header, csv = ask(url, "SELECT header, csv::text FROM pairscore.jobs WHERE job = 'odd'")[0]
    assert header == ["a\ufffdb", "", "😺"]
    assert CsvFormat.model_validate_json(csv) == odd.csv


def test_a_job_is_complete_when_all_its_rows_are_stored(url):
    with sink_at(url) as sink, results_at(url) as results:
        sink.store.store(batch([score(0), score(2)], jobs=[said(published=3, rows=3)]))
        assert sink.store.finish_jobs().complete == 0
        assert [status.state for status in results.jobs()] == ["closed"]
        sink.store.store(batch([score(1)], partition=1))
        assert sink.store.finish_jobs().complete == 1
        status = results.job("job")
        assert status is not None
        assert (status.state, status.lag) == ("complete", 0)
        assert status.result == "postgres: pairscore.scores where job = 'job'"
        sink.store.store(batch([score(1)], partition=1, start=1))
        assert sink.store.finish_jobs().complete == 0, "complete once"


def test_a_job_without_rows_is_complete_when_it_is_closed(url):
    with sink_at(url) as sink, results_at(url) as results:
        sink.store.store(batch(jobs=[said("none", published=0, rows=0)]))
        assert sink.store.finish_jobs().complete == 1
        assert [(status.job, status.state) for status in results.jobs()] == [("none", "complete")]


def test_a_row_that_its_job_has_not_never_completes_it(url):
    with sink_at(url) as sink, results_at(url) as results:
        # Before it is known how many there are, and after.
        sink.store.store(batch([score(0), score(7, error=Reason.TIMEOUT)]))
        sink.store.store(batch(jobs=[said(published=2, rows=2)]))
        assert sink.store.finish_jobs().complete == 0
        late = sink.store.store(batch([score(2)], partition=1))
        assert (late.rows, late.rejected) == ({}, {Defect.INVALID: 1})
        status = results.job("job")
        assert status is not None
        assert (status.state, status.scored, status.failed) == ("closed", 1, {})
        assert results.rejected() == 2
        sink.store.store(batch([score(1)], partition=1, start=1))
        assert sink.store.finish_jobs().complete == 1
        assert [outcome.row for outcome in results.page("job").outcomes] == [0, 1]
    details = ask(url, "SELECT detail, value IS NOT NULL FROM pairscore.rejected ORDER BY id")
    assert details == [
        ("row 7 of job job, which has 2 rows", True),
        ("row 2 of job job, which has 2 rows", True),
    ]


def test_what_is_no_message_is_kept_with_its_place(url):
    odd = Rejected(TOPICS.scores, 1, 4, Rejection(Defect.UNDECODABLE, "nul \0"), b"\xff\0")
    nothing = Rejected(TOPICS.jobs, 0, 0, Rejection(Defect.UNDECODABLE, "no value"), None)
    with sink_at(url) as sink, results_at(url) as results:
        after = {(TOPICS.scores, 1): 5, (TOPICS.jobs, 0): 1}
        stored = sink.store.store(Batch([], [], [odd, nothing], after, 0))
        assert stored.rejected == {Defect.UNDECODABLE: 2}
        assert results.rejected() == 2
        assert sink.store.offsets() == after
    columns = "topic, partition, record_offset, defect, detail, value"
    assert ask(url, f"SELECT {columns} FROM pairscore.rejected ORDER BY id") == [
        (TOPICS.scores, 1, 4, "undecodable", "nul \ufffd", b"\xff\0"),
        (TOPICS.jobs, 0, 0, "undecodable", "no value", None),
    ]


def test_offsets_of_a_topic_that_was_made_anew_are_forgotten_aloud(url, caplog):
    place = (TOPICS.scores, 0)
    with sink_at(url) as sink:
        sink.store.store(batch([score(0)]))
        assert sink.store.claim([place], IDS) == {place: 1}
        assert sink.store.claim([place], IDS | {TOPICS.scores: "another"}) == {place: None}
        assert "was deleted and made anew" in caplog.text
        # Whoever had it before is refused, since what it holds is of the topic that is gone.
        assert sink.store.store(batch([score(1)], start=1)) == Stored({}, 0, {})
        assert sink.holdings.take_contested() == {place}


def test_outcomes_are_read_page_by_page_in_the_order_of_rows(url):
    with sink_at(url) as sink, results_at(url) as results:
        sink.store.store(batch([score(row) for row in (9, 0, 4, 2, 7)]))
        assert [outcome.row for outcome in results.page("job", 0, 2).outcomes] == [0, 2]
        assert [outcome.row for outcome in results.page("job", 3, 2).outcomes] == [4, 7]
        assert results.page("job", 10).outcomes == []
        assert results.page("another").outcomes == []


# As random as text can be, and what packs well: 4 MB of it are some 50 kB in the database.
@pytest.mark.parametrize(
    "text",
    [secrets.token_hex(PAGE_BYTES // 6), "ab" * (PAGE_BYTES // 6)],
    ids=["random", "packed"],
)
@pytest.mark.parametrize("field", ["caption", "columns", "raw", "original"])
def test_a_page_of_long_rows_ends_early_and_says_that_there_are_more(url, field, text):
    changes: dict[str, dict[str, Any]] = {
        "caption": {"caption": text},
        "columns": {"columns": ("u", text)},
        "raw": {"raw": text},
        # With a null character, the message is kept beside what a column can hold of it.
        "original": {"caption": f"\0{text[: len(text) // 2]}"},
    }
    scores = [score(row, **changes[field]) for row in range(7)]
    scores.append(score(7, columns=(text * 3, text)))
    with sink_at(url) as sink, results_at(url) as results:
        sink.store.store(batch(scores))
        pages = [results.page("job", row) for row in (0, 3, 6, 7)]
        found = [[each.row for each in page.outcomes] for page in pages]
        assert found == [[0, 1, 2], [3, 4, 5], [6, 7], [7]]
        assert all(page.more for page in pages)
        assert [each for page in pages for each in page.outcomes] == [*scores, scores[7]]
        assert results.page("job", 8) == Page([], more=False)
        assert results.page("job", 0, 2) == Page(scores[:2], more=True)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cells=st.lists(st.lists(st.text("ab", max_size=300), max_size=9), min_size=1, max_size=12),
    limit=st.integers(1, 13),
)
def test_page_by_page_it_is_all_of_them(shared_url, cells, limit):
    scores = [score(row, columns=tuple(each)) for row, each in enumerate(cells)]
    with (
        sink_at(shared_url) as sink,
        results_at(shared_url) as results,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr("shared.results.postgres.results.PAGE_BYTES", 500)
        ask(shared_url, "TRUNCATE pairscore.scores, pairscore.counts, pairscore.offsets")
        sink.hold((TOPICS.scores, 0))
        sink.store.store(batch(scores))
        found: list[ScoreMessage] = []
        page = results.page("job", 0, limit)
        while page.more:
            assert 0 < len(page.outcomes) <= limit
            assert sum(len("".join(each.columns)) for each in page.outcomes[:-1]) < 500
            found += page.outcomes
            page = results.page("job", found[-1].row + 1, limit)
        assert found + page.outcomes == scores


def test_where_no_sink_has_been_yet_nothing_is_found_and_nothing_is_made(url):
    with closing(open_results(StoreSettings(postgres_url=SecretStr(url)))) as results:
        assert results.jobs() == []
        assert results.job("job") is None
        assert results.page("job").outcomes == []
        assert (results.rejected(), results.duplicates()) == (0, 0)
    assert ask(url, "SELECT to_regnamespace('pairscore')") == [(None,)]


def test_outcomes_of_a_job_of_which_nothing_was_said_yet_are_counted(url):
    with sink_at(url) as sink, results_at(url) as results:
        sink.store.store(batch([score(3), score(4, error=Reason.DNS_ERROR)]))
        sink.store.store(batch(jobs=[said("later", published=0)]))
        status = results.job("job")
        assert status is not None
        assert (status.state, status.source, status.rows) == ("open", "", None)
        assert (status.scored, status.failed) == (1, {Reason.DNS_ERROR: 1})
        assert [status.job for status in results.jobs()] == ["job", "later"], "the latest first"


def test_readers_go_on_after_the_server_was_restarted():
    with had(local.postgres(native=True)) as server, sink_at(server.url) as sink:
        sink.store.store(batch([score(0)]))
        with results_at(server.url) as results:
            assert results.page("job").outcomes == [score(0)]
            server.kill()
            with pytest.raises(EnvironmentFault, match=r"PAIRSCORE_POSTGRES_URL.*cannot be used"):
                results.jobs()
            server.start()
            assert results.page("job").outcomes == [score(0)]
            with pytest.raises(StoreFault):
                sink.store.store(batch([score(1)], start=1))
            assert sink.store.store(batch([score(1)], start=1)).rows == {"": 1}


def test_tables_of_a_newer_pairscore_are_left_alone(url):
    Sink(url).close()
    ask(url, "INSERT INTO pairscore.version (version) VALUES (%s)", VERSION + 1)
    with pytest.raises(EnvironmentFault, match="made by a newer pairscore"):
        Sink(url)
    with pytest.raises(EnvironmentFault, match="made by a newer pairscore"):
        PostgresResults(SecretStr(url))


def test_a_database_that_has_not_every_character_is_refused(postgres_service):
    with (
        database(postgres_service.url, "LATIN1") as url,
        pytest.raises(EnvironmentFault, match="keeps text as LATIN1"),
    ):
        Sink(url)


def test_a_user_without_rights_is_told_and_needs_none_but_to_use_the_tables(url):
    role = f"plain_{conninfo_name(url)}"
    ask(url, f"CREATE ROLE {role} LOGIN")
    try:
        plain = url_of(url, user=role)
        with pytest.raises(EnvironmentFault, match=f"the user {role} may not make the schema"):
            Sink(plain)
        with psycopg.connect(url, autocommit=True) as owner:
            prepare(owner)
        ask(url, f"GRANT USAGE ON SCHEMA pairscore TO {role}")
        ask(
            url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pairscore TO {role}"
        )
        with sink_at(plain) as sink, results_at(plain) as results:
            sink.store.store(batch([score(0)], jobs=[said(published=1, rows=1)]))
            assert sink.store.finish_jobs().complete == 1
            assert results.page("job").outcomes == [score(0)]
    finally:
        ask(url, f"DROP OWNED BY {role}")
        ask(url, f"DROP ROLE {role}")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@[::1/x",
        "hunter2",
        "mysql://me:hunter2@localhost/x",
        "postgresql://me:hunter2@localhost/x?nonsense=hunter2",
        "postgresql://me:hunter 2@localhost/x",
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(url):
    with pytest.raises(SettingsError, match="PAIRSCORE_POSTGRES_URL") as caught:
        Address(SecretStr(url))
    assert "hunter" not in str(caught.value)


def test_an_address_shows_where_it_leads_and_no_password():
    shown = str(Address(SecretStr("postgresql://me:hunter2@db.example:6543/pairs")))
    assert shown == "PostgreSQL at db.example:6543/pairs"


def conninfo_name(url: str) -> str:
    return str(ask(url, "SELECT current_database()")[0][0])


@contextmanager
def proxy(url: str) -> Iterator[tuple[str, threading.Event]]:
    """A way to the server that, once told to, is cut when it has passed a COMMIT on."""
    parts = psycopg.conninfo.conninfo_to_dict(url)
    target = (str(parts["host"]), int(parts["port"] or 5432))
    cut, ended = threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    threads: list[threading.Thread] = []

    def serve() -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                client, _ = listener.accept()
                threads.append(threading.Thread(target=carry, args=(client,)))
                threads[-1].start()

    def carry(client: socket.socket) -> None:
        with client, socket.create_connection(target) as server:
            back = threading.Thread(target=pump, args=(server, client))
            back.start()
            pump(client, server)
            back.join(30.0)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
                if cut.is_set() and b"COMMIT\0" in data:
                    cut.clear()
                    # The server does what it was told, and nobody hears of it.
                    source.shutdown(socket.SHUT_RDWR)
                    return
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    accepting = threading.Thread(target=serve)
    accepting.start()
    try:
        port = str(listener.getsockname()[1])
        yield url_of(url, host=target[0], port=port), cut
    finally:
        ended.set()
        accepting.join(30.0)
        listener.close()
        for thread in threads:
            thread.join(30.0)


def test_jobs_that_are_not_complete_are_given_by_their_deadlines(postgres_service):
    later, soon = NOW + timedelta(hours=9), NOW + timedelta(hours=7)
    jobs = [
        said("later", published=5).model_copy(update={"deadline": later}),
        said("over", published=5).model_copy(update={"deadline": NOW - timedelta(days=2)}),
        said("soon", published=5, rows=5).model_copy(update={"deadline": soon}),
        said("without", published=5),
        said("done", published=1, rows=1).model_copy(update={"deadline": later}),
    ]
    scores = [score(0, "soon"), score(3, "soon"), score(0, "done")]
    with database(postgres_service.url) as url, sink_at(url) as sink:
        sink.store.store(batch(scores, jobs=jobs))
        assert sink.store.finish_jobs().complete == 1
        after = NOW - timedelta(days=1)
        expected = [Due("soon", 3, soon), Due("later", 5, later)]
        assert sink.store.due(100, after) == expected
        assert sink.store.due(1, after) == expected[:1]


def test_tables_of_the_version_before_are_brought_up_to_date(postgres_service):
    with database(postgres_service.url) as url:
        with of_version(1), sink_at(url) as sink:
            sink.store.store(batch([score(0)], jobs=[]))
        with sink_at(url) as sink:
            deadline = NOW + timedelta(hours=1)
            job = said(published=2).model_copy(update={"deadline": deadline})
            sink.store.store(batch(jobs=[job]))
            assert sink.store.due(9, NOW) == [Due("job", 1, deadline)]
        assert ask(url, "SELECT version FROM pairscore.version ORDER BY 1") == [(1,), (2,)]
