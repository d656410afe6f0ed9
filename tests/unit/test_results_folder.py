"""Outcomes are read from a folder a page at a time, of so many rows and of so much text."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.messages import API, JobMessage, JobState, ScoreMessage
from shared.results import folder
from shared.results.folder import FolderResults
from shared.results.page import PAGE_BYTES
from sink.csv.finish import Finisher
from tests.spooling import batch_of, now, spool_in

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def score(row: int, size: int) -> ScoreMessage:
    return ScoreMessage(
        job="job",
        row=row,
        url=f"http://a/{row}",
        caption="c" * size,
        similarity=1.0,
        cosine=0.1,
        model="m",
        attempts=1,
        scored_at=BEGAN,
    )


def closed(rows: int) -> JobMessage:
    return JobMessage(
        job="job",
        source=API,
        rows_published=rows,
        rows=rows,
        state=JobState.CLOSED,
        created_at=BEGAN,
    )


def fill(results, scores: list[ScoreMessage], *, complete: bool) -> FolderResults:
    with spool_in(results) as spool:
        rows = len(scores) if complete else len(scores) + 1
        spool.store(batch_of([closed(rows), *scores]))
        finisher = Finisher(spool, results, now)
        while finisher.step().again < math.inf:
            pass
    kept = FolderResults(results)
    status = kept.job("job")
    assert status is not None
    assert status.state == ("complete" if complete else "closed")
    return kept


@pytest.mark.parametrize("complete", [False, True])
def test_a_page_of_long_rows_ends_early_and_says_that_there_are_more(tmp_path, complete):
    scores = [score(row, PAGE_BYTES // 3) for row in range(7)]
    scores.append(score(7, PAGE_BYTES + 1))
    kept = fill(tmp_path, scores, complete=complete)
    pages = [kept.page("job", 0), kept.page("job", 3), kept.page("job", 6), kept.page("job", 7)]
    assert [[each.row for each in page.outcomes] for page in pages] == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7],
        [7],
    ]
    assert all(page.more for page in pages)
    assert kept.page("job", 8).outcomes == []
    assert not kept.page("job", 8).more
    short = kept.page("job", 0, 2)
    assert (short.outcomes, short.more) == (scores[:2], True)


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.integers(0, 900), min_size=1, max_size=12),
    limit=st.integers(1, 13),
    complete=st.booleans(),
)
def test_page_by_page_it_is_all_of_them(tmp_path_factory, sizes, limit, complete):
    scores = [score(row, size) for row, size in enumerate(sizes)]
    kept = fill(tmp_path_factory.mktemp("folder"), scores, complete=complete)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(folder, "PAGE_BYTES", 2_000)
        found: list[ScoreMessage] = []
        page = kept.page("job", 0, limit)
        while page.more:
            assert 0 < len(page.outcomes) <= limit
            assert sum(len(each.encode()) for each in page.outcomes[:-1]) < 2_000
            found += page.outcomes
            page = kept.page("job", found[-1].row + 1, limit)
    assert found + page.outcomes == scores
