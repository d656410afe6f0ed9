"""The messages on the topics, defined once: versioned JSON, one pydantic model each.

Unknown fields are ignored, so that a newer producer may add some; a message of another version, or
one that is no message, is a `Rejection`, which is data: it goes to the dead-letter topic. JSON
Schema and the AsyncAPI document in docs/ are written from these models.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from pairscore.pair import Failure, Outcome, Reason, Score

VERSION: Final = 1
API: Final = "api"
"""The source of a job that came over HTTP."""

MAX_KEY_CHARS: Final = 8192
MAX_ROWS: Final = 1 << 62
MAX_FILE_NAME_BYTES: Final = 240
"""What file systems take, less what the name of a temporary file next to it adds."""

_JOB: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"


def check_job(name: str) -> str:
    """Return the name if a job may have it: it is a folder's name in the sink and a key in Kafka.

    Raises:
        ValueError: it may not.
    """
    if re.fullmatch(_JOB, name) is None:
        raise ValueError(
            f"{name!r} cannot be a job's name: letters, digits, '.', '_' and '-', at most 128, the "
            "first a letter or digit"
        )
    return name


def key_of(url: str) -> bytes:
    """The key of a row's messages: its URL, or a digest of one too long to be asked for anyway."""
    if len(url) > MAX_KEY_CHARS:
        return b"sha256:" + hashlib.sha256(url.encode()).hexdigest().encode()
    return url.encode()


def _file_name(value: str) -> str:
    if PurePath(value).name != value or value in {"", ".", ".."} or "\0" in value:
        raise ValueError("must be the name of a file, without a folder")
    if len(value.encode()) > MAX_FILE_NAME_BYTES:
        raise ValueError(f"must be at most {MAX_FILE_NAME_BYTES} bytes long")
    return value


Job: TypeAlias = Annotated[str, StringConstraints(pattern=rf"^{_JOB}$")]
Row: TypeAlias = Annotated[int, Field(ge=0, lt=MAX_ROWS)]
Rows: TypeAlias = Annotated[int, Field(ge=0, le=MAX_ROWS)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    v: Literal[1] = Field(default=VERSION, description="version of the message")

    def encode(self) -> bytes:
        """The message's value in Kafka: JSON in UTF-8."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True)


class ReplyTo(BaseModel):
    """Where to say at once what came of a row, for somebody who waits for it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    partition: int = Field(ge=0, description="of the topic `replies`")
    key: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = Field(
        description="the key of the reply: which process waits"
    )


class PairMessage(_Message):
    """A row to score, on `pairs`, `pairs.interactive` and the retry tiers."""

    job: Job = Field(description="the job this row belongs to")
    row: Row = Field(description="0-based index of the row in its job")
    url: str = Field(description="image URL, as the user gave it")
    caption: str = Field(description="caption, as the user gave it")
    columns: tuple[str, ...] = Field(
        default=(), description="the row's original cells, in order; empty where there were none"
    )
    raw: str | None = Field(
        default=None,
        description="the row's exact text, where writing its cells plainly would give another",
    )
    width: int | None = Field(
        default=None, ge=1, description="how many cells a row of this job should have"
    )
    attempt: int = Field(default=1, ge=1, description="which attempt to score it this is")
    created_at: AwareDatetime = Field(description="when the row was published first")
    deferred_since: AwareDatetime | None = Field(
        default=None, description="since when its host has been too slow for it to be asked for"
    )
    reply_to: ReplyTo | None = Field(
        default=None, description="who waits for its outcome; gets a copy of it on `replies`"
    )


class ScoreMessage(_Message):
    """A row's outcome, on `scores`: a similarity and a cosine, or an error, never both."""

    # What `_one_outcome` checks, as JSON Schema has it.
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "required": ["similarity", "cosine"],
                    "properties": {
                        "similarity": {"type": "number"},
                        "cosine": {"type": "number"},
                        "error": {"type": "null"},
                    },
                },
                {
                    "required": ["error"],
                    "properties": {"error": {"type": "string"}, "similarity": {"type": "null"}},
                },
            ]
        }
    )

    job: Job = Field(description="the job this row belongs to")
    row: Row = Field(description="0-based index of the row in its job")
    url: str = Field(description="image URL, as the user gave it")
    caption: str = Field(description="caption, as the user gave it")
    columns: tuple[str, ...] = Field(default=(), description="the row's original cells, in order")
    raw: str | None = Field(
        default=None,
        description="the row's exact text, where writing its cells plainly would give another",
    )
    similarity: float | None = Field(
        default=None, allow_inf_nan=False, description="CLIP's logits_per_image"
    )
    cosine: float | None = Field(
        default=None, allow_inf_nan=False, description="of the two embeddings, in [-1, 1]"
    )
    error: Reason | None = Field(default=None, description="why there is no similarity")
    error_detail: str | None = Field(default=None, description="one line for people")
    caption_truncated: bool = Field(
        default=False, description="the model did not see all of the caption"
    )
    image_sha256: str | None = Field(default=None, description="hex digest of the image's bytes")
    model: str = Field(description="fingerprint of what the similarity depends on")
    attempts: int = Field(ge=0, description="how often the URL was asked for, in all")
    scored_at: AwareDatetime = Field(description="when the outcome was known")

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        if (self.similarity is None) == (self.error is None):
            raise ValueError("exactly one of similarity and error must be there")
        if self.similarity is not None and self.cosine is None:
            raise ValueError("a similarity comes with its cosine")
        return self

    @staticmethod
    def of(
        pair: PairMessage, outcome: Outcome, *, model: str, scored_at: datetime
    ) -> "ScoreMessage":
        """The message that says what came of a row."""
        fields: dict[str, Any] = {
            "v": VERSION,
            "job": pair.job,
            "row": pair.row,
            "url": pair.url,
            "caption": pair.caption,
            "columns": pair.columns,
            "raw": pair.raw,
            "image_sha256": outcome.image_sha256,
            "model": model,
            "attempts": outcome.attempts + pair.attempt - 1,
            "scored_at": scored_at,
        }
        if isinstance(outcome, Score):
            fields["similarity"] = outcome.similarity
            fields["cosine"] = outcome.cosine
            fields["caption_truncated"] = outcome.caption_truncated
        else:
            fields["error"] = outcome.reason
            fields["error_detail"] = outcome.detail or None
        # Made of values that have been checked: checking them again would cost more than the rest.
        return ScoreMessage.model_construct(**fields)

    @property
    def outcome(self) -> Outcome:
        """The outcome as the package has it."""
        if self.error is not None:
            return Failure(
                self.error,
                self.error_detail or "",
                attempts=self.attempts,
                image_sha256=self.image_sha256,
            )
        return Score(
            similarity=self.similarity or 0.0,
            cosine=self.cosine or 0.0,
            caption_truncated=self.caption_truncated,
            image_sha256=self.image_sha256 or "",
            attempts=self.attempts,
        )


class JobState(StrEnum):
    """`open` while rows are being published, `closed` when their number is known."""

    OPEN = "open"
    CLOSED = "closed"


class CsvFormat(BaseModel):
    """How a job's CSV file was written, so that its result can be written alike."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    delimiter: Annotated[str, StringConstraints(pattern=r'^[^"\r\n\x00]$')] = Field(
        default=",", description="between cells"
    )
    terminator: Literal["\n", "\r\n", "\r"] = Field(default="\n", description="after a row")
    bom: bool = Field(default=False, description="whether it begins with a byte order mark")
    header_raw: str | None = Field(
        default=None,
        description="the header's exact text, where writing its cells plainly would give another",
    )
    dropped: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(), description="0-based indices of columns that the result leaves out"
    )
    details: bool = Field(default=False, description="also write cosine and such")
    output_name: Annotated[str, AfterValidator(_file_name)] = Field(
        description="name of the result's file"
    )


class JobMessage(_Message):
    """What is known of a job, on `jobs`; the latest of a job's messages counts."""

    # What `_rows_when_closed` checks, as far as JSON Schema can say it.
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"properties": {"state": {"const": "open"}, "rows": {"type": "null"}}},
                {
                    "required": ["rows"],
                    "properties": {"state": {"const": "closed"}, "rows": {"type": "integer"}},
                },
            ]
        }
    )

    job: Job = Field(description="the job's name")
    source: str = Field(description="where the rows come from: a file's name, or `api`")
    source_sha256: str | None = Field(default=None, description="hex digest of the source file")
    header: tuple[str, ...] = Field(default=(), description="names of the columns, in order")
    csv: CsvFormat | None = Field(default=None, description="how the source file was written")
    rows_published: Rows = Field(description="rows 0 to this (not included) are on `pairs`")
    rows: Rows | None = Field(
        default=None, description="how many there are, `rows_published` then; once closed"
    )
    state: JobState = Field(description="whether more rows may come")
    created_at: AwareDatetime = Field(description="when its first message was published")
    client: str | None = Field(default=None, description="whose job it is, where the API knows")
    deadline: AwareDatetime | None = Field(
        default=None, description="when all of it is wanted: what scaling goes by"
    )

    @property
    def is_of_the_api(self) -> bool:
        """Whether its outcomes are asked for by row."""
        return self.source == API

    @model_validator(mode="after")
    def _rows_when_closed(self) -> Self:
        if (self.state is JobState.CLOSED) != (self.rows is not None):
            raise ValueError("rows is there when the job is closed, and only then")
        if self.rows is not None and self.rows != self.rows_published:
            raise ValueError("a closed job has as many rows as were published")
        return self


class CancellationMessage(_Message):
    """That a job is cancelled, on `cancellations`: what is not scored yet never will be."""

    job: Job = Field(description="the job's name")
    cancelled_at: AwareDatetime = Field(description="when it was cancelled")


class Defect(StrEnum):
    """Why a record is not a message that can be worked on."""

    UNDECODABLE = "undecodable"
    UNKNOWN_VERSION = "unknown_version"
    INVALID = "invalid"
    OVERSIZED = "oversized"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that is no message of ours; `detail` is one line."""

    defect: Defect
    detail: str


AnyMessage = TypeVar("AnyMessage", bound=_Message)


def decode(
    kind: type[AnyMessage], value: bytes | None, *, max_bytes: int | None = None
) -> AnyMessage | Rejection:
    """Read the value of a record; never raises.

    Strict, as the JSON Schema is: "5" is not 5.
    """
    if value is None:
        return Rejection(Defect.UNDECODABLE, "the record has no value")
    if max_bytes is not None and len(value) > max_bytes:
        return Rejection(Defect.OVERSIZED, f"{len(value):,} bytes, over the limit of {max_bytes:,}")
    try:
        return kind.model_validate_json(value, strict=True)
    except ValidationError as error:
        return _reject(error)


def _reject(error: ValidationError) -> Rejection:
    first, *rest = error.errors(include_url=False, include_input=True)
    if first["type"] == "json_invalid":
        return Rejection(Defect.UNDECODABLE, first["msg"])
    for item in (first, *rest):
        if item["loc"] == ("v",):
            return Rejection(
                Defect.UNKNOWN_VERSION, f"version {item['input']!r:.40}, known is {VERSION}"
            )
    where = ".".join(str(part) for part in first["loc"])
    return Rejection(Defect.INVALID, f"{where}: {first['msg']}" if where else first["msg"])
