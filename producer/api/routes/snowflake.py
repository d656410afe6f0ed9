"""`/v1/snowflake`: pairs as Snowflake's external functions send them.

https://docs.snowflake.com/en/sql-reference/external-functions-data-format
"""

import asyncio
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from producer.api.access import OF_ALL, Served, Who
from producer.api.aside import LETS_BY
from producer.api.batch import Batch, Sender
from producer.api.batches import Scored
from producer.api.engines import (
    FAILED,
    SCORED,
    EngineOutcome,
    Text,
    batches_of,
    fields,
    parse,
    texts,
    unpack,
)
from producer.api.openapi import body_of
from producer.api.problems import Kind, documented
from producer.api.service import Service

MOST_SECONDS: Final = 20.0
"""That a request waits before it is answered with 202: API gateways allow less than 30."""

_ENGINE: Final = "snowflake"

router = APIRouter(tags=["SQL engines"])


class SnowflakeRequest(BaseModel):
    """A batch of calls of the function `(url VARCHAR, caption VARCHAR) RETURNS VARIANT`."""

    model_config = ConfigDict(
        strict=True,
        extra="ignore",
        frozen=True,
        json_schema_extra={
            "example": {"data": [[0, "https://images.example/1.jpg", "a cat"], [1, None, "a dog"]]}
        },
    )

    data: list[Annotated[tuple[int, Text, Text], LETS_BY]] = Field(
        description="(row number, url, caption), the last two may be null"
    )


class SnowflakeRows(BaseModel):
    """One outcome for each row, in order, with the row's number."""

    model_config = ConfigDict(
        frozen=True, json_schema_extra={"example": {"data": [[0, SCORED], [1, FAILED]]}}
    )

    data: list[tuple[int, EngineOutcome]]


BatchId = Annotated[
    str,
    Header(
        alias="sf-external-function-query-batch-id",
        min_length=1,
        max_length=1_000,
        description="sent again with the same rows: the same batch",
        examples=["01b2c3d4-0000-1111-0000-000000000001:0:1:2"],
    ),
]
Format = Annotated[
    str,
    Header(
        alias="sf-external-function-format",
        pattern="^json$",
        description="`json` is all that is taken",
    ),
]
Version = Annotated[
    str,
    Header(
        alias="sf-external-function-format-version",
        pattern=r"^1(\.[0-9]{1,9})?$",
        description="`1.0`, or another 1",
    ),
]
Timeout = Annotated[
    float,
    Header(
        alias="sf-custom-timeout",
        ge=0,
        allow_inf_nan=False,
        description="seconds to wait before a 202; from `HEADERS = ('timeout' = '10')`",
    ),
]

_DOCUMENTED: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "description": "Not all rows are scored yet; ask with GET and the same batch id",
        "content": {"application/json": {"schema": {"type": "object"}, "example": {}}},
    }
}


@router.post(
    "/v1/snowflake",
    response_model=SnowflakeRows,
    responses=documented(
        *OF_ALL,
        Kind.IN_DOUBT,
        Kind.MALFORMED,
        Kind.TOO_SLOW,
        Kind.TOO_LARGE,
        Kind.MEDIA_TYPE,
        Kind.INVALID,
    )
    | _DOCUMENTED,
    openapi_extra=body_of(SnowflakeRequest),
)
async def post_snowflake(
    service: Served,
    client: Who,
    request: Request,
    response: Response,
    batch_id: BatchId,
    form: Format = "json",  # noqa: ARG001 - checked by its pattern
    version: Version = "1.0",  # noqa: ARG001 - so is this
    seconds: Timeout = MOST_SECONDS,
) -> Response:
    """Score a batch of calls of a Snowflake external function.

    A failure of a pair is an outcome. Sent again with its batch id, a batch goes on and is not
    scored anew.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    limit = service.settings.api.json_bytes
    body = await asyncio.to_thread(unpack, await request.body(), encoding, limit)
    numbers, pairs = await service.aside.run(len(body), lambda: _read(service, body))
    if not pairs:
        return JSONResponse({"data": []})
    plain = numbers == tuple(range(len(numbers)))
    sender, others = Sender(_ENGINE, batch_id, client), None if plain else numbers
    batch = await service.aside.run(len(body), lambda: Batch.of(sender, pairs, numbers=others))
    found = await batches_of(request).send(batch, min(seconds, MOST_SECONDS), response)
    return _answer(found, dict(response.headers))


@router.get(
    "/v1/snowflake",
    response_model=SnowflakeRows,
    responses=documented(*OF_ALL, Kind.IN_DOUBT, Kind.NOT_FOUND, Kind.CONFLICT, Kind.INVALID)
    | _DOCUMENTED,
)
async def get_snowflake(
    client: Who, request: Request, batch_id: BatchId, seconds: Timeout = MOST_SECONDS
) -> Response:
    """Ask for a batch that was answered with 202. Waits as `POST` does; costs nothing."""
    sender = Sender(_ENGINE, batch_id, client)
    found = await batches_of(request).poll(sender, min(seconds, MOST_SECONDS))
    return _answer(found, {})


def _read(service: Service, body: bytes) -> tuple[tuple[int, ...], tuple[tuple[str, str], ...]]:
    """The numbers and the pairs of a batch's rows."""
    data = parse(
        SnowflakeRequest, body, rows="data", row="row", cells=("row number", "url", "caption")
    ).data
    cells = [(url, caption) for _, url, caption in data]
    pairs = texts(service, cells, row="row", limited_by="MAX_BATCH_ROWS")
    return tuple(number for number, _, _ in data), pairs


def _answer(found: Scored | None, headers: dict[str, str]) -> Response:
    if found is None:
        return JSONResponse({}, HTTPStatus.ACCEPTED, headers)
    numbers = range(len(found.outcomes)) if found.numbers is None else found.numbers
    rows = [[number, fields(each)] for number, each in zip(numbers, found.outcomes, strict=True)]
    return JSONResponse({"data": rows}, headers=headers)
