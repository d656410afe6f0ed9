"""What the API takes and gives, as it is documented."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema, JsonValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import (
    no_info_after_validator_function,
    plain_serializer_function_ser_schema,
)

from pairscore.pair import Reason
from shared.messages import ScoreMessage
from shared.results import JobStatus

MOST_PAIRS: Final = 1_000
"""Of one in-line request."""

MOST_SECONDS: Final = 60.0
"""That an in-line request may wait."""

_STRICT: Final = ConfigDict(strict=True, extra="forbid", frozen=True)
_MODEL: Final = "openai/clip-vit-base-patch32:onnx-fp32:61c0939970845ef0"
_PAIRS: Final[list[JsonValue]] = [
    {"url": "https://images.example/cats/7.jpg", "caption": "two cats asleep on a sofa"},
    {"url": "https://images.example/gone.jpg", "caption": "a red bus"},
]
_SCORED: Final[dict[str, JsonValue]] = {
    "status": "scored",
    "similarity": 27.104,
    "cosine": 0.27104,
    "caption_truncated": False,
    "image_sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "model": _MODEL,
    "attempts": 1,
}
_FAILED: Final[dict[str, JsonValue]] = {
    "status": "failed",
    "error": "http_error",
    "error_detail": "404",
    "model": _MODEL,
    "attempts": 1,
}
_JOB: Final = "api-20260131T123000-0f5a0e6c7b12"
_INLINE: Final = "inline-api-1-20260131T120000-9c1d2e3f"
_HREF: Final = f"/v1/jobs/{_JOB}"
_ROWS: Final[list[JsonValue]] = [
    {"row": row, **pair, **outcome, "scored_at": "2026-01-31T12:30:05.120000+00:00"}
    for row, (pair, outcome) in enumerate(zip(_PAIRS, (_SCORED, _FAILED), strict=True))
    if isinstance(pair, dict)
]
_STATUS: Final[dict[str, JsonValue]] = {
    "job": _JOB,
    "state": "closed",
    "rows": 1000,
    "published": 1000,
    "scored": 412,
    "failed": {"http_error": 8},
    "rows_per_second": 210.0,
    "seconds_left": 2.8,
    "created_at": "2026-01-31T12:30:00Z",
    "links": {"self": _HREF, "scores": f"{_HREF}/scores", "events": f"{_HREF}/events"},
}
_PENDING: Final[dict[str, JsonValue]] = {
    "count": 1,
    "job": _INLINE,
    "start": 40,
    "href": f"/v1/jobs/{_INLINE}/scores?start=40&end=42&limit=2",
}
_CONFIG: Final = ConfigDict(frozen=True)


def _like(example: JsonValue) -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": example})


class PairIn(BaseModel):
    """An image and a caption."""

    model_config = _STRICT

    url: str = Field(description="image URL", examples=["https://images.example/cats/7.jpg"])
    caption: str = Field(description="caption", examples=["two cats asleep on a sofa"])


class ScoresRequest(BaseModel):
    """Pairs to score while the client waits."""

    model_config = _STRICT | _like({"pairs": _PAIRS, "timeout": 10})

    pairs: list[PairIn] = Field(min_length=1, max_length=MOST_PAIRS, description="to score")
    timeout: float = Field(
        default=10.0, ge=0, le=MOST_SECONDS, description="seconds to wait for all of them"
    )


def _texts(pair: PairIn) -> tuple[str, str]:
    return pair.url, pair.caption


def _fields(texts: tuple[str, str]) -> dict[str, str]:
    url, caption = texts
    return {"url": url, "caption": caption}


def _as_texts(_: object, schema_of: Callable[[type[PairIn]], CoreSchema]) -> CoreSchema:
    return no_info_after_validator_function(
        _texts,
        schema_of(PairIn),
        serialization=plain_serializer_function_ser_schema(_fields),
    )


# Of any number of them: the garbage collector looks at models again and again, at pairs of texts
# once. That Python is called for each lets others have the interpreter, as `LETS_BY` does.
_Texts: TypeAlias = Annotated[tuple[str, str], GetPydanticSchema(_as_texts)]


class JobRequest(BaseModel):
    """Pairs to score later."""

    model_config = _STRICT | _like({"pairs": _PAIRS})

    pairs: list[_Texts] = Field(min_length=1, description="to score")


class OutcomeOut(BaseModel):
    """What came of a pair: a similarity, or an error, or neither yet."""

    model_config = ConfigDict(frozen=True, protected_namespaces=()) | _like(_SCORED)

    status: Literal["scored", "failed", "pending"]
    similarity: float | None = Field(default=None, description="CLIP's logits_per_image")
    cosine: float | None = Field(default=None, description="of the two embeddings, in [-1, 1]")
    caption_truncated: bool | None = Field(
        default=None, description="the model did not see all of the caption"
    )
    error: Reason | None = Field(default=None, description="why there is no similarity")
    error_detail: str | None = Field(default=None, description="one line for people")
    image_sha256: str | None = Field(default=None, description="hex digest of the image's bytes")
    model: str | None = Field(default=None, description="fingerprint of what it depends on")
    attempts: int | None = Field(default=None, description="how often the URL was asked for")


class RowOut(OutcomeOut):
    """An outcome of a job."""

    model_config = _like(_ROWS[0])

    row: int = Field(description="0-based index in the job")
    url: str
    caption: str
    scored_at: datetime


class PendingOut(BaseModel):
    """Where outcomes can be asked for that were not ready in time."""

    model_config = _CONFIG | _like(_PENDING)

    count: int = Field(description="how many are pending")
    job: str = Field(description="the job that they are rows of")
    start: int = Field(description="the job's row that is the first pair of the request")
    href: str = Field(description="to ask for the rows of the request")


class ScoresResponse(BaseModel):
    """One outcome for each pair, in order."""

    model_config = _CONFIG | _like(
        {"outcomes": [_SCORED, {"status": "pending"}], "pending": _PENDING}
    )

    outcomes: list[OutcomeOut]
    pending: PendingOut | None = Field(
        default=None, description="only where some were not ready in time"
    )


class Links(BaseModel):
    """Where to go on."""

    model_config = _CONFIG

    self: str
    scores: str
    events: str


class JobOut(BaseModel):
    """How far a job is: rows = scored + failed + those still missing."""

    model_config = _CONFIG | _like(_STATUS)

    job: str
    state: Literal["open", "closed", "complete"] = Field(
        description="`open` while rows are being published, `closed` when their number is known, "
        "`complete` when each has its outcome"
    )
    rows: int | None = Field(default=None, description="how many there are, once that is known")
    published: int = Field(description="rows that Kafka has")
    scored: int
    failed: dict[Reason, int] = Field(description="rows by reason, those that occur")
    rows_per_second: float | None = Field(
        default=None, description="mean so far, once there are outcomes"
    )
    seconds_left: float | None = Field(
        default=None, description="at that rate, once `rows` is known"
    )
    created_at: datetime
    links: Links


class JobsOut(BaseModel):
    """Jobs, the latest first."""

    model_config = _CONFIG | _like({"jobs": [_STATUS]})

    jobs: list[JobOut]


class PageOut(BaseModel):
    """Some outcomes of a job, by row; rows without an outcome are left out."""

    model_config = _CONFIG | _like(
        {
            "job": _JOB,
            "complete": False,
            "outcomes": _ROWS,
            "next": f"{_HREF}/scores?start=2&limit=2",
        }
    )

    job: str
    complete: bool = Field(description="whether every row of the job has its outcome")
    outcomes: list[RowOut]
    next: str | None = Field(
        default=None,
        description="the next page, where there is one, however few rows this one has",
    )


def links_of(job: str) -> Links:
    """The job's resources."""
    base = f"/v1/jobs/{job}"
    return Links(self=base, scores=f"{base}/scores", events=f"{base}/events")


def outcome_fields(message: ScoreMessage) -> dict[str, Any]:
    """The fields of an `OutcomeOut`, those that say something."""
    if message.error is not None:
        found: dict[str, Any] = {"status": "failed", "error": message.error.value}
        if message.error_detail:
            found["error_detail"] = message.error_detail
    else:
        found = {
            "status": "scored",
            "similarity": message.similarity,
            "cosine": message.cosine,
            "caption_truncated": message.caption_truncated,
        }
    if message.image_sha256:
        found["image_sha256"] = message.image_sha256
    return found | {"model": message.model, "attempts": message.attempts}


def row_fields(message: ScoreMessage) -> dict[str, Any]:
    """The fields of a `RowOut`."""
    return {
        "row": message.row,
        "url": message.url,
        "caption": message.caption,
        **outcome_fields(message),
        "scored_at": message.scored_at.isoformat(),
    }


def job_out(status: JobStatus) -> JobOut:
    """What the store says of a job."""
    now = status.updated_at if status.state == "complete" else datetime.now(UTC)
    rate = status.rate_until(max(now, status.updated_at))
    left = None
    if rate and status.rows is not None:
        left = max(0.0, (status.rows - status.done) / rate)
    return JobOut(
        job=status.job,
        state=status.state,
        rows=status.rows,
        published=status.rows_published,
        scored=status.scored,
        failed=dict(status.failed),
        rows_per_second=None if rate is None else round(rate, 3),
        seconds_left=None if left is None else round(left, 1),
        created_at=status.created_at,
        links=links_of(status.job),
    )
