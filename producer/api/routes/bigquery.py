"""`/v1/bigquery`: pairs as BigQuery's remote functions send them.

https://cloud.google.com/bigquery/docs/remote-functions
"""

import math
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from pairscore.errors import EnvironmentFault
from producer.api.access import OF_ALL, Served, Who
from producer.api.aside import LETS_BY
from producer.api.batch import Batch, Sender
from producer.api.engines import (
    FAILED,
    SCORED,
    EngineOutcome,
    Text,
    batches_of,
    fields,
    parse,
    texts,
)
from producer.api.errors import id_of
from producer.api.openapi import body_of
from producer.api.problems import RETRY_AFTER, Kind, ProblemError, unavailable
from producer.api.service import Service

MOST_SECONDS: Final = 55.0
"""That a request waits, at most: gateways often allow a minute."""

_TIMEOUT: Final = "timeout"


class BigQueryRequest(BaseModel):
    """A batch of calls of the function `(url STRING, caption STRING) RETURNS JSON`."""

    model_config = ConfigDict(
        strict=True,
        extra="ignore",
        frozen=True,
        json_schema_extra={
            "example": {
                "requestId": "124ab1c",
                "caller": "//bigquery.googleapis.com/projects/p/jobs/p:US.bquxjob_5b4c112c_17961",
                "sessionUser": "ada@example.com",
                "userDefinedContext": {"timeout": "30"},
                "calls": [["https://images.example/1.jpg", "a cat"], [None, "a dog"]],
            }
        },
    )

    requestId: str = Field(  # noqa: N815
        min_length=1, description="sent again with the same calls: the same batch"
    )
    caller: str = Field(default="", description="the query's job")
    sessionUser: str = Field(default="", description="who runs it")  # noqa: N815
    userDefinedContext: dict[str, str] = Field(  # noqa: N815
        default_factory=dict,
        description=f"`timeout`: seconds to wait, {MOST_SECONDS:.0f} at most, which is the default",
    )
    calls: list[Annotated[tuple[Text, Text], LETS_BY]] = Field(
        description="(url, caption), either may be null"
    )


class BigQueryReplies(BaseModel):
    """One reply for each call, in order."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"example": {"replies": [SCORED]}})

    replies: list[EngineOutcome]


class BigQueryError(BaseModel):
    """What BigQuery tells who runs the query."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={"example": {"errorMessage": "call 17: url: Input should be a string"}},
    )

    errorMessage: str = Field(description="what is wrong")  # noqa: N815


class _Told(APIRoute):
    """Says what is wrong as BigQuery wants to hear it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, around which errors are turned into answers."""
        handle = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await handle(request)
            except HTTPException as error:
                # BigQuery has no other word for a request that is wrong.
                invalid = error.status_code == Kind.INVALID.status
                status = Kind.MALFORMED.status if invalid else error.status_code
                return _error(status, str(error.detail), dict(error.headers or {}))
            except EnvironmentFault as fault:
                kind, said = unavailable(fault, id_of(request))
                return _error(kind.status, said, RETRY_AFTER)

        return told


def _error(status: int, message: str, headers: dict[str, str]) -> JSONResponse:
    return JSONResponse({"errorMessage": message}, status, headers)


def _documented(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    return {kind.status: {"model": BigQueryError, "description": kind.title} for kind in kinds}


router = APIRouter(tags=["SQL engines"], route_class=_Told)


@router.post(
    "/v1/bigquery",
    response_model=BigQueryReplies,
    responses=_documented(*OF_ALL, Kind.IN_DOUBT, Kind.MALFORMED, Kind.TOO_SLOW, Kind.TOO_LARGE)
    | {
        HTTPStatus.OK.value: {
            "content": {"application/json": {"example": {"replies": [SCORED, FAILED]}}}
        }
    },
    openapi_extra=body_of(BigQueryRequest),
)
async def bigquery(service: Served, client: Who, request: Request, response: Response) -> Response:
    """Score a batch of calls of a BigQuery remote function.

    A failure of a pair is a reply. 503 says that the batch is not ready yet: sent again with its
    `requestId`, as BigQuery does, it goes on and is not scored anew.
    """
    raw = await request.body()
    body, pairs = await service.aside.run(len(raw), lambda: _read(service, raw))
    seconds = _seconds(body.userDefinedContext.get(_TIMEOUT))
    if not pairs:
        return JSONResponse({"replies": []})
    sender = Sender("bigquery", body.requestId, client)
    batch = await service.aside.run(len(raw), lambda: Batch.of(sender, pairs, told=body.caller))
    found = await batches_of(request).send(batch, seconds, response)
    if found is None:
        raise ProblemError(
            Kind.UNAVAILABLE,
            f"not all of {len(pairs):,} pairs are scored yet; sent again, the request goes on",
            headers=RETRY_AFTER | dict(response.headers),
        )
    replies = [fields(each) for each in found.outcomes]
    return JSONResponse({"replies": replies}, headers=dict(response.headers))


def _read(service: Service, raw: bytes) -> tuple[BigQueryRequest, tuple[tuple[str, str], ...]]:
    body = parse(BigQueryRequest, raw, rows="calls", row="call", cells=("url", "caption"))
    return body, texts(service, body.calls, row="call", limited_by="max_batching_rows")


def _seconds(said: str | None) -> float:
    if said is None:
        return MOST_SECONDS
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ProblemError(
            Kind.INVALID, f"userDefinedContext: {_TIMEOUT}: {said!r} is no number of seconds"
        )
    return min(seconds, MOST_SECONDS)
