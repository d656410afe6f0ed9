"""The routes: HTTP in, HTTP out."""

import asyncio
import itertools
import json
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from pairscore import __version__
from pairscore.errors import EnvironmentFault, InputError
from producer.api import problems
from producer.api.client import Client
from producer.api.problems import Kind, Problem, ProblemError, documented
from producer.api.quotas import Verdict, limit_headers
from producer.api.schemas import (
    JobOut,
    JobRequest,
    JobsOut,
    OutcomeOut,
    PageOut,
    PendingOut,
    RowOut,
    ScoresRequest,
    ScoresResponse,
    job_out,
    links_of,
    outcome_fields,
    row_fields,
)
from producer.api.server import BodyLimits
from producer.api.service import RETRY_AFTER, Service, Taken, job_name, same_content
from producer.api.uploads import (
    CsvOptions,
    Spooled,
    check_csv,
    check_pairs,
    check_size,
    csv_job,
    explain,
    pair_job,
    spooled,
)
from producer.job import OwnJob
from shared.messages import JobMessage, JobState, ScoreMessage
from shared.results.rows import RowWriter

NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
JSON: Final = "application/json"

_SMALL_ROWS: Final = 10_000
_SMALL_BYTES: Final = 8_000_000
_PAGE_ROWS: Final = 1_000
_MOST_PAGE_ROWS: Final = 10_000
_LOOK_SECONDS: Final = 1.0
_KEY: Final = r"^[\x21-\x7e]{1,255}$"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

_log = logging.getLogger(__name__)
_access = logging.getLogger("producer.api.access")
_bearer = HTTPBearer(
    auto_error=False, description="an API key, as `python -m producer keys add` prints it"
)

JobName = Annotated[
    str,
    Path(
        description="a job's name",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        examples=["api-20260131T123000-0f5a0e6c7b12"],
    ),
]


def make_app(service: Service) -> FastAPI:
    """The application."""
    app = FastAPI(
        title="pairscore",
        version=__version__,
        summary="How well captions fit their images.",
        description="Every pair in comes out exactly once, with a similarity or an error.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,
    )
    app.state.service = service
    _handle_errors(app)
    _add_scores(app, service)
    _add_jobs(app, service)
    origins = service.settings.api.cors_origins
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
        )
    app.add_middleware(BodyLimits, options=service.settings.api)
    _name_requests(app)
    _document(app)
    return app


async def _who(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Client | None:
    """Whose key was sent; None where none is needed."""
    service: Service = request.app.state.service
    if service.find_client is None:
        return None
    found = None if credentials is None else service.find_client(credentials.credentials)
    if found is None:
        raise ProblemError(
            Kind.UNAUTHORIZED,
            "send a key as `Authorization: Bearer ps_...`"
            if credentials is None
            else "this key is unknown, expired or revoked",
            headers={"WWW-Authenticate": "Bearer", "Connection": "close"},
        )
    request.state.client = found
    return found


Who = Annotated[Client | None, Depends(_who)]


async def _charge(
    service: Service, client: Client | None, response: Response, *, requests: int, rows: int
) -> None:
    """Take from the client's quotas.

    Raises:
        ProblemError: there is not enough left.
    """
    if client is None:
        return
    verdict: Verdict = await service.quotas.take(client, requests, rows)
    headers = limit_headers(verdict)
    if verdict.allowed:
        response.headers.update(headers)
        return
    again = (
        "it is more than the quota ever allows at once"
        if verdict.retry_after is None
        else f"try again in {verdict.retry_after} s"
    )
    raise ProblemError(
        Kind.TOO_MANY, f"the quota of {verdict.which} is used up; {again}", headers=headers
    )


def _name_of(client: Client | None) -> str | None:
    return None if client is None else client.name


def _add_scores(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/scores",
        tags=["in line"],
        response_model=ScoresResponse,
        response_model_exclude_none=True,
        responses=documented(
            *_OF_ALL, Kind.TOO_LARGE, Kind.TOO_SLOW, Kind.MALFORMED, Kind.MEDIA_TYPE, Kind.INVALID
        ),
    )
    async def scores(body: ScoresRequest, client: Who, response: Response) -> Response:
        """Score up to 1,000 pairs and wait for them.

        One outcome for each pair, in order. Those that are not ready in time are `pending`: they
        are scored all the same, once, and can be asked for later.
        """
        limit = service.settings.kafka.max_message_bytes
        for row, pair in enumerate(body.pairs):
            check_size(pair.url, pair.caption, row, limit)
        await _charge(service, client, response, requests=1, rows=len(body.pairs))
        pairs = [(pair.url, pair.caption) for pair in body.pairs]
        try:
            awaited = await service.score(pairs, _name_of(client), body.timeout)
        except EnvironmentFault:
            if client is not None:
                await service.quotas.give_back(client, len(pairs))
            raise
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
                href=f"{links_of(awaited.job).scores}?start={awaited.first}&limit={len(pairs)}",
            ).model_dump()
        return JSONResponse(content, headers=dict(response.headers))


def _add_jobs(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/jobs",
        tags=["jobs"],
        status_code=202,
        response_model=JobOut,
        responses=documented(
            *_OF_ALL,
            Kind.MALFORMED,
            Kind.CONFLICT,
            Kind.TOO_LARGE,
            Kind.TOO_SLOW,
            Kind.MEDIA_TYPE,
            Kind.INVALID,
        ),
        openapi_extra={"requestBody": _BODIES},
    )
    async def post_job(
        request: Request,
        response: Response,
        client: Who,
        idempotency_key: Annotated[
            str | None,
            Header(pattern=_KEY, description="sent again with the same body: the same job"),
        ] = None,
        url_column: Annotated[str | None, Query(description="CSV: else guessed")] = None,
        caption_column: Annotated[str | None, Query(description="CSV: else guessed")] = None,
        delimiter: Annotated[str | None, Query(description="CSV: else sniffed")] = None,
        overwrite: Annotated[
            bool, Query(description="CSV: new columns take the place of those of their name")
        ] = False,
    ) -> Response:
        """Score any number of pairs later.

        The answer comes when Kafka has every row: a 202 is a promise. A request that is refused has
        published nothing; one that was broken off is best sent again with its `Idempotency-Key`.
        """
        service.check_kafka()
        await _charge(service, client, response, requests=1, rows=0)
        upload = _Upload(service, client, response, idempotency_key)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == JSON:
            job = await upload.json(await request.body())
        elif kind in {NDJSON, "application/jsonl", "application/ndjson"}:
            async with spooled(request.stream(), service.spool) as body:
                job = await upload.pairs(body)
        elif kind == CSV:
            options = CsvOptions(url_column, caption_column, delimiter, overwrite=overwrite)
            async with spooled(request.stream(), service.spool) as body:
                job = await upload.csv(body, options)
        else:
            raise ProblemError(
                Kind.MEDIA_TYPE,
                f"send {JSON}, {NDJSON} or {CSV}",
                headers={"Accept-Post": f"{JSON}, {NDJSON}, {CSV}", "Connection": "close"},
            )
        status = job_out(await asyncio.to_thread(service.jobs.status, job))
        headers = {**response.headers, "Location": status.links.self}
        return JSONResponse(status.model_dump(mode="json", exclude_none=True), 202, headers)

    @app.get("/v1/jobs", tags=["jobs"], responses=documented(*_OF_ALL, Kind.INVALID))
    async def get_jobs(client: Who, limit: Annotated[int, Query(ge=1, le=1_000)] = 100) -> JobsOut:
        """The jobs of this client, the last begun first."""
        found = await asyncio.to_thread(service.jobs.latest, client, limit)
        return JobsOut(jobs=[job_out(status) for status in found])

    @app.get(
        "/v1/jobs/{job}",
        tags=["jobs"],
        responses=documented(*_OF_ALL, Kind.NOT_FOUND, Kind.INVALID),
    )
    async def get_job(job: JobName, client: Who) -> JobOut:
        """How far a job is."""
        message = _found(service, job, client)
        return job_out(await asyncio.to_thread(service.jobs.status, message))

    @app.get(
        "/v1/jobs/{job}/scores",
        tags=["jobs"],
        response_model=PageOut,
        response_model_exclude_none=True,
        responses=documented(*_OF_ALL, Kind.NOT_FOUND, Kind.CONFLICT, Kind.INVALID)
        | {200: {"content": {NDJSON: {}, CSV: {}}}},
    )
    async def get_scores(
        request: Request,
        job: JobName,
        client: Who,
        start: Annotated[int, Query(ge=0, le=1 << 62, description="the first row")] = 0,
        limit: Annotated[
            int | None,
            Query(ge=1, description="most rows; JSON: 1,000, at most 10,000; else all"),
        ] = None,
        format: Annotated[  # noqa: A002
            Literal["json", "ndjson", "csv"] | None, Query(description="else as `Accept` says")
        ] = None,
    ) -> Response:
        """The outcomes of a job so far, by row.

        JSON comes in pages; NDJSON and CSV as one stream.
        """
        message = _found(service, job, client)
        wanted = format or _accepted(request)
        status = await asyncio.to_thread(service.jobs.status, message)
        complete = status.state == "complete"
        if wanted == "json":
            most = min(limit or _PAGE_ROWS, _MOST_PAGE_ROWS)
            found = await asyncio.to_thread(_outcomes, service, job, start, most)
            content: dict[str, Any] = {
                "job": job,
                "complete": complete,
                "outcomes": [row_fields(each) for each in found],
            }
            if len(found) == most:
                content["next"] = f"{links_of(job).scores}?start={found[-1].row + 1}&limit={most}"
            return JSONResponse(content)
        # Asked for once now, so that what cannot be read is said with a status.
        await asyncio.to_thread(_outcomes, service, job, start, 1)
        if wanted == "ndjson":
            return StreamingResponse(_ndjson(service, job, start, limit), media_type=NDJSON)
        return StreamingResponse(
            _csv(service, message, start, limit), media_type=f"{CSV}; charset=utf-8"
        )

    @app.get(
        "/v1/jobs/{job}/events",
        tags=["jobs"],
        response_class=StreamingResponse,
        responses=documented(*_OF_ALL, Kind.NOT_FOUND, Kind.INVALID)
        | {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def get_events(job: JobName, client: Who) -> Response:
        """How far a job is, as server-sent events: `progress` as it goes on, then `complete`."""
        message = _found(service, job, client)
        await asyncio.to_thread(service.jobs.status, message)
        return StreamingResponse(
            _events(service, job, client),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )


class _Upload:
    """A request for a job."""

    def __init__(
        self, service: Service, client: Client | None, response: Response, key: str | None
    ) -> None:
        self._service = service
        self._client = client
        self._response = response
        self._key = key
        self._name = job_name(_name_of(client), key)

    async def json(self, body: bytes) -> JobMessage:
        try:
            pairs = JobRequest.model_validate_json(body).pairs
        except ValidationError as error:
            raise _invalid_json(error) from None
        limit = self._service.settings.kafka.max_message_bytes
        for row, pair in enumerate(pairs):
            check_size(pair.url, pair.caption, row, limit)
        if self._key is None and len(pairs) <= _SMALL_ROWS and len(body) <= _SMALL_BYTES:
            return await self._publish_small([(pair.url, pair.caption) for pair in pairs])

        async def lines() -> AsyncIterator[bytes]:
            for pair in pairs:
                yield pair.__pydantic_serializer__.to_json(pair) + b"\n"

        async with spooled(lines(), self._service.spool) as spool:
            return await self.pairs(spool)

    async def pairs(self, body: Spooled) -> JobMessage:
        settings = self._service.settings
        file = await asyncio.to_thread(
            check_pairs, body.path, settings.kafka, settings.api.upload_rows
        )
        job = pair_job(self._name, _name_of(self._client), body, datetime.now(UTC))
        if (known := self._known(job)) is not None:
            return known
        await self._take(file.count)
        return await self._publishing(file.count, self._service.publish_pairs(file, job))

    async def csv(self, body: Spooled, options: CsvOptions) -> JobMessage:
        settings = self._service.settings
        survey = await asyncio.to_thread(
            check_csv, body.path, options, settings.kafka, settings.api.upload_rows
        )
        job = csv_job(self._name, _name_of(self._client), survey, datetime.now(UTC))
        if (known := self._known(job)) is not None:
            return known
        await self._take(survey.rows)
        return await self._publishing(survey.rows, self._service.publish_csv(survey, job))

    async def _publish_small(self, pairs: list[tuple[str, str]]) -> JobMessage:
        await self._take(len(pairs))
        job = OwnJob(
            job=self._name,
            source="api",
            client=_name_of(self._client),
            rows_published=0,
            state=JobState.OPEN,
            created_at=datetime.now(UTC),
        )

        async def publish() -> JobMessage:
            placed = await self._service.publish_lot(pairs, client=job.client, job=job)
            return placed.job

        return await self._publishing(len(pairs), publish())

    def _known(self, job: JobMessage) -> JobMessage | None:
        """The job, where the same request has published all of it."""
        found = None if self._key is None else self._service.jobs.book.find(job.job)
        if found is None:
            return None
        if not same_content(found, job):
            raise _taken()
        return found if found.state is JobState.CLOSED else None

    async def _take(self, rows: int) -> None:
        await _charge(self._service, self._client, self._response, requests=0, rows=rows)

    async def _publishing(self, rows: int, publishing: Awaitable[JobMessage]) -> JobMessage:
        try:
            return await publishing
        except Taken:
            raise _taken() from None
        except EnvironmentFault:
            if self._client is not None:
                await self._service.quotas.give_back(self._client, rows)
            raise


def _taken() -> ProblemError:
    return ProblemError(
        Kind.CONFLICT, "this Idempotency-Key was used with another body; choose another one"
    )


def _found(service: Service, job: str, client: Client | None) -> JobMessage:
    found = service.jobs.message(job, client)
    if found is None:
        raise ProblemError(Kind.NOT_FOUND, f"there is no job {job} that this client may see")
    return found


def _outcomes(service: Service, job: str, start: int, limit: int) -> list[ScoreMessage]:
    try:
        return service.jobs.results.outcomes(job, start, limit)
    except InputError as error:
        raise ProblemError(Kind.CONFLICT, str(error)) from None


async def _pages(
    service: Service, job: str, start: int, limit: int | None
) -> AsyncIterator[list[ScoreMessage]]:
    left = limit
    while left is None or left > 0:
        most = _PAGE_ROWS if left is None else min(left, _PAGE_ROWS)
        page = await asyncio.to_thread(_outcomes, service, job, start, most)
        if page:
            yield page
        if len(page) < most:
            return
        start = page[-1].row + 1
        left = None if left is None else left - len(page)


async def _ndjson(service: Service, job: str, start: int, limit: int | None) -> AsyncIterator[str]:
    async for page in _pages(service, job, start, limit):
        yield "".join([json.dumps(row_fields(each)) + "\n" for each in page])


async def _csv(
    service: Service, message: JobMessage, start: int, limit: int | None
) -> AsyncIterator[str]:
    writer = RowWriter(message)
    yield writer.header()
    async for page in _pages(service, message.job, start, limit):
        yield "".join([writer.row(each.encode()) for each in page])


async def _events(service: Service, job: str, client: Client | None) -> AsyncIterator[str]:
    said = ""
    while not service.parts.stop.asked:
        message = service.jobs.message(job, client)
        if message is None:
            return
        try:
            status = job_out(await asyncio.to_thread(service.jobs.status, message))
        except EnvironmentFault as fault:
            _log.warning("the results cannot be read now: %s", fault)
            yield ": the results cannot be read now\n\n"
        else:
            data = status.model_dump_json(exclude_none=True)
            kind = "complete" if status.state == "complete" else "progress"
            # A comment keeps the connection where there is nothing new.
            yield f"event: {kind}\ndata: {data}\n\n" if data != said else ": \n\n"
            said = data
            if kind == "complete":
                return
        await asyncio.sleep(_LOOK_SECONDS)


def _accepted(request: Request) -> str:
    accepted = request.headers.get("accept", "")
    if NDJSON in accepted:
        return "ndjson"
    return "csv" if CSV in accepted else "json"


def _invalid_json(error: ValidationError) -> ProblemError:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return ProblemError(Kind.MALFORMED, f"the body is no JSON: {first['msg']}")
    return ProblemError(Kind.INVALID, explain(error), row=_row_of(first["loc"]))


def _row_of(where: tuple[int | str, ...]) -> int | None:
    for name, index in itertools.pairwise(where):
        if name == "pairs" and isinstance(index, int):
            return index
    return None


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if isinstance(error, ProblemError):
            kind, row, line = error.kind, error.row, error.line
        else:
            kind, row, line = problems.kind_of(error.status_code), None, None
        return problems.respond(
            kind,
            str(error.detail),
            _id_of(request),
            row=row,
            line=line,
            headers=error.headers,
        )

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = tuple(first["loc"])
        if first["type"] == "json_invalid":
            return problems.respond(
                Kind.MALFORMED, "the body is no JSON; send a JSON object", _id_of(request)
            )
        named = where[1:] if where and where[0] == "body" else where
        said = ".".join(str(part) for part in named)
        detail = f"{said}: {first['msg']}" if said else str(first["msg"])
        return problems.respond(Kind.INVALID, detail, _id_of(request), row=_row_of(where))

    @app.exception_handler(EnvironmentFault)
    async def _unavailable(request: Request, error: EnvironmentFault) -> Response:
        return problems.respond(Kind.UNAVAILABLE, str(error), _id_of(request), headers=RETRY_AFTER)

    @app.exception_handler(Exception)
    async def _defect(request: Request, _error: Exception) -> Response:
        return problems.respond(
            Kind.DEFECT, "this is a defect in pairscore; please report it", _id_of(request)
        )


def _id_of(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))


def _name_requests(app: FastAPI) -> None:
    @app.middleware("http")
    async def _named(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("x-request-id", "")
        known = _REQUEST_ID.fullmatch(given) is not None
        request.state.request_id = given if known else secrets.token_hex(8)
        began = time.monotonic()
        response = await call(request)
        response.headers["X-Request-Id"] = request.state.request_id
        client: Client | None = getattr(request.state, "client", None)
        _access.info(
            "%s %s %d",
            *(request.method, request.url.path, response.status_code),
            extra={
                "request_id": request.state.request_id,
                "client": None if client is None else client.name,
                "key": None if client is None else client.key,
                "seconds": round(time.monotonic() - began, 4),
            },
        )
        return response


_OF_ALL: Final = (Kind.UNAUTHORIZED, Kind.TOO_MANY, Kind.UNAVAILABLE)
_BODIES: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        JSON: {"schema": {"$ref": "#/components/schemas/JobRequest"}},
        NDJSON: {
            "schema": {"type": "string", "description": "one pair a line; also gzip"},
            "example": '{"url": "https://images.example/1.jpg", "caption": "a cat"}\n',
        },
        CSV: {
            "schema": {"type": "string", "description": "UTF-8 with a header; also gzip"},
            "example": "url,caption\nhttps://images.example/1.jpg,a cat\n",
        },
    },
}


def _document(app: FastAPI) -> None:
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            schemas = document["components"]["schemas"]
            for model in (JobRequest, Problem, OutcomeOut, RowOut):
                found = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(found.pop("$defs", {}))
                schemas[model.__name__] = found
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
