"""What is known of jobs: what `jobs` says of them, and what the sink has stored."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar, overload

from confluent_kafka import Message

from producer.api.client import Client
from shared.messages import JobMessage, JobState, Rejection, decode
from shared.results import JobStatus, Results

Kind = TypeVar("Kind", bound=JobMessage)


class JobBook:
    """The latest message of every job on `jobs`, the last begun last.

    No job goes back: what was published here and is known counts, until what is read has come to it
    too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # As bytes, which are a tenth of what the objects take.
        self._values: dict[str, bytes] = {}
        # Known before they were read: what is read of these may be older.
        self._ahead: set[str] = set()

    def __len__(self) -> int:
        """How many jobs there are."""
        return len(self._values)

    def take(self, messages: Sequence[Message]) -> None:
        """Take what was read, from any thread."""
        with self._lock:
            for message in messages:
                key, value = message.key(), message.value()
                name = key.decode(errors="replace") if isinstance(key, bytes) else ""
                if name in self._ahead:
                    # A tombstone is of an earlier job of that name: this one is not read yet.
                    if value is None or _goes_back(value, self._values[name]):
                        continue
                    self._ahead.remove(name)
                if value is None:
                    self._values.pop(name, None)
                else:
                    self._values[name] = value

    def know(self, job: JobMessage) -> None:
        """Take what was published here, which is read a little later, or has been by now."""
        value = job.encode()
        with self._lock:
            known = self._values.get(job.job)
            # The same, or what came after it: there is nothing left to be read that is older.
            if known is None or _goes_back(known, value):
                self._values[job.job] = value
                self._ahead.add(job.job)

    @overload
    def find(self, name: str) -> JobMessage | None: ...
    @overload
    def find(self, name: str, kind: type[Kind]) -> Kind | None: ...
    def find(self, name: str, kind: type[JobMessage] = JobMessage) -> JobMessage | None:
        """One job; None if there is none of that name, and of that kind."""
        value = self._values.get(name)
        found = None if value is None else decode(kind, value)
        return None if isinstance(found, Rejection) else found

    def forget(self, name: str) -> None:
        """Know nothing more of a job."""
        with self._lock:
            self._values.pop(name, None)
            self._ahead.discard(name)

    def select(self, wanted: Callable[[bytes], bool], kind: type[Kind]) -> list[Kind]:
        """The jobs of a kind whose messages, as bytes, are wanted."""
        with self._lock:
            values = list(self._values.values())
        found = (decode(kind, value) for value in values if wanted(value))
        return [job for job in found if not isinstance(job, Rejection)]

    def names(self) -> list[str]:
        """The names of all, the last begun first."""
        with self._lock:
            return list(reversed(self._values))


def _goes_back(value: bytes, known: bytes) -> bool:
    """Whether a message is older than one that is known of the same job.

    A job that was begun anew is further than the one before it, one that is closed stays so, and
    rows that are published only grow. What cannot be read says nothing of that.
    """
    found, before = decode(JobMessage, value), decode(JobMessage, known)
    if isinstance(found, Rejection) or isinstance(before, Rejection):
        return False
    return _progress(found) < _progress(before)


def _progress(job: JobMessage) -> tuple[datetime, bool, int]:
    return job.created_at, job.state is JobState.CLOSED, job.rows_published


class Jobs:
    """What a client may know of jobs."""

    def __init__(self, book: JobBook, results: Results) -> None:
        self.book = book
        self.results = results

    def message(self, name: str, client: Client | None) -> JobMessage | None:
        """What `jobs` says of a job; None where the client has no such job.

        Without keys, `client` is None and sees all.
        """
        found = self.book.find(name)
        if found is None or not may_see(client, found):
            return None
        return found

    def status(self, message: JobMessage) -> JobStatus:
        """How far a job is. Reads the store.

        Raises:
            EnvironmentFault: the store cannot be read.
        """
        stored = self.results.job(message.job)
        if stored is None:
            return unstored(message)
        state = stored.state
        if state == "open" and message.state is JobState.CLOSED:
            state = "closed"
        return replace(
            stored,
            source=message.source,
            state=state,
            rows_published=max(stored.rows_published, message.rows_published),
            rows=message.rows if stored.rows is None else stored.rows,
            created_at=message.created_at,
        )

    def latest(self, client: Client | None, limit: int) -> list[JobStatus]:
        """The client's jobs, the last begun first. Reads the store.

        Raises:
            EnvironmentFault: the store cannot be read.
        """
        found: list[JobStatus] = []
        for name in self.book.names():
            if len(found) >= limit:
                break
            message = self.message(name, client)
            if message is not None:
                found.append(self.status(message))
        return found


def may_see(client: Client | None, job: JobMessage) -> bool:
    """Whether a client may know of a job: its own, or any if it may see all."""
    return client is None or client.all_jobs or job.client == client.name


def unstored(message: JobMessage) -> JobStatus:
    """How far a job is of which nothing is stored."""
    updated: datetime = message.created_at
    return JobStatus(
        job=message.job,
        source=message.source,
        state="closed" if message.state is JobState.CLOSED else "open",
        rows_published=message.rows_published,
        rows=message.rows,
        scored=0,
        failed={},
        models={},
        result=None,
        created_at=message.created_at,
        updated_at=updated,
    )
