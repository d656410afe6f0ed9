"""`/v1/scores`: outcomes while the client waits."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from producer.api.access import OF_ALL, Served, Who, charge, charged, name_of, refuse_unknown
from producer.api.errors import invalid_json
from producer.api.openapi import JSON, body_of
from producer.api.problems import Kind, ProblemError, documented
from producer.api.schemas import (
    PendingOut,
    ScoresRequest,
    ScoresResponse,
    links_of,
    outcome_fields,
)
from producer.api.server import media_type
from producer.api.uploads import check_size

router = APIRouter(tags=["in line"], dependencies=[Depends(refuse_unknown)])


@router.post(
    "/v1/scores",
    response_model=ScoresResponse,
    response_model_exclude_none=True,
    responses=documented(
        *OF_ALL,
        Kind.IN_DOUBT,
        Kind.TOO_LARGE,
        Kind.TOO_SLOW,
        Kind.MALFORMED,
        Kind.MEDIA_TYPE,
        Kind.INVALID,
    ),
    openapi_extra=body_of(ScoresRequest),
)
async def scores(service: Served, request: Request, client: Who, response: Response) -> Response:
    """Score up to 1,000 pairs and wait for them.

    One outcome for each pair, in order. Those that are not ready in time are `pending`: they
    are scored all the same, once, and can be asked for later.
    """
    await charge(service, client, response, requests=1, rows=0)
    if media_type(request.headers.get("content-type", "")) != JSON:
        raise ProblemError(Kind.MEDIA_TYPE, f"send {JSON}", headers={"Connection": "close"})
    raw = await request.body()
    limit = service.settings.kafka.max_message_bytes
    body = await service.aside.run(len(raw), lambda: _read(raw, limit))
    pairs = [(pair.url, pair.caption) for pair in body.pairs]
    async with charged(service, client, response, requests=0, rows=len(pairs)):
        awaited = await service.score(pairs, name_of(client), body.timeout)
    outcomes = [
        {"status": "pending"} if outcome is None else outcome_fields(outcome)
        for outcome in awaited.outcomes
    ]
    content: dict[str, Any] = {"outcomes": outcomes}
    if awaited.left:
        content["pending"] = PendingOut(
            count=awaited.left,
            job=awaited.job,
            start=awaited.first,
            href=_rows(awaited.job, awaited.first, len(pairs)),
        ).model_dump()
    return JSONResponse(content, headers=dict(response.headers))


def _read(raw: bytes, limit: int) -> ScoresRequest:
    """A request whose pairs each fit into a message of `limit` bytes."""
    try:
        body = ScoresRequest.model_validate_json(raw)
    except ValidationError as error:
        raise invalid_json(error) from None
    for row, pair in enumerate(body.pairs):
        check_size(pair.url, pair.caption, row, limit)
    return body


def _rows(job: str, first: int, count: int) -> str:
    """Where the outcomes of so many rows of a job are."""
    return f"{links_of(job).scores}?start={first}&end={first + count}&limit={count}"
