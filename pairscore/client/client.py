"""The client: pairs in, outcomes or a job out."""

import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Literal, Self, overload

from pairscore.client.answers import Fields, JobStatus, Pending, read_outcome, read_row, read_status
from pairscore.client.bodies import AnyPair, body_of, fields_of
from pairscore.client.errors import Unfinished
from pairscore.client.job import Job
from pairscore.client.retries import Repeat, Retries
from pairscore.client.transport import Transport
from pairscore.errors import InputError
from pairscore.pair import Outcome

_MOST_PAIRS: Final = 1_000
_MOST_CHARS: Final = 2_000_000
_MOST_SECONDS: Final = 60.0
_LONGEST_POLL: Final = 5.0
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


class Client:
    """Asks one API, with one session; also a context manager, which closes it.

    Every method raises `ApiError` where the API refuses, `NoAnswer` where it is not there for
    longer than `retries` last, and `InputError` for what cannot be sent.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: Retries = Retries(),  # noqa: B008 (frozen)
    ) -> None:
        """Nothing is asked yet.

        Args:
            url: of the API, such as `https://pairscore.example.org`.
            key: as `python -m producer keys add` printed it; never shown again by this object.
            timeout: seconds to connect, and between two bytes of an answer.
            retries: how often to ask again, where that does no harm.

        Raises:
            InputError: the URL or the key is none.
        """
        self._transport = Transport(url, key, timeout, retries)

    def __repr__(self) -> str:
        return f"Client({self._transport.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    @overload
    def score(
        self,
        pairs: Iterable[AnyPair],
        timeout: float = 10.0,
        *,
        wait: Literal[True] = True,
        within: float = 3_600.0,
    ) -> list[Outcome]: ...

    @overload
    def score(
        self,
        pairs: Iterable[AnyPair],
        timeout: float = 10.0,
        *,
        wait: Literal[False],
        within: float = 3_600.0,
    ) -> list[Outcome | Pending]: ...

    def score(
        self,
        pairs: Iterable[AnyPair],
        timeout: float = 10.0,
        *,
        wait: bool = True,
        within: float = 3_600.0,
    ) -> list[Outcome] | list[Outcome | Pending]:
        """Score pairs in line; one outcome for each, in order.

        The API waits `timeout` seconds (60 at most) for the outcomes of each 1,000 pairs. Those
        that come later are asked for until they are there, or come as `Pending` without `wait`. A
        request is sent again only where the API has not taken it, so that no pair is scored twice.

        Raises:
            Unfinished: not all are there `within` so many seconds; it has the others.
        """
        until = time.monotonic() + within
        outcomes: list[Outcome | Pending] = []
        missing: list[_Missing] = []
        for batch in _batches(pairs):
            missing += self._score(batch, timeout, outcomes)
        if wait:
            self._wait(missing, outcomes, until)
        return outcomes

    def submit(
        self,
        source: str | os.PathLike[str] | Iterable[AnyPair],
        *,
        idempotency_key: str | None = None,
        url_column: str | None = None,
        caption_column: str | None = None,
        delimiter: str | None = None,
        overwrite: bool = False,
        deadline: datetime | None = None,
        timeout: float = 3_600.0,
    ) -> Job:
        """Make a job of a file, or of any number of pairs, in constant memory.

        A path ending in `.ndjson` or `.jsonl` is NDJSON, any other a CSV; either may be gzip. The
        options are those of a CSV: which columns, where they cannot be guessed, and whether new
        columns may take the place of those of their name. When this returns, Kafka has every row.

        The same `idempotency_key` with the same content is the same job, so that a request may be
        sent again; without one there is a new one for each call.

        Args:
            source: a path, or pairs, which are written to a temporary file first.
            idempotency_key: 1 to 255 printable ASCII characters, without spaces.
            url_column: of a CSV.
            caption_column: of a CSV.
            delimiter: of a CSV.
            overwrite: of a CSV.
            deadline: when all of it is wanted, with a time zone: what a fleet that is scaled by
                deadlines goes by.
            timeout: seconds for the API to check and publish all rows, once they are sent.
        """
        key = secrets.token_hex(16) if idempotency_key is None else idempotency_key
        if not _KEY.fullmatch(key):
            raise InputError("an idempotency key is 1 to 255 printable ASCII characters, no spaces")
        if deadline is not None and deadline.tzinfo is None:
            raise InputError("a deadline has a time zone, such as datetime(..., tzinfo=UTC)")
        given = {
            "deadline": None if deadline is None else deadline.astimezone(UTC).isoformat(),
            "url_column": url_column,
            "caption_column": caption_column,
            "delimiter": delimiter,
            "overwrite": "true" if overwrite else None,
        }
        with body_of(source) as body:
            status = self._transport.ask(
                "POST",
                "/v1/jobs",
                read_status,
                body=body,
                headers={"Idempotency-Key": key},
                params={name: value for name, value in given.items() if value is not None},
                read_timeout=timeout,
            )
        return Job(self._transport, status.name, new=True)

    def job(self, name: str) -> Job:
        """A job by its name; whether there is one shows when it is asked."""
        return Job(self._transport, name)

    def jobs(self, limit: int = 100) -> list[JobStatus]:
        """The jobs that this key may see, the last begun first; `limit` is 1,000 at most."""

        def read(fields: Fields) -> list[JobStatus]:
            return [read_status(each) for each in fields["jobs"]]

        return self._transport.ask("GET", "/v1/jobs", read, params={"limit": limit})

    def _score(
        self,
        batch: list[dict[str, str]],
        timeout: float,
        outcomes: list["Outcome | Pending"],
    ) -> list["_Missing"]:
        """Ask for a batch and append its outcomes; those that are missing."""

        def read(fields: Fields) -> tuple[list[Outcome | None], Fields | None]:
            found = [read_outcome(each) for each in fields["outcomes"]]
            if len(found) != len(batch):
                raise ValueError(f"{len(found)} outcomes for {len(batch)} pairs")
            return found, fields["pending"] if None in found else None

        seconds = min(max(0.0, timeout), _MOST_SECONDS)
        found, pending = self._transport.ask(
            "POST",
            "/v1/scores",
            read,
            repeat=Repeat.NOT_TAKEN,
            json={"pairs": batch, "timeout": seconds},
            read_timeout=seconds + self._transport.timeout,
        )
        at = len(outcomes)
        if pending is None:
            outcomes += [each for each in found if each is not None]
            return []
        job, start = str(pending["job"]), int(pending["start"])
        outcomes += [
            Pending(job, start + index) if each is None else each
            for index, each in enumerate(found)
        ]
        return [_Missing(str(pending["href"]), start, len(batch), at)]

    def _wait(
        self, missing: list["_Missing"], outcomes: list["Outcome | Pending"], until: float
    ) -> None:
        """Ask for what is missing until it is there."""
        poll = 0.1
        while missing := [each for each in missing if self._look(each, outcomes)]:
            left = until - time.monotonic()
            if left <= 0:
                raise Unfinished(
                    "not all outcomes came in time; their rows are scored all the same", outcomes
                )
            time.sleep(min(poll, left))
            poll = min(_LONGEST_POLL, poll * 1.5)

    def _look(self, missing: "_Missing", outcomes: list["Outcome | Pending"]) -> bool:
        """Ask once for what is missing of a batch; whether something still is."""

        def read(fields: Fields) -> str | None:
            found = [read_row(each) for each in fields["outcomes"]]
            for row in found:
                # The page may go on with rows of other requests.
                if 0 <= row.row - missing.start < missing.count:
                    outcomes[missing.at + row.row - missing.start] = row.outcome
            # Long rows come in several pages.
            more = found and found[-1].row - missing.start + 1 < missing.count
            return fields.get("next") if more else None

        href: str | None = missing.href
        while href is not None:
            # Another process of the API may hear of the job a little later.
            href = self._transport.ask("GET", href, read, also=frozenset({404}))
        return any(
            isinstance(each, Pending) for each in outcomes[missing.at : missing.at + missing.count]
        )


@dataclass(frozen=True, slots=True)
class _Missing:
    """A batch of which something is missing: its rows in its job, and its place in the list."""

    href: str
    start: int
    count: int
    at: int


def _batches(pairs: Iterable[AnyPair]) -> Iterator[list[dict[str, str]]]:
    """As many pairs at a time as one request may have, in number and in length."""
    fields = (fields_of(pair, row) for row, pair in enumerate(pairs))
    batch: list[dict[str, str]] = []
    chars = 0
    for each in fields:
        size = len(each["url"]) + len(each["caption"])
        if batch and (len(batch) == _MOST_PAIRS or chars + size > _MOST_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(each)
        chars += size
    if batch:
        yield batch
