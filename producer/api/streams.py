"""Outcomes and progress as they are given out: pages, NDJSON, CSV, server-sent events."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Final

from pairscore.errors import EnvironmentFault, InputError
from producer.api.client import Client
from producer.api.problems import Kind, ProblemError
from producer.api.schemas import job_out, row_fields
from producer.api.service import Service
from shared.messages import JobMessage, ScoreMessage
from shared.results.rows import RowWriter

PAGE_ROWS: Final = 1_000
"""Rows that are read from the store at once."""

_LOOK_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


def outcomes(service: Service, job: str, start: int, limit: int) -> list[ScoreMessage]:
    """Some outcomes of a job. Reads the store.

    Raises:
        ProblemError: they are in a file and nowhere else.
        EnvironmentFault: the store cannot be read.
    """
    try:
        return service.jobs.results.outcomes(job, start, limit)
    except InputError as error:
        raise ProblemError(Kind.CONFLICT, str(error)) from None


async def _pages(
    service: Service, job: str, start: int, limit: int | None
) -> AsyncIterator[list[ScoreMessage]]:
    left = limit
    while left is None or left > 0:
        most = PAGE_ROWS if left is None else min(left, PAGE_ROWS)
        page = await service.read(outcomes, service, job, start, most)
        if page:
            yield page
        if len(page) < most:
            return
        start = page[-1].row + 1
        left = None if left is None else left - len(page)


async def ndjson(service: Service, job: str, start: int, limit: int | None) -> AsyncIterator[str]:
    """Outcomes from row `start` on, `limit` at most, one a line."""
    async for page in _pages(service, job, start, limit):
        yield "".join([json.dumps(row_fields(each)) + "\n" for each in page])


async def csv(
    service: Service, message: JobMessage, start: int, limit: int | None
) -> AsyncIterator[str]:
    """Outcomes as rows of the job's CSV, with its header."""
    writer = RowWriter(message)
    yield writer.header()
    async for page in _pages(service, message.job, start, limit):
        yield "".join([writer.row(each.encode()) for each in page])


async def events(service: Service, job: str, client: Client | None) -> AsyncIterator[str]:
    """How far a job is, until it is complete or this process is asked to end."""
    said = ""
    while not service.parts.stop.asked:
        message = service.jobs.message(job, client)
        if message is None:
            return
        try:
            status = job_out(await service.watch(message))
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
