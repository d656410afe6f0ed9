"""What SQL engines send and get, where the protocols of all of them are alike."""

import zlib
from collections.abc import Sequence
from typing import Any, Final, TypeAlias, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from pairscore.pair import Reason
from producer.api.batches import Batches
from producer.api.errors import invalid_json
from producer.api.problems import Kind, ProblemError
from producer.api.service import Service
from producer.api.uploads import check_size
from shared.messages import ScoreMessage

MOST_ROWS: Final = 10_000
"""Of one batch."""

Text: TypeAlias = str | None
"""A cell: SQL's NULL is None."""

M = TypeVar("M", bound=BaseModel)

_ZLIB_OR_GZIP: Final = 47  # as zlib's manual has it for inflateInit2: told by the header


class EngineOutcome(BaseModel):
    """What came of a row, as one JSON value: a similarity and a cosine, or an error."""

    model_config = ConfigDict(frozen=True)

    similarity: float | None = Field(description="CLIP's logits_per_image")
    cosine: float | None = Field(description="of the two embeddings, in [-1, 1]")
    error: Reason | None = Field(description="why there is no similarity")
    error_detail: str | None = Field(description="one line for people")


SCORED: Final[dict[str, JsonValue]] = {
    "similarity": 27.1,
    "cosine": 0.271,
    "error": None,
    "error_detail": None,
}
FAILED: Final[dict[str, JsonValue]] = {
    "similarity": None,
    "cosine": None,
    "error": "http_error",
    "error_detail": "404",
}


def batches_of(request: Request) -> Batches:
    """The batches of the application."""
    batches: Batches = request.app.state.batches
    return batches


def parse(model: type[M], body: bytes, *, rows: str, row: str, cells: Sequence[str]) -> M:
    """Read a body of JSON.

    Args:
        model: what it should be.
        body: as it was sent.
        rows: the field that has the rows.
        row: what the engine calls one of them.
        cells: what a row consists of.

    Raises:
        ProblemError: it is something else; says which row is the first that is.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _refused(error, rows, row, cells) from None


def _refused(error: ValidationError, rows: str, row: str, cells: Sequence[str]) -> ProblemError:
    first = error.errors(include_url=False, include_input=False)[0]
    match first["loc"]:
        case (field, int(number), int(cell), *_) if field == rows:
            said = f"{row} {number}: {cells[cell]}: {first['msg']}"
        case (field, int(number), *_) if field == rows:
            said = f"{row} {number}: {first['msg']}; it consists of {', '.join(cells)}"
        case _:
            return invalid_json(error)
    return ProblemError(Kind.INVALID, said, row=number)


def texts(
    service: Service, cells: Sequence[tuple[Text, Text]], *, row: str, limited_by: str
) -> tuple[tuple[str, str], ...]:
    """The pairs of a batch's (url, caption); a NULL counts as an empty text, as in Spark.

    Raises:
        ProblemError: there are too many, or one does not fit into a message.
    """
    if len(cells) > MOST_ROWS:
        raise ProblemError(
            Kind.TOO_LARGE,
            f"a batch has {MOST_ROWS:,} rows at most, and this one has {len(cells):,}; set "
            f"{limited_by}",
        )
    pairs = tuple((url or "", caption or "") for url, caption in cells)
    limit = service.settings.kafka.max_message_bytes
    for number, (url, caption) in enumerate(pairs):
        try:
            check_size(url, caption, number, limit)
        except ProblemError as error:
            said = str(error.detail).replace("row ", f"{row} ", 1)
            raise ProblemError(error.kind, said, row=number) from None
    return pairs


def fields(outcome: ScoreMessage) -> dict[str, Any]:
    """The fields of an `EngineOutcome`."""
    return {
        "similarity": outcome.similarity,
        "cosine": outcome.cosine,
        "error": None if outcome.error is None else outcome.error.value,
        "error_detail": outcome.error_detail,
    }


def unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """A body as it was before it was compressed.

    Args:
        body: as it was sent.
        encoding: its `Content-Encoding`, empty where there is none.
        limit: bytes that it may have.

    Raises:
        ProblemError: it is longer, damaged, or compressed in another way.
    """
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "deflate"}:
        raise ProblemError(Kind.MEDIA_TYPE, "compress with gzip or deflate, or not at all")
    unpacking = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        found = unpacking.decompress(body, limit + 1)
    except zlib.error as error:
        raise ProblemError(Kind.MALFORMED, f"the {encoding} data is damaged ({error})") from None
    if len(found) > limit:
        raise ProblemError(Kind.TOO_LARGE, f"the body is longer than {limit:,} bytes, unpacked")
    if not unpacking.eof or unpacking.unused_data:
        raise ProblemError(Kind.MALFORMED, f"the {encoding} data is cut short, or goes on after it")
    return found
