"""What every route needs: the service, who asks, and whether they may ask for that much."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final, TypeAlias

from fastapi import Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from producer.api.client import Client
from producer.api.problems import Kind, ProblemError
from producer.api.quotas import Verdict, limit_headers
from producer.api.service import Service, Unfinished

OF_ALL: Final = (Kind.UNAUTHORIZED, Kind.TOO_MANY, Kind.UNAVAILABLE)
"""Problems that any request may run into."""

_bearer = HTTPBearer(
    auto_error=False, description="an API key, as `python -m producer keys add` prints it"
)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Served: TypeAlias = Annotated[Service, Depends(_service)]


async def _who(
    request: Request,
    service: Served,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Client | None:
    """Whose key was sent; None where none is needed."""
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


Who: TypeAlias = Annotated[Client | None, Depends(_who)]


async def charge(
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


def refuse_unknown(request: Request) -> None:
    """Let nobody believe that a parameter did something that has no meaning here.

    Raises:
        ProblemError: there is one.
    """
    given = request.query_params.keys()
    if not given:
        return
    methods = request.app.openapi()["paths"][request.scope["route"].path]
    described = methods[request.method.lower()].get("parameters", ())
    known = [each["name"] for each in described if each["in"] == "query"]
    for name in given:
        if name not in known:
            there = f"those that there are: {', '.join(known)}" if known else "there are none"
            raise ProblemError(
                Kind.INVALID,
                f"there is no parameter {name[:80]!r} here; {there}",
                headers={"Connection": "close"},
            )


@asynccontextmanager
async def charged(
    service: Service, client: Client | None, response: Response, *, requests: int, rows: int
) -> AsyncIterator[None]:
    """Take from the client's quotas, and give rows back that were not published.

    Raises:
        ProblemError: there is not enough left.
    """
    await charge(service, client, response, requests=requests, rows=rows)
    try:
        yield
    except Exception as error:
        if client is not None:
            kept = error.rows if isinstance(error, Unfinished) else 0
            await service.quotas.give_back(client, rows - kept)
        raise


def name_of(client: Client | None) -> str | None:
    """The name that jobs of a client have."""
    return None if client is None else client.name
