"""`/v1/jobs`: any number of pairs, and what has come of them."""

from datetime import datetime
from email.message import Message
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import AfterValidator, AwareDatetime

from producer.api.access import OF_ALL, Served, Who, charge, refuse_unknown
from producer.api.client import Client
from producer.api.jobs import unstored
from producer.api.lots import is_inline
from producer.api.openapi import (
    BODIES,
    CSV,
    CSV_EXAMPLE,
    EVENT,
    EVENTS_EXAMPLE,
    JSON,
    NDJSON,
    NDJSON_EXAMPLE,
)
from producer.api.posting import Posting
from producer.api.problems import Kind, ProblemError, documented
from producer.api.schemas import JobOut, JobsOut, PageOut, job_out, links_of, row_fields
from producer.api.server import STREAMED, media_type
from producer.api.service import Service
from producer.api.streams import PAGE_ROWS, Part, csv, events, ndjson, read_part
from producer.api.uploads import CsvOptions
from shared.messages import MAX_ROWS, JobMessage

_MOST_PAGE_ROWS: Final = 10_000
_KEY: Final = r"^[\x21-\x7e]{1,255}$"
_DELIMITER: Final = r'^[^"\r\n\x00]$'

router = APIRouter(tags=["jobs"], dependencies=[Depends(refuse_unknown)])

JobName = Annotated[
    str,
    Path(
        description="a job's name",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        examples=["api-20260131T123000-0f5a0e6c7b12"],
    ),
]


def _in_years(moment: datetime) -> datetime:
    if not 2000 <= moment.year < 9000:
        raise ValueError("it must be between the years 2000 and 9000")
    return moment


@router.post(
    "/v1/jobs",
    status_code=202,
    response_model=JobOut,
    responses=documented(
        *OF_ALL,
        Kind.IN_DOUBT,
        Kind.MALFORMED,
        Kind.CONFLICT,
        Kind.TOO_LARGE,
        Kind.TOO_SLOW,
        Kind.MEDIA_TYPE,
        Kind.INVALID,
    ),
    openapi_extra={"requestBody": BODIES},
)
async def post_job(
    service: Served,
    request: Request,
    response: Response,
    client: Who,
    idempotency_key: Annotated[
        str | None,
        Header(pattern=_KEY, description="sent again with the same body: the same job"),
    ] = None,
    url_column: Annotated[str | None, Query(min_length=1, description="CSV: else guessed")] = None,
    caption_column: Annotated[
        str | None, Query(min_length=1, description="CSV: else guessed")
    ] = None,
    delimiter: Annotated[
        str | None, Query(pattern=_DELIMITER, description="CSV: one character; else sniffed")
    ] = None,
    overwrite: Annotated[
        bool, Query(description="CSV: new columns take the place of those of their name")
    ] = False,
    deadline: Annotated[
        Annotated[AwareDatetime, AfterValidator(_in_years)] | None,
        Query(
            description="when all of it is wanted, such as 2026-01-31T06:00:00Z: what a fleet that "
            "is scaled by deadlines goes by"
        ),
    ] = None,
) -> Response:
    """Score any number of pairs later.

    The answer comes when Kafka has every row: a 202 is a promise. A request that is refused has
    published nothing; one that was broken off is best sent again with its `Idempotency-Key`.
    """
    service.check_kafka()
    await charge(service, client, response, requests=1, rows=0)
    upload = Posting(service, client, request, response, idempotency_key, deadline)
    kind = media_type(request.headers.get("content-type", ""))
    _check_charset(request)
    if kind == JSON:
        job = await upload.json(await request.body())
    elif kind == CSV:
        options = CsvOptions(url_column, caption_column, delimiter, overwrite=overwrite)
        job = await upload.csv(request.stream(), options)
    elif kind in STREAMED:
        job = await upload.pairs(request.stream())
    else:
        raise ProblemError(
            Kind.MEDIA_TYPE,
            f"send {JSON}, {NDJSON} or {CSV}",
            headers={"Accept-Post": f"{JSON}, {NDJSON}, {CSV}", "Connection": "close"},
        )
    # Not from the store, which may be away: what Kafka has is promised.
    status = job_out(unstored(job))
    headers = {**response.headers, "Location": status.links.self}
    return JSONResponse(status.model_dump(mode="json", exclude_none=True), 202, headers)


@router.get(
    "/v1/jobs", response_model_exclude_none=True, responses=documented(*OF_ALL, Kind.INVALID)
)
async def get_jobs(
    service: Served,
    client: Who,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> JobsOut:
    """The jobs of this client, the last begun first."""
    await charge(service, client, response, requests=1, rows=0)
    found = await service.read(service.jobs.latest, client, limit)
    return JobsOut(jobs=[job_out(status) for status in found])


@router.get(
    "/v1/jobs/{job}",
    response_model_exclude_none=True,
    responses=documented(*OF_ALL, Kind.NOT_FOUND, Kind.INVALID),
)
async def get_job(service: Served, job: JobName, client: Who, response: Response) -> JobOut:
    """How far a job is."""
    await charge(service, client, response, requests=1, rows=0)
    message = _found(service, job, client)
    return job_out(await service.read(service.jobs.status, message))


@router.delete(
    "/v1/jobs/{job}",
    status_code=202,
    response_model_exclude_none=True,
    responses=documented(*OF_ALL, Kind.NOT_FOUND, Kind.CONFLICT, Kind.INVALID),
)
async def delete_job(service: Served, job: JobName, client: Who, response: Response) -> JobOut:
    """Cancel what is not scored yet: it comes out as `cancelled`, and nothing undoes that."""
    await charge(service, client, response, requests=1, rows=0)
    message = _found(service, job, client)
    if is_inline(job):
        raise ProblemError(
            Kind.CONFLICT, f"job {job} is of in-line requests, which are not cancelled"
        )
    status = await service.read(service.jobs.status, message)
    if status.state != "complete":
        await service.cancel(job)
    return job_out(status)


@router.get(
    "/v1/jobs/{job}/scores",
    response_model=PageOut,
    response_model_exclude_none=True,
    responses=documented(*OF_ALL, Kind.NOT_FOUND, Kind.CONFLICT, Kind.INVALID)
    | {
        200: {
            "content": {
                NDJSON: {"schema": {"type": "string"}, "example": NDJSON_EXAMPLE},
                CSV: {"schema": {"type": "string"}, "example": CSV_EXAMPLE},
            }
        }
    },
)
async def get_scores(
    service: Served,
    request: Request,
    response: Response,
    job: JobName,
    client: Who,
    start: Annotated[int, Query(ge=0, le=1 << 62, description="the first row")] = 0,
    end: Annotated[
        int | None, Query(ge=1, le=1 << 62, description="the row before which to end")
    ] = None,
    limit: Annotated[
        int | None,
        Query(
            ge=1,
            description="most rows; a page of JSON has 1,000, 10,000 at most, and fewer where they "
            "are long; else all",
        ),
    ] = None,
    format: Annotated[  # noqa: A002
        Literal["json", "ndjson", "csv"] | None, Query(description="else as `Accept` says")
    ] = None,
) -> Response:
    """The outcomes of a job so far, by row.

    JSON comes in pages, of which one without `next` is the last; NDJSON and CSV as one stream.
    """
    await charge(service, client, response, requests=1, rows=0)
    message = _found(service, job, client)
    wanted = format or _accepted(request)
    status = await service.read(service.jobs.status, message)
    complete = status.state == "complete"
    if wanted == "json":
        asked = Part(start, end).page(min(limit or PAGE_ROWS, _MOST_PAGE_ROWS))
        page = await service.read(read_part, service, job, asked)
        found = page.outcomes
        content: dict[str, Any] = {
            "job": job,
            "complete": complete,
            "outcomes": [row_fields(each) for each in found],
        }
        last = min(end or MAX_ROWS, status.rows if complete and status.rows else MAX_ROWS)
        if page.more and found[-1].row + 1 < last:
            until = "" if end is None else f"&end={end}"
            next_ = f"?start={found[-1].row + 1}{until}&limit={limit or PAGE_ROWS}"
            content["next"] = links_of(job).scores + next_
        return JSONResponse(content, headers=dict(response.headers))
    # Asked for once now, so that what cannot be read is said with a status.
    part = Part(start, end, limit)
    await service.read(read_part, service, job, part.page(1))
    headers = {**response.headers, "X-Job-State": status.state}
    if wanted == "ndjson":
        lines = ndjson(service, job, part)
        return StreamingResponse(lines, media_type=NDJSON, headers=headers)
    table = csv(service, message, part)
    return StreamingResponse(table, media_type=f"{CSV}; charset=utf-8", headers=headers)


@router.get(
    "/v1/jobs/{job}/events",
    response_class=StreamingResponse,
    responses=documented(*OF_ALL, Kind.NOT_FOUND, Kind.INVALID)
    | {200: {"content": {"text/event-stream": {"schema": EVENT, "example": EVENTS_EXAMPLE}}}},
)
async def get_events(service: Served, job: JobName, client: Who, response: Response) -> Response:
    """How far a job is, as server-sent events: `progress` as it goes on, then `complete`."""
    await charge(service, client, response, requests=1, rows=0)
    message = _found(service, job, client)
    await service.read(service.jobs.status, message)
    return StreamingResponse(
        events(service, job, client),
        media_type="text/event-stream",
        headers={**response.headers, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


def _check_charset(request: Request) -> None:
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    try:
        charset = message.get_content_charset()
    except ValueError:  # of RFC 2231's encoded parameters
        charset = "that, which cannot be read"
    if charset not in {None, "utf-8", "utf8", "us-ascii"}:
        raise ProblemError(
            Kind.MEDIA_TYPE,
            f"send the body as UTF-8, not as {charset[:40]}",
            headers={"Connection": "close"},
        )


def _found(service: Service, job: str, client: Client | None) -> JobMessage:
    found = service.jobs.message(job, client)
    if found is None:
        raise ProblemError(Kind.NOT_FOUND, f"there is no job {job} that this client may see")
    return found


def _accepted(request: Request) -> str:
    accepted = request.headers.get("accept", "")
    if NDJSON in accepted:
        return "ndjson"
    return "csv" if CSV in accepted else "json"
