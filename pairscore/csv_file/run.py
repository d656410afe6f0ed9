"""Scoring a prepared input: every row written in order, through crashes, exactly once."""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from pairscore.csv_file.ordered import OrderedRows, ScorePairs
from pairscore.csv_file.output import Output, PartialWriter
from pairscore.csv_file.plan import Plan
from pairscore.csv_file.resume import recover
from pairscore.csv_file.source import Source, open_source
from pairscore.csv_file.survey import check_input
from pairscore.errors import InputError
from pairscore.pair import Outcome, Reason, Score

Progress: TypeAlias = Callable[[int, Outcome], None]
"""Told after each row how many rows the output has (those of an interrupted run included)."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What has been written: rows = scored + the sum of `failed`, which has the reasons that occur.

    The counts are of the whole output; `resumed_rows` of them were there from an interrupted run.
    `seconds` is how long this run took, loading the model not included. The digests are hex, of the
    files as they are (gzip as gzip).
    """

    rows: int
    scored: int
    failed: Mapping[Reason, int]
    resumed_rows: int
    seconds: float
    output: Path
    input_sha256: str
    output_sha256: str

    @property
    def rows_per_second(self) -> float:
        """Rows that this run added per second of it."""
        return (self.rows - self.resumed_rows) / self.seconds if self.seconds > 0 else 0.0


@dataclass(slots=True)
class _Tally:
    """Counts of the rows that are in the output."""

    rows: int = 0
    scored: int = 0
    failed: dict[Reason, int] = field(default_factory=dict)

    def add(self, reason: Reason | None) -> None:
        self.rows += 1
        if reason is None:
            self.scored += 1
        else:
            self.failed[reason] = self.failed.get(reason, 0) + 1


def run(
    plan: Plan,
    score: ScorePairs,
    *,
    fingerprint: str,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Summary:
    """Score every row of a plan's input and write its output.

    Whatever ends this early (Ctrl-C too) leaves the output as it was, and beside it all finished
    rows in `OUTPUT.partial`, from which a plan with `resume` continues to the same bytes.

    Args:
        plan: from `prepare`.
        score: called with the pairs of the rows that have the right number of cells, and once
            more whenever 10,000 malformed rows have come to wait for those before them; gives one
            outcome per pair, in order.
        fingerprint: of what `score` scores with; a run is continued only with the same.
        progress: called after each row, in order, in this thread.
        clock: monotonic seconds.

    Raises:
        InputError: the input or output has changed since the plan was made, another run is at this
            output, or the interrupted run was begun with something else.
        EnvironmentFault: the output cannot be written.
    """
    started = clock()
    place = Output(plan.output)
    tally = _Tally()
    with place.locked():
        _begin(plan, place, fingerprint)
        with open_source(plan.input) as source:
            resumed_rows = _write(plan, place, source, score, tally, progress, clock)
            if source.sha256 != plan.input_sha256 or tally.rows != plan.rows:
                raise InputError(
                    f"{plan.input}: the file changed while it was being scored; the output is not "
                    "complete, start again with --overwrite"
                )
        output_sha256 = place.finish()
    return Summary(
        rows=tally.rows,
        scored=tally.scored,
        failed=tally.failed,
        resumed_rows=resumed_rows,
        seconds=clock() - started,
        output=plan.output,
        input_sha256=plan.input_sha256,
        output_sha256=output_sha256,
    )


def _begin(plan: Plan, place: Output, fingerprint: str) -> None:
    """Make sure that all is as planned, and start a partial unless one is to be continued."""
    if check_input(plan.input) != plan.input_stamp:
        raise InputError(f"{plan.input}: the file has changed since it was checked; try again")
    begun = place.check_leftovers(resume=plan.resume, overwrite=plan.overwrite)
    if begun != plan.begun:
        raise InputError(f"{place.partial}: another run has changed it; try again")
    sidecar = plan.sidecar(fingerprint)
    if begun is None:
        place.begin(sidecar)
    else:
        begun.check_same(sidecar, place.partial)


def _write(
    plan: Plan,
    place: Output,
    source: Source,
    score: ScorePairs,
    tally: _Tally,
    progress: Progress | None,
    clock: Callable[[], float],
) -> int:
    """Bring the partial from where it is to the last row; return how many rows it had before."""
    layout = plan.layout
    rows = source.records(plan.dialect.delimiter)
    head = ("\ufeff" if plan.dialect.bom else "") + layout.header(next(rows))
    size, rows = recover(place.partial, head, layout, rows, tally.add)
    resumed_rows = tally.rows
    ordered = OrderedRows(
        rows,
        width=layout.width,
        url=plan.url.index,
        caption=plan.caption.index,
        score=score,
    )
    with (
        PartialWriter(place.partial, size, clock) as writer,
        closing(ordered.outcomes()) as outcomes,
    ):
        if not size:
            writer.write(head)
        for record, outcome in outcomes:
            writer.write(layout.row(record, outcome))
            tally.add(None if isinstance(outcome, Score) else outcome.reason)
            if progress is not None:
                progress(tally.rows, outcome)
    return resumed_rows
