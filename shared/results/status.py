"""How far a job is: rows in = scored + failed by reason + those still missing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from pairscore.pair import Reason

State: TypeAlias = Literal["open", "closed", "complete"]
"""`open` while rows are being published, `closed` when their number is known, `complete` when each
of them is stored and the result can be had."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What the store knows of a job.

    `source` is empty and `rows_published` 0 where outcomes came before what `jobs` says of the job.
    `rows` is how many there are, once that is known. `failed` has the reasons that occur, `models`
    how many outcomes are of which fingerprint. `result` says where the result is, once it can be
    had. `created_at` is when the job was begun, `updated_at` when anything of it was stored last.
    """

    job: str
    source: str
    state: State
    rows_published: int
    rows: int | None
    scored: int
    failed: Mapping[Reason, int]
    models: Mapping[str, int]
    result: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def done(self) -> int:
        """Rows whose outcome is stored."""
        return self.scored + sum(self.failed.values())

    @property
    def lag(self) -> int:
        """Rows that are published and have no outcome here yet."""
        return max(0, self.rows_published - self.done)

    @property
    def rows_per_second(self) -> float | None:
        """Mean rate from the job's beginning to what was stored last; None where it has none."""
        return self.rate_until(self.updated_at)

    def rate_until(self, now: datetime) -> float | None:
        """The same to `now`: that of a job whose last rows do not come gets lower."""
        seconds = (now - self.created_at).total_seconds()
        return self.done / seconds if self.done and seconds > 0 else None


def make_status(
    counts: Iterable[tuple[str, str, int]],
    *,
    job: str,
    source: str,
    state: State,
    rows_published: int,
    rows: int | None,
    result: str | None,
    created_at: datetime,
    updated_at: datetime,
) -> JobStatus:
    """A status from `counts`: (reason or empty, fingerprint, rows), each as often as you like."""
    scored = 0
    failed: dict[Reason, int] = {}
    models: dict[str, int] = {}
    for error, model, count in counts:
        models[model] = models.get(model, 0) + count
        if error:
            failed[Reason(error)] = failed.get(Reason(error), 0) + count
        else:
            scored += count
    return JobStatus(
        job=job,
        source=source,
        state=state,
        rows_published=rows_published,
        rows=rows,
        scored=scored,
        failed=failed,
        models=models,
        result=result,
        created_at=created_at,
        updated_at=updated_at,
    )
