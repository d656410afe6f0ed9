"""A job at the API: how far it is, and its outcomes."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp
from typing import Final, Literal, TypeVar
from urllib.parse import quote

from pairscore.client.answers import Fields, JobStatus, RowOutcome, read_row, read_status
from pairscore.client.errors import ApiError, NoAnswer, Unfinished
from pairscore.client.events import Event, events_of
from pairscore.client.transport import Transport
from pairscore.errors import EnvironmentFault

T = TypeVar("T")

_PAGE_ROWS: Final = 1_000
_NEW_SECONDS: Final = 30.0
_LONGEST_POLL: Final = 5.0
_CHUNK_BYTES: Final = 1 << 16
_NOT_HEARD_OF: Final = frozenset({404})


class Job:
    """One job, by its name; nothing is asked until a method is called.

    All methods raise `ApiError` where the API refuses, and `NoAnswer` where it is not there for
    longer than the client's retries last.
    """

    def __init__(self, transport: Transport, name: str, *, new: bool = False) -> None:
        """A job is `new` if it was just made: another process of the API may not know it yet."""
        self.name: Final = name
        self._transport = transport
        self._path = f"/v1/jobs/{quote(name, safe='')}"
        self._new_until = time.monotonic() + _NEW_SECONDS if new else 0.0

    def __repr__(self) -> str:
        return f"Job({self.name!r})"

    def status(self) -> JobStatus:
        """How far it is."""
        return self._ask("GET", self._path, read_status)

    def cancel(self) -> JobStatus:
        """Have no more of its rows scored; those that are being scored may still come."""
        return self._ask("DELETE", self._path, read_status)

    def wait(self, poll: float = 2.0, within: float | None = None) -> JobStatus:
        """Wait until it is complete, asking every `poll` seconds; its last status.

        Raises:
            Unfinished: it is not, `within` so many seconds. None waits for as long as it takes.
        """
        until = None if within is None else time.monotonic() + within
        while not (status := self.status()).complete:
            left = poll if until is None else min(poll, until - time.monotonic())
            if left <= 0:
                raise Unfinished(
                    f"job {self.name}: {status.done:,} rows of "
                    f"{'?' if status.rows is None else f'{status.rows:,}'} are done"
                )
            time.sleep(left)
        return status

    def events(self) -> Iterator[JobStatus]:
        """How far it is whenever that changes, until it is complete.

        Connections that break are made anew.
        """
        tries = self._transport.tries(also=self._tolerated())
        said = b""
        while True:
            try:
                for event in self._events():
                    tries.succeeded()
                    if event.data != said:
                        said = event.data
                        yield self._transport.read(event.json, read_status)
                    if event.name == "complete":
                        return
                ended = NoAnswer(f"job {self.name}: its events ended too early", sent=True)
            except (ApiError, NoAnswer) as error:
                ended_by: ApiError | NoAnswer = error
            else:
                ended_by = ended
            tries.failed(ended_by)

    def scores(self, start: int = 0, *, follow: bool = False) -> Iterator[RowOutcome]:
        """The outcomes from row `start` on, by row, in pages.

        Rows that have none yet are left out; with `follow` they are waited for, so that every row
        comes, in order, until the job is complete.
        """
        row, poll, probing = start, 0.0, False
        while True:
            # While a row is waited for there is no need to have those behind it again and again.
            limit = 1 if probing else _PAGE_ROWS
            path = f"{self._path}/scores?format=json&start={row}&limit={limit}"
            complete, found, more = self._ask("GET", path, _read_page)
            came = False
            for outcome in found:
                if follow and not complete and outcome.row != row:
                    break
                yield outcome
                came, row = True, outcome.row + 1
            else:
                if more:
                    probing = False
                    continue
                if complete or not follow:
                    return
            probing = not came
            poll = 0.1 if came else min(_LONGEST_POLL, poll * 1.5 + 0.1)
            time.sleep(poll)

    def download(
        self,
        path: str | os.PathLike[str],
        format: Literal["csv", "ndjson"] = "csv",  # noqa: A002
        *,
        partial: bool = False,
    ) -> Path:
        """Write all outcomes to a file, which is there whole or not at all; its path.

        CSV has the rows as they were sent, with `similarity` and `error`. With `partial`, a job
        need not be complete.

        Raises:
            Unfinished: it is not complete.
            EnvironmentFault: the file cannot be written.
        """
        status = self.status()
        if not (partial or status.complete):
            raise Unfinished(
                f"job {self.name} is not complete; wait for it, or take what is there: partial=True"
            )
        target = Path(path)
        try:
            handle, name = mkstemp(prefix=f".{target.name}.", dir=target.parent)
            draft = Path(name)
            try:
                os.close(handle)
                self._transport.trying(lambda: self._write(draft, format))
                draft.chmod(_usual_rights())
                draft.replace(target)
            finally:
                with suppress(FileNotFoundError):
                    draft.unlink()
        except OSError as error:
            raise EnvironmentFault(
                f"{target}: cannot be written: {error.strerror or error}"
            ) from None
        return target

    def _write(self, draft: Path, kind: str) -> None:
        with (
            self._transport.open("GET", f"{self._path}/scores?format={kind}") as response,
            draft.open("wb") as file,
        ):
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())

    def _events(self) -> Iterator[Event]:
        with self._transport.open(
            "GET", f"{self._path}/events", headers={"Accept": "text/event-stream"}
        ) as response:
            yield from events_of(response.iter_lines(1024))

    def _ask(self, method: str, path: str, read: Callable[[Fields], T]) -> T:
        return self._transport.ask(method, path, read, also=self._tolerated())

    def _tolerated(self) -> frozenset[int]:
        return _NOT_HEARD_OF if time.monotonic() < self._new_until else frozenset()


def _read_page(fields: Fields) -> tuple[bool, list[RowOutcome], bool]:
    """Whether all of the job is there, the rows of a page, and whether there is another."""
    found = [read_row(each) for each in fields["outcomes"]]
    return bool(fields["complete"]), found, bool(found and fields.get("next"))


def _usual_rights() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask
