"""What the API answers, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeAlias

from pairscore.pair import Failure, Outcome, Reason, Score

Fields: TypeAlias = Mapping[str, Any]
"""A JSON object."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A pair that has no outcome yet: which row of which job it is."""

    job: str
    row: int


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """What came of a row; `model` is the fingerprint of what its similarity depends on."""

    row: int
    url: str
    caption: str
    outcome: Outcome
    model: str
    scored_at: datetime


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How far a job is: rows = scored + failed + those still missing.

    `state` is `open` while rows are being published, `closed` when their number is known, and
    `complete` when each has its outcome; a newer API may have others. `rows` is None until it is
    known, `seconds_left` where nobody can tell.
    """

    name: str
    state: str
    rows: int | None
    published: int
    scored: int
    failed: Mapping[Reason, int]
    rows_per_second: float | None
    seconds_left: float | None
    created_at: datetime

    @property
    def complete(self) -> bool:
        """Whether every row has its outcome."""
        return self.state == "complete"

    @property
    def done(self) -> int:
        """How many rows have theirs."""
        return self.scored + sum(self.failed.values())


def read_outcome(fields: Fields) -> Outcome | None:
    """An outcome from its fields; None if it is pending.

    Raises:
        KeyError, TypeError, ValueError: it is none that this version knows.
    """
    status = fields["status"]
    if status == "pending":
        return None
    if status == "failed":
        return Failure(
            reason=Reason(fields["error"]),
            detail=str(fields.get("error_detail") or ""),
            attempts=int(fields.get("attempts") or 0),
            image_sha256=fields.get("image_sha256"),
        )
    if status != "scored":
        raise ValueError(f"status {status!r}")
    return Score(
        similarity=float(fields["similarity"]),
        cosine=float(fields["cosine"]),
        caption_truncated=bool(fields.get("caption_truncated")),
        image_sha256=str(fields.get("image_sha256") or ""),
        attempts=int(fields.get("attempts") or 0),
    )


def read_row(fields: Fields) -> RowOutcome:
    """A row's outcome from its fields; raises as `read_outcome`."""
    outcome = read_outcome(fields)
    if outcome is None:
        raise ValueError("a row of a job is pending")
    return RowOutcome(
        row=int(fields["row"]),
        url=str(fields["url"]),
        caption=str(fields["caption"]),
        outcome=outcome,
        model=str(fields.get("model") or ""),
        scored_at=datetime.fromisoformat(fields["scored_at"]),
    )


def read_status(fields: Fields) -> JobStatus:
    """A job's status from its fields; raises as `read_outcome`."""
    failed = {Reason(reason): int(rows) for reason, rows in fields["failed"].items()}
    rows = fields.get("rows")
    return JobStatus(
        name=str(fields["job"]),
        state=str(fields["state"]),
        rows=None if rows is None else int(rows),
        published=int(fields["published"]),
        scored=int(fields["scored"]),
        failed=MappingProxyType(failed),
        rows_per_second=fields.get("rows_per_second"),
        seconds_left=fields.get("seconds_left"),
        created_at=datetime.fromisoformat(fields["created_at"]),
    )
