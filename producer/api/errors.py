"""Every error as a problem, and every request with an id and a line in the log."""

import itertools
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match

from pairscore.errors import EnvironmentFault
from producer.api import problems
from producer.api.client import Client
from producer.api.problems import RETRY_AFTER, Kind, ProblemError, explain
from shared.telemetry.traces import HEADER, Span, Tracer

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

_access = logging.getLogger("producer.api.access")


def invalid_json(error: ValidationError) -> ProblemError:
    """The problem of a body that is no JSON, or JSON of another shape."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return ProblemError(Kind.MALFORMED, f"the body is no JSON: {first['msg']}")
    return ProblemError(Kind.INVALID, explain(error), row=_row_of(first["loc"]))


def _row_of(where: tuple[int | str, ...]) -> int | None:
    for name, index in itertools.pairwise(where):
        if name == "pairs" and isinstance(index, int):
            return index
    return None


def handle_errors(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Answer with problems, whatever is raised; `routes` are those of the application's routers."""

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if isinstance(error, ProblemError):
            kind, row, line = error.kind, error.row, error.line
        else:
            kind, row, line = problems.kind_of(error.status_code), None, None
        headers = dict(error.headers or {})
        detail = str(error.detail)
        if kind is Kind.NOT_FOUND and not isinstance(error, ProblemError):
            detail = f"there is no path {request.url.path}; /v1/openapi.json has those that are"
        if kind is Kind.METHOD:
            headers["Allow"] = allowed = _allowed([*app.routes, *routes], request)
            detail = f"{request.url.path} takes {allowed}, not {request.method}"
        return problems.respond(kind, detail, id_of(request), row=row, line=line, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        # Of parameters and headers: bodies are read by the routes.
        first = error.errors()[0]
        said = ".".join(str(part) for part in first["loc"])
        return problems.respond(Kind.INVALID, f"{said}: {first['msg']}", id_of(request))

    @app.exception_handler(EnvironmentFault)
    async def _unavailable(request: Request, error: EnvironmentFault) -> Response:
        name = id_of(request)
        kind, said = problems.unavailable(error, name)
        return problems.respond(kind, said, name, headers=RETRY_AFTER)

    @app.exception_handler(ClientDisconnect)
    async def _gone(request: Request, _error: ClientDisconnect) -> Response:
        return problems.respond(
            Kind.MALFORMED, "the connection was closed before the body was there", id_of(request)
        )

    @app.exception_handler(Exception)
    async def _defect(request: Request, _error: Exception) -> Response:
        return problems.respond(
            Kind.DEFECT, "this is a defect in pairscore; please report it", id_of(request)
        )


def _allowed(routes: Sequence[BaseRoute], request: Request) -> str:
    """The methods of all routes of a path; Starlette names those of the first."""
    found: set[str] = set()
    for route in routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return ", ".join(sorted(found))


def id_of(request: Request) -> str:
    """The request's id."""
    return str(getattr(request.state, "request_id", ""))


def name_requests(app: FastAPI, tracer: Tracer) -> None:
    """Give each request an id, its own if it has one, and log it without what was sent.

    Some get a span too, in which what they publish is.
    """

    @app.middleware("http")
    async def _named(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("x-request-id", "")
        known = _REQUEST_ID.fullmatch(given) is not None
        request.state.request_id = given if known else secrets.token_hex(8)
        began = time.monotonic()
        with tracer.serving(request.method, request.headers.get(HEADER)) as span:
            response = None
            try:
                response = await call(request)
            finally:
                if span is not None:
                    _describe(span, request, response)
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
                **({} if span is None else {"trace_id": span.trace_id}),
            },
        )
        return response


def _describe(span: Span, request: Request, response: Response | None) -> None:
    route = getattr(request.scope.get("route"), "path", "")
    if route:
        span.own.update_name(f"{request.method} {route}")
    about = {
        "http.request.method": request.method,
        "http.route": route,
        "http.response.status_code": 500 if response is None else response.status_code,
    }
    span.own.set_attributes({name: value for name, value in about.items() if value})
