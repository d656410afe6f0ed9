"""Examples of every message, for the documents and for tests."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias

from pairscore.pair import Reason
from shared.messages import (
    CancellationMessage,
    CsvFormat,
    JobMessage,
    JobState,
    PairMessage,
    ScoreMessage,
)

AnyMessage: TypeAlias = PairMessage | ScoreMessage | JobMessage | CancellationMessage

_THEN: Final = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
_PAIR: Final = PairMessage(
    job="challenge_set-0f5a0e6c7b12",
    row=41,
    url="https://images.example/cats/7.jpg",
    caption="two cats asleep on a sofa",
    columns=("https://images.example/cats/7.jpg", "two cats asleep on a sofa"),
    width=2,
    created_at=_THEN,
)

EXAMPLES: Final[Mapping[str, tuple[AnyMessage, ...]]] = {
    "pair": (_PAIR, _PAIR.model_copy(update={"attempt": 2})),
    "score": (
        ScoreMessage(
            **_PAIR.model_dump(include={"job", "row", "url", "caption", "columns"}),
            similarity=28.31,
            cosine=0.2831,
            image_sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            model="clip-vit-base-patch32:onnx-fp32:3f9ac2510b7c4e08",
            attempts=1,
            scored_at=_THEN,
        ),
        ScoreMessage(
            **_PAIR.model_dump(include={"job", "row", "url", "caption", "columns"}),
            error=Reason.HTTP_ERROR,
            error_detail="404",
            model="clip-vit-base-patch32:onnx-fp32:3f9ac2510b7c4e08",
            attempts=1,
            scored_at=_THEN,
        ),
    ),
    "job": (
        JobMessage(
            job=_PAIR.job,
            source="challenge_set.csv",
            source_sha256="2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
            header=("url", "caption"),
            csv=CsvFormat(output_name="challenge_scored.csv"),
            rows_published=10_000,
            state=JobState.OPEN,
            created_at=_THEN,
        ),
        JobMessage(
            job="batch-17",
            source="api",
            rows_published=250,
            rows=250,
            state=JobState.CLOSED,
            created_at=_THEN,
        ),
    ),
    "cancellation": (
        CancellationMessage(job=_PAIR.job, cancelled_at=_THEN),
        CancellationMessage(job="batch-17", cancelled_at=_THEN),
    ),
}
"""Each kind of message by the name of its schema, with examples."""
