"""Outcomes as rows of the staging table. Nothing that can be read as a message is refused.

PostgreSQL cannot hold all that they may say: its text has no U+0000, and its numbers have an end.
Such a message is stored as near to what it says as columns can be, and whole, as bytes, in
`original`.
"""

from datetime import UTC, datetime
from typing import Final, LiteralString, TypeAlias

from shared.messages import JobMessage, ScoreMessage
from sink.intake import Scored

Row: TypeAlias = tuple[object, ...]

COLUMNS: Final[LiteralString] = (
    "job, row, url, caption, columns, raw, similarity, cosine, error, error_detail, "
    "caption_truncated, image_sha256, model, attempts, scored_at, original"
)
TYPES: Final = (
    *("text", "int8", "text", "text", "text[]", "text", "float8", "float8", "text", "text"),
    *("bool", "text", "text", "int4", "timestamptz", "bytea"),
)
STAGING: Final[LiteralString] = (
    "CREATE TEMPORARY TABLE pairscore_staging (LIKE pairscore.scores) ON COMMIT DELETE ROWS"
)
COPY: Final[LiteralString] = (
    f"COPY pg_temp.pairscore_staging ({COLUMNS}) FROM STDIN (FORMAT binary)"
)

_NUL: Final = "\0"
_INSTEAD: Final = "\ufffd"
_NUL_IN_JSON: Final = b"\\u0000"
_LONGEST_MODEL: Final = 500
"""Characters; a longer one would not go into an index."""

_MOST_ATTEMPTS: Final = 2**31 - 1
_YEARS: Final = range(2, 9999)  # what is a year in every time zone


def as_row(scored: Scored) -> Row:
    """The outcome as a row, in the order of `COLUMNS`, each of its type in `TYPES`."""
    message, value = scored.message, scored.value
    original = None
    if _NUL_IN_JSON in value or not _fits(message):
        fitting = _fitted(message)
        if fitting != message:
            message, original = fitting, value
    error = message.error
    return (
        message.job,
        message.row,
        message.url,
        message.caption,
        [*message.columns],
        message.raw,
        message.similarity,
        message.cosine,
        None if error is None else error.value,
        message.error_detail,
        message.caption_truncated,
        message.image_sha256,
        message.model,
        message.attempts,
        message.scored_at,
        original,
    )


def job_row(message: JobMessage) -> Row:
    """What `jobs` says of a job: its columns but for when it was stored."""
    return (
        message.job,
        plain(message.source),
        _maybe(message.source_sha256),
        [plain(name) for name in message.header],
        None if message.csv is None else message.csv.model_dump_json(),
        message.rows_published,
        message.rows,
        _in_years(message.created_at),
        None if message.deadline is None else _in_years(message.deadline),
    )


def plain(text: str) -> str:
    """The text with U+FFFD for each U+0000."""
    return text.replace(_NUL, _INSTEAD)


def _fits(message: ScoreMessage) -> bool:
    return (
        len(message.model) <= _LONGEST_MODEL
        and message.attempts <= _MOST_ATTEMPTS
        and message.scored_at.year in _YEARS
    )


def _fitted(message: ScoreMessage) -> ScoreMessage:
    return message.model_copy(
        update={
            "url": plain(message.url),
            "caption": plain(message.caption),
            "columns": tuple(plain(cell) for cell in message.columns),
            "raw": _maybe(message.raw),
            "error_detail": _maybe(message.error_detail),
            "image_sha256": _maybe(message.image_sha256),
            "model": plain(message.model[:_LONGEST_MODEL]),
            "attempts": min(message.attempts, _MOST_ATTEMPTS),
            "scored_at": _in_years(message.scored_at),
        }
    )


def _maybe(text: str | None) -> str | None:
    return None if text is None else plain(text)


def _in_years(moment: datetime) -> datetime:
    if moment.year in _YEARS:
        return moment
    return datetime(min(max(moment.year, _YEARS[0]), _YEARS[-1]), 1, 1, tzinfo=UTC)
