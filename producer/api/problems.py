"""Errors as RFC 9457 has them: `application/problem+json`, with the failing row where there is one.

https://www.rfc-editor.org/rfc/rfc9457
"""

import logging
from collections.abc import Mapping
from enum import Enum
from http import HTTPStatus
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from pairscore.errors import EnvironmentFault

RETRY_AFTER: Final = {"Retry-After": "5"}
"""What goes with a 503 or 504."""

MEDIA_TYPE: Final = "application/problem+json"
_TYPES: Final = "urn:pairscore:problem:"

NOT_NOW: Final = "rows cannot be taken now; nothing of the request was published"

IN_DOUBT: Final = (
    "Kafka does not answer, and it is not known whether it has taken the rows; with an "
    "Idempotency-Key it is safe to send them again, without one they may be scored twice then"
)

_log = logging.getLogger(__name__)


class Unavailable(EnvironmentFault):
    """Rows cannot be taken or read now; the text is for clients, unlike that of other faults."""


class InDoubt(Unavailable):
    """Rows may have been taken, or not; nobody can say now."""


class Problem(BaseModel):
    """What went wrong. Fields that say nothing are left out."""

    model_config = ConfigDict(frozen=True)

    type: Annotated[str, Field(description="which kind of problem; the same for ever")]
    title: Annotated[str, Field(description="the kind, in words")]
    status: Annotated[int, Field(description="the HTTP status code")]
    detail: Annotated[str, Field(description="what is wrong here, and what to do")]
    request_id: Annotated[str, Field(description="of this request, as in the server's log")]
    row: Annotated[int | None, Field(description="0-based index of the first bad row")] = None
    line: Annotated[int | None, Field(description="1-based line of the body it begins in")] = None


class Kind(Enum):
    """The kinds of problems: name, status, title."""

    MALFORMED = ("malformed-request", 400, "The request cannot be read")
    UNAUTHORIZED = ("unauthorized", 401, "A valid API key is needed")
    NOT_FOUND = ("not-found", 404, "There is nothing here")
    METHOD = ("method-not-allowed", 405, "This cannot be done here")
    TOO_SLOW = ("too-slow", 408, "The body came too slowly")
    CONFLICT = ("conflict", 409, "The job is in the way of that")
    TOO_LARGE = ("too-large", 413, "The request is too large")
    MEDIA_TYPE = ("unsupported-media-type", 415, "The body is of a type that is not taken")
    INVALID = ("invalid", 422, "The request says something that cannot be")
    TOO_MANY = ("too-many-requests", 429, "Too much was asked for now")
    DEFECT = ("internal", 500, "A defect of pairscore's")
    UNAVAILABLE = ("unavailable", 503, "Rows cannot be taken or read now")
    IN_DOUBT = ("in-doubt", 504, "It is not known whether the rows were taken")

    def __init__(self, slug: str, status: int, title: str) -> None:
        self.slug = slug
        self.status = status
        self.title = title

    @property
    def type(self) -> str:
        """The URI of the kind."""
        return f"{_TYPES}{self.slug}"


_BY_STATUS: Final = {kind.status: kind for kind in Kind}


class ProblemError(HTTPException):
    """Ends a request with a problem."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        row: int | None = None,
        line: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(kind.status, detail, headers=dict(headers or {}))
        self.kind = kind
        self.row = row
        self.line = line


def respond(
    kind: Kind,
    detail: str,
    request_id: str,
    *,
    row: int | None = None,
    line: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The response that says what is wrong."""
    problem = Problem(
        type=kind.type,
        title=kind.title,
        status=kind.status,
        detail=detail,
        request_id=request_id,
        row=row,
        line=line,
    )
    content = problem.model_dump(exclude_none=True)
    return JSONResponse(content, kind.status, dict(headers or {}), media_type=MEDIA_TYPE)


def unavailable(fault: EnvironmentFault, request_id: str) -> tuple[Kind, str]:
    """What to say of a fault; what is not for clients, such as addresses, goes to the log."""
    if isinstance(fault, Unavailable):
        return Kind.IN_DOUBT if isinstance(fault, InDoubt) else Kind.UNAVAILABLE, str(fault)
    _log.warning("%s", fault, extra={"request_id": request_id})
    said = "rows cannot be taken or read now; the server's log says why, under this request's id"
    return Kind.UNAVAILABLE, said


def kind_of(status: int) -> Kind:
    """The kind for a status that a library chose."""
    known = _BY_STATUS.get(status)
    if known is not None:
        return known
    return Kind.DEFECT if status >= HTTPStatus.INTERNAL_SERVER_ERROR else Kind.MALFORMED


def documented(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """The responses of these kinds, for OpenAPI, with an example of each."""
    found: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        example = {
            "type": kind.type,
            "title": kind.title,
            "status": kind.status,
            "detail": _EXAMPLES.get(kind, kind.title),
            "request_id": "6f1d2c9e0b7a4d53",
        }
        if kind is Kind.INVALID:
            example["row"] = 17
        found[kind.status] = {
            "description": kind.title,
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "example": example,
                }
            },
        }
    return found


def explain(error: ValidationError) -> str:
    """What pydantic found first, in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


_EXAMPLES: Final = {
    Kind.MALFORMED: "the body is no JSON: expected value at line 1 column 1",
    Kind.UNAUTHORIZED: "send a key as `Authorization: Bearer ps_...`",
    Kind.NOT_FOUND: "there is no job api-5c1f0e2d9b7a of yours",
    Kind.CONFLICT: "this Idempotency-Key was used with another body",
    Kind.TOO_LARGE: "the body is longer than 16,777,216 bytes; send NDJSON or CSV to /v1/jobs",
    Kind.MEDIA_TYPE: "send application/json, application/x-ndjson or text/csv",
    Kind.INVALID: "pairs.17.url: Input should be a valid string",
    Kind.TOO_MANY: "the quota of rows per second is used up; try again in 3 s",
    Kind.UNAVAILABLE: NOT_NOW,
    Kind.IN_DOUBT: IN_DOUBT,
}
