"""The spool stores each row once, with counters that always agree, or nothing of a batch."""

import json
import sqlite3
import stat
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairscore.errors import EnvironmentFault
from pairscore.pair import Reason
from shared.messages import Defect, JobMessage, JobState, Rejection, ScoreMessage
from shared.results.folder import FolderResults
from shared.results.spool import spool_path
from sink.csv.finish import Finisher
from sink.csv.spool import Spool
from sink.faults import StoreFault
from sink.intake import Batch, Intake, Rejected
from sink.loop import Due
from tests.spooling import TOPICS, Taken, batch_of, now, spool_in

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def score(job: str, row: int, error: Reason | None = None, model: str = "m") -> ScoreMessage:
    return ScoreMessage(
        job=job,
        row=row,
        url=f"http://a/{row}",
        caption="c",
        similarity=None if error else 1.0,
        cosine=None if error else 0.1,
        error=error,
        model=model,
        attempts=1,
        scored_at=BEGAN,
    )


def said(job: str, published: int, *, closed: bool = False) -> JobMessage:
    return JobMessage(
        job=job,
        source=f"{job}.csv",
        rows_published=published,
        rows=published if closed else None,
        state=JobState.CLOSED if closed else JobState.OPEN,
        created_at=BEGAN,
    )


ROWS = st.builds(
    score,
    st.sampled_from(["a", "b"]),
    st.integers(0, 12),
    st.sampled_from([None, None, Reason.TIMEOUT, Reason.DNS_ERROR]),
    st.sampled_from(["m", "n"]),
)


@settings(deadline=None, max_examples=60)
@given(batches=st.lists(st.lists(ROWS, max_size=12), max_size=8), rows=st.integers(0, 13))
def test_counters_are_those_of_the_first_outcome_of_each_row(tmp_path_factory, batches, rows):
    results = tmp_path_factory.mktemp("spool")
    first: dict[tuple[str, int], ScoreMessage] = {}
    duplicates = 0
    with spool_in(results) as spool:
        for batch in batches:
            new = 0
            for message in batch:
                if (message.job, message.row) in first:
                    duplicates += 1
                else:
                    first[message.job, message.row] = message
                    new += 1
            stored = spool.store(batch_of(batch))
            assert (sum(stored.rows.values()), stored.duplicates) == (new, len(batch) - new)
        spool.store(batch_of([said("a", rows, closed=True)]))
        of_a = {row: message for (job, row), message in first.items() if job == "a" and row < rows}
        assert [job.message.job for job in spool.due_jobs(9)] == ["a"] * (len(of_a) == rows)
    kept = FolderResults(results)
    assert kept.duplicates() == duplicates
    assert kept.rejected() == sum(job == "a" and row >= rows for job, row in first)
    assert kept.page("a").outcomes == [of_a[row] for row in sorted(of_a)]
    status = kept.job("a")
    assert status is not None
    errors = [message.error for message in of_a.values()]
    assert (status.scored, status.rows, status.state) == (errors.count(None), rows, "closed")
    assert status.failed == {e: errors.count(e) for e in set(errors) if e is not None}
    models = [message.model for message in of_a.values()]
    assert status.models == {m: models.count(m) for m in set(models)}


def test_offsets_are_stored_with_the_rows_or_not_at_all(tmp_path):
    with spool_in(tmp_path) as spool:
        spool.store(batch_of([score("a", 0)], partition=1, offset=7))
        broken = batch_of([score("a", 1)], partition=1, offset=8)
        broken.rejected.append(
            Rejected(TOPICS.scores, 0, 3, Rejection(Defect.INVALID, object()), b"")  # type: ignore[arg-type]
        )
        with pytest.raises(sqlite3.Error):
            spool.store(broken)
        assert spool.offsets() == {(TOPICS.scores, 1): 8}
    with spool_in(tmp_path) as spool:
        assert spool.offsets() == {(TOPICS.scores, 1): 8}
    assert [outcome.row for outcome in FolderResults(tmp_path).page("a").outcomes] == [0]


def test_published_rows_only_grow_and_a_closed_job_stays_closed(tmp_path):
    kept = FolderResults(tmp_path)
    with spool_in(tmp_path) as spool:
        spool.store(batch_of([said("a", 30), said("a", 20)]))
        status = kept.job("a")
        assert status is not None
        assert (status.rows_published, status.lag, status.state) == (30, 30, "open")
        spool.store(batch_of([said("a", 40, closed=True), said("a", 35), score("a", 0)]))
        status = kept.job("a")
        assert status is not None
        assert (status.rows_published, status.rows, status.state) == (40, 40, "closed")
        assert (status.source, status.created_at) == ("a.csv", BEGAN)


def test_outcomes_that_come_before_their_job_are_shown(tmp_path):
    with spool_in(tmp_path) as spool:
        spool.store(batch_of([score("early", 3)]))
    status = FolderResults(tmp_path).job("early")
    assert status is not None
    assert (status.source, status.rows_published, status.rows, status.done) == ("", 0, None, 1)
    assert status.lag == 0


def test_rejected_records_are_kept_as_they_were(tmp_path):
    batch = Batch(
        rejected=[
            Rejected(TOPICS.scores, 2, 40, Rejection(Defect.UNDECODABLE, "what"), b"\xff\0"),
            Rejected(TOPICS.scores, 2, 41, Rejection(Defect.UNDECODABLE, "none"), None),
        ],
        next_offsets={(TOPICS.scores, 2): 42},
    )
    with spool_in(tmp_path) as spool:
        assert spool.store(batch).rejected == {Defect.UNDECODABLE: 2}
        # Read again, as after Kafka has lost records.
        assert spool.store(batch).rejected == {Defect.UNDECODABLE: 0}
    found = sqlite3.connect(spool_path(tmp_path))
    assert found.execute(
        'SELECT topic, partition, "offset", defect, detail, value FROM rejected ORDER BY id'
    ).fetchall() == [
        (TOPICS.scores, 2, 40, "undecodable", "what", b"\xff\0"),
        (TOPICS.scores, 2, 41, "undecodable", "none", None),
    ]
    found.close()


def finish(results, spool: Spool) -> None:
    finisher = Finisher(spool, results, now)
    while finisher.step().again < 1:
        pass


def test_a_complete_job_takes_nothing_more_and_keeps_its_counts(tmp_path):
    with spool_in(tmp_path) as spool:
        spool.store(batch_of([said("a", 2, closed=True), score("a", 0), score("a", 1)]))
        finish(tmp_path, spool)
        late = spool.store(batch_of([score("a", 0), score("a", 1, Reason.TIMEOUT), score("a", 5)]))
        assert (dict(late.rows), late.duplicates) == ({}, 3)
        spool.store(batch_of([said("a", 9)]))
    status = FolderResults(tmp_path).job("a")
    assert status is not None
    assert (status.state, status.rows, status.scored, status.failed) == ("complete", 2, 2, {})


def test_topics_made_anew_are_read_from_their_beginning(tmp_path):
    ids = {TOPICS.scores: "one", TOPICS.jobs: "two"}
    with spool_in(tmp_path) as spool:
        assert spool.see_topics(ids) == []
        spool.store(batch_of([score("a", 0)], partition=1))
        spool.store(Batch(next_offsets={(TOPICS.jobs, 0): 4}))
        assert spool.see_topics(ids) == []
        assert spool.see_topics(ids | {TOPICS.scores: "three"}) == [TOPICS.scores]
        assert spool.offsets() == {(TOPICS.jobs, 0): 4}


def test_a_job_of_a_topic_made_anew_replaces_a_complete_one_and_continues_another(tmp_path):
    kept = FolderResults(tmp_path)
    with spool_in(tmp_path) as spool:
        spool.see_topics({TOPICS.scores: "one"})
        spool.store(batch_of([said("done", 1, closed=True), score("done", 0), score("half", 0)]))
        finish(tmp_path, spool)
        spool.see_topics({TOPICS.scores: "two"})
        status = kept.job("done")
        assert status is not None
        assert (status.state, status.done) == ("complete", 1), "until it comes again"
        spool.store(batch_of([said("done", 2, closed=True), score("done", 1, Reason.TIMEOUT)]))
        status = kept.job("done")
        assert status is not None
        assert (status.state, status.rows, status.scored, status.lag) == ("closed", 2, 0, 1)
        spool.store(batch_of([score("done", 0), said("half", 2, closed=True), score("half", 1)]))
        finish(tmp_path, spool)
        assert spool.store(batch_of([score("half", 1)])).duplicates == 1
    assert [job.state for job in kept.jobs()] == ["complete", "complete"]
    assert (tmp_path / "done" / "scored.csv").read_text().count("\n") == 3
    assert (tmp_path / "half" / "scored.csv").read_text().count("\n") == 3


def test_another_programs_lock_is_a_fault_that_may_pass(tmp_path, monkeypatch):
    monkeypatch.setattr("shared.results.spool.BUSY_SECONDS", 0.05)
    with spool_in(tmp_path) as spool:
        other = sqlite3.connect(spool_path(tmp_path), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreFault, match=r"PAIRSCORE_RESULTS.*locked"):
            spool.store(batch_of([score("a", 0)]))
        other.execute("ROLLBACK")
        other.close()
        assert sum(spool.store(batch_of([score("a", 0)])).rows.values()) == 1


@pytest.mark.parametrize("rest", [b"no database at all, but long enough to be taken for one" * 99])
def test_a_damaged_spool_is_one_line_that_says_what_to_do(tmp_path, rest):
    spool_path(tmp_path).parent.mkdir()
    spool_path(tmp_path).write_bytes(rest)
    with pytest.raises(EnvironmentFault, match=r"PAIRSCORE_RESULTS.*damaged.*move it away"):
        spool_in(tmp_path).__enter__()
    with pytest.raises(EnvironmentFault, match=r"PAIRSCORE_RESULTS.*cannot be read"):
        FolderResults(tmp_path).jobs()


def test_a_spool_of_another_version_is_left_alone(tmp_path):
    with spool_in(tmp_path):
        pass
    found = sqlite3.connect(spool_path(tmp_path))
    found.execute("PRAGMA user_version = 99")
    found.close()
    for use in (lambda: spool_in(tmp_path).__enter__(), FolderResults(tmp_path).jobs):
        with pytest.raises(EnvironmentFault, match="version 99"):
            use()


def test_a_folder_that_no_sink_has_seen_has_no_jobs(tmp_path):
    kept = FolderResults(tmp_path / "none")
    assert (kept.jobs(), kept.job("a"), kept.page("a").outcomes) == ([], None, [])
    assert (kept.rejected(), kept.duplicates()) == (0, 0)


def test_a_spool_at_rest_can_be_read_by_who_may_not_write(tmp_path):
    with spool_in(tmp_path) as spool:
        spool.store(batch_of([score("a", 0)]))
    assert {path.name for path in spool_path(tmp_path).parent.iterdir()} == {"scores.sqlite"}
    folder = spool_path(tmp_path).parent
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert len(FolderResults(tmp_path).jobs()) == 1
    finally:
        folder.chmod(stat.S_IRWXU)


EDGE_TIMES = st.sampled_from(
    ["9999-12-31T23:59:59-10:00", "0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00.000001Z"]
)
EDGE_NUMBERS = st.one_of(st.integers(0, 9), st.sampled_from([1 << 62, 1 << 63, 10**30]))
EDGE_SIMILARITIES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0, -0.0, 10**300])
)


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(
        st.tuples(st.text(), st.text(), st.lists(st.text(), max_size=4), st.none() | st.text()),
        max_size=6,
    ),
    similarity=EDGE_SIMILARITIES,
    attempts=EDGE_NUMBERS,
    time=EDGE_TIMES,
    header=st.lists(st.text(), max_size=3),
    form=st.none()
    | st.fixed_dictionaries(
        {
            "delimiter": st.characters(exclude_categories=["Cs"]),
            "terminator": st.sampled_from(["\n", "\r"]),
            "output_name": st.text(min_size=1),
            "dropped": st.lists(EDGE_NUMBERS, max_size=3),
            "details": st.booleans(),
            "header_raw": st.none() | st.text(),
        }
    ),
)
def test_nothing_that_is_a_message_stops_the_sink(
    tmp_path_factory, texts, similarity, attempts, time, header, form
):
    results = tmp_path_factory.mktemp("edge")
    outcomes = [
        {
            "job": "edge",
            "row": row,
            "url": url,
            "caption": caption,
            "columns": columns,
            **({"error": "internal", "error_detail": raw} if row % 2 else {}),
            **({} if row % 2 else {"similarity": similarity, "cosine": 0.5}),
            "raw": raw,
            "model": url,
            "attempts": attempts,
            "scored_at": time,
            "v": 1,
        }
        for row, (url, caption, columns, raw) in enumerate(texts)
    ]
    told = {
        "v": 1,
        "job": "edge",
        "source": "s",
        "header": header,
        "csv": form,
        "rows": len(texts),
        "rows_published": len(texts),
        "state": "closed",
        "created_at": time,
    }
    beyond = {**told, "job": "beyond", "rows": 10**30, "rows_published": 10**30}
    intake = Intake(TOPICS)
    intake.add(
        [
            *(Taken(TOPICS.scores, 0, at, _json(each)) for at, each in enumerate(outcomes)),
            *(Taken(TOPICS.jobs, 0, at, _json(each)) for at, each in enumerate([told, beyond])),
        ]
    )
    with spool_in(results) as spool:
        spool.store(intake.batch)
        finish(results, spool)
    kept = FolderResults(results)
    assert len(kept.jobs()) + kept.rejected() >= 1
    status = kept.job("edge")
    if not intake.batch.rejected:
        assert status is not None
        assert (status.state, status.done) == ("complete", len(texts))


def _json(message: dict[str, object]) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode()


def test_jobs_that_are_not_complete_are_given_by_their_deadlines(tmp_path):
    zone = timezone(timedelta(hours=9))
    deadlines = {
        "later": datetime(2026, 1, 2, 9, tzinfo=UTC),
        "soon": datetime(2026, 1, 2, 16, tzinfo=zone),  # 07:00 UTC
        "over": datetime(2025, 12, 31, tzinfo=UTC),
    }
    jobs = [
        said(name, 5, closed=name == "soon").model_copy(update={"deadline": deadlines.get(name)})
        for name in ("later", "over", "soon", "without")
    ]
    done = said("done", 1, closed=True).model_copy(update={"deadline": deadlines["later"]})
    with spool_in(tmp_path) as spool:
        spool.store(batch_of([*jobs, done, score("soon", 0), score("soon", 3), score("done", 0)]))
        spool.complete(spool.due_jobs(9)[0].id, "done/done.csv")
        after = datetime(2026, 1, 1, tzinfo=UTC)
        assert spool.soonest(100, after) == [
            Due("soon", 3, deadlines["soon"]),
            Due("later", 5, deadlines["later"]),
        ]
        assert spool.soonest(1, after) == [Due("soon", 3, deadlines["soon"])]
