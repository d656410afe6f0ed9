"""A request for a job: what it brings is checked whole, then published, or nothing of it is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from fastapi import Request, Response
from pydantic import ValidationError
from pydantic_core import to_json

from producer.api.access import charged, name_of
from producer.api.client import Client
from producer.api.errors import invalid_json
from producer.api.problems import Kind, ProblemError
from producer.api.schemas import JobRequest
from producer.api.service import Done, Service, Taken, is_same, job_name
from producer.api.uploads import (
    CsvOptions,
    Limits,
    Spooled,
    check_csv,
    check_pairs,
    check_size,
    csv_job,
    spooled,
)
from producer.job import OwnJob, api_job
from shared.messages import JobMessage, JobState

_SMALL_ROWS: Final = 10_000
_SMALL_BYTES: Final = 8_000_000


class Posting:
    """One such request; each method publishes a kind of body and gives the job as it is then.

    They raise `ProblemError` and `EnvironmentFault`.
    """

    def __init__(
        self,
        service: Service,
        client: Client | None,
        request: Request,
        response: Response,
        key: str | None,
        deadline: datetime | None = None,
    ) -> None:
        self._service = service
        self._client = client
        self._request = request
        self._response = response
        self._key = key
        self._deadline = None if deadline is None else deadline.astimezone(UTC)
        self._owner = name_of(client)
        self._name = job_name(self._owner, key)
        kafka, api = service.settings.kafka, service.settings.api
        self._limits = Limits(
            kafka.max_message_bytes,
            api.upload_bytes,
            api.upload_rows,
            job_bytes=service.parts.job_bytes,
        )

    async def json(self, body: bytes) -> JobMessage:
        """A JSON object with pairs, as one transaction where it is small."""
        size = len(body)
        pairs = await self._service.aside.run(size, lambda: _pairs_of(body, self._limits.row_bytes))
        if self._key is None and len(pairs) <= _SMALL_ROWS and size <= _SMALL_BYTES:
            return await self._publish_small(pairs)
        lines = await self._service.aside.run(size, lambda: _lines_of(pairs))

        async def whole() -> AsyncIterator[bytes]:
            yield lines

        return await self.pairs(whole())

    async def pairs(self, body: AsyncIterator[bytes]) -> JobMessage:
        """NDJSON."""
        async with self._received(body) as spool:
            return await self._pairs(spool)

    async def csv(self, body: AsyncIterator[bytes], options: CsvOptions) -> JobMessage:
        """CSV."""
        async with self._received(body) as spool:
            return await self._csv(spool, options)

    @asynccontextmanager
    async def _received(self, body: AsyncIterator[bytes]) -> AsyncIterator[Spooled]:
        """A body in a file, when it is its turn."""
        service = self._service
        async with (
            service.uploads.receiving(self._owner),
            spooled(body, service.spool) as spool,
            service.uploads.turn(self._owner, self._gone),
        ):
            yield spool

    async def _gone(self) -> None:
        # Starlette's `is_disconnected` finds nothing out behind its own middleware.
        while (await self._request.receive())["type"] != "http.disconnect":
            pass

    async def _pairs(self, body: Spooled) -> JobMessage:
        file = await asyncio.to_thread(check_pairs, body.path, self._limits)
        job = api_job(self._name, self._owner, body.sha256, self._deadline)
        if (known := self._known(job)) is not None:
            return known
        return await self._publishing(
            file.count, lambda: self._service.publish_pairs(file, job, is_new=self._key is None)
        )

    async def _csv(self, body: Spooled, options: CsvOptions) -> JobMessage:
        kafka = self._service.settings.kafka
        survey = await asyncio.to_thread(check_csv, body.path, options, kafka, self._limits)
        job = csv_job(self._name, self._owner, survey, datetime.now(UTC), self._deadline)
        if (known := self._known(job)) is not None:
            return known
        return await self._publishing(
            survey.rows, lambda: self._service.publish_csv(survey, job, is_new=self._key is None)
        )

    async def _publish_small(self, pairs: list[tuple[str, str]]) -> JobMessage:
        job = api_job(self._name, self._owner, deadline=self._deadline)

        async def publish() -> Done:
            placed = await self._service.publish_lot(pairs, client=job.client, job=job)
            return Done(placed.job, len(pairs))

        return await self._publishing(len(pairs), publish)

    def _known(self, job: OwnJob) -> JobMessage | None:
        """The job, where the same request has published all of it."""
        book = self._service.jobs.book
        if self._key is None or book.find(job.job) is None:
            return None
        found = book.find(job.job, type(job))
        if found is None or not is_same(found, job):
            raise _taken()
        return found if found.state is JobState.CLOSED else None

    async def _publishing(self, rows: int, publish: Callable[[], Awaitable[Done]]) -> JobMessage:
        service, client = self._service, self._client
        # Those that came earlier with the same key were paid for.
        before = None if self._key is None else service.jobs.book.find(self._name)
        owed = rows if before is None else max(0, rows - before.rows_published)
        async with charged(service, client, self._response, requests=0, rows=owed):
            try:
                done = await publish()
            except Taken:
                raise _taken() from None
        if client is not None and done.added < owed:
            # Another process, or another request with this key, has published the others.
            await service.quotas.give_back(client, owed - done.added)
        return done.job


def _pairs_of(body: bytes, limit: int) -> list[tuple[str, str]]:
    """The pairs of a JSON object, each of which fits into a message of `limit` bytes."""
    try:
        pairs = JobRequest.model_validate_json(body).pairs
    except ValidationError as error:
        raise invalid_json(error) from None
    for row, (url, caption) in enumerate(pairs):
        check_size(url, caption, row, limit)
    return pairs


def _lines_of(pairs: Sequence[tuple[str, str]]) -> bytes:
    """Pairs as NDJSON, whose digest says later whether it is the same body."""
    return b"".join([to_json({"url": url, "caption": caption}) + b"\n" for url, caption in pairs])


def _taken() -> ProblemError:
    return ProblemError(
        Kind.CONFLICT, "this Idempotency-Key was used with another body; choose another one"
    )
