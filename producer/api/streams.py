"""Outcomes and progress as they are given out: pages, NDJSON, CSV, server-sent events."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pairscore.errors import EnvironmentFault, InputError
from producer.api.client import Client
from producer.api.problems import Kind, ProblemError
from producer.api.schemas import job_out, row_fields
from producer.api.service import Service
from shared.messages import JobMessage, ScoreMessage
from shared.results import Page
from shared.results.rows import RowWriter

PAGE_ROWS: Final = 1_000
"""Rows that are read from the store at once, where they are short."""

_LOOK_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a job: its rows from `start` on, those before `end`, `limit` outcomes at most."""

    start: int = 0
    end: int | None = None
    limit: int | None = None

    def page(self, most: int) -> "Part":
        """The first so many of them."""
        rows = most if self.end is None else min(most, max(0, self.end - self.start))
        return replace(self, limit=rows if self.limit is None else min(rows, self.limit))

    def after(self, page: Sequence[ScoreMessage]) -> "Part":
        """What comes after a page of it."""
        limit = None if self.limit is None else self.limit - len(page)
        return replace(self, start=page[-1].row + 1, limit=limit)


def read_page(service: Service, job: str, start: int, limit: int) -> Page:
    """Some outcomes of a job. Reads the store.

    Raises:
        ProblemError: they are in a file and nowhere else.
        EnvironmentFault: the store cannot be read.
    """
    try:
        return service.jobs.results.page(job, start, limit)
    except InputError as error:
        raise ProblemError(Kind.CONFLICT, str(error)) from None


def read_part(service: Service, job: str, part: Part) -> Page:
    """The first outcomes of a part of a job that has a limit, as `read_page`."""
    if not part.limit:
        return Page([], more=False)
    found, end = read_page(service, job, part.start, part.limit), part.end
    if end is None or not found.outcomes or found.outcomes[-1].row < end:
        return found
    return Page([each for each in found.outcomes if each.row < end], more=False)


def read_first(service: Service, job: str, rows: int) -> list[ScoreMessage]:
    """The first outcomes of a job, page by page, as `read_page`."""
    found: list[ScoreMessage] = []
    more = True
    while more and len(found) < rows:
        start = found[-1].row + 1 if found else 0
        page = read_page(service, job, start, rows - len(found))
        found += page.outcomes
        more = page.more
    return found


async def _pages(service: Service, job: str, part: Part) -> AsyncIterator[list[ScoreMessage]]:
    while (most := part.page(PAGE_ROWS)).limit:
        page = await service.read(read_part, service, job, most)
        if page.outcomes:
            yield page.outcomes
        if not page.more:
            return
        part = part.after(page.outcomes)


async def ndjson(service: Service, job: str, part: Part) -> AsyncIterator[str]:
    """Outcomes, one a line."""
    async for page in _pages(service, job, part):
        yield "".join([json.dumps(row_fields(each)) + "\n" for each in page])


async def csv(service: Service, message: JobMessage, part: Part) -> AsyncIterator[str]:
    """Outcomes as rows of the job's CSV, with its header."""
    writer = RowWriter(message)
    yield writer.header()
    async for page in _pages(service, message.job, part):
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
