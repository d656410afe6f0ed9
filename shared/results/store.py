"""The read side of a results store, whichever it is."""

from pathlib import Path
from typing import Protocol

from shared.results.page import Page
from shared.results.status import JobStatus
from shared.settings import StoreSettings


class Results(Protocol):
    """What a sink has stored. Every call sees what is there when it is made.

    Calls may come from any thread.

    Raises:
        EnvironmentFault: (every call) the store cannot be read.
    """

    @property
    def where(self) -> str:
        """The store in words, without a password."""
        ...

    def jobs(self) -> list[JobStatus]:
        """Every job, the latest begun first; none where no sink has stored anything yet."""
        ...

    def job(self, name: str) -> JobStatus | None:
        """One job; None if nothing is known of it."""
        ...

    def page(self, job: str, start: int = 0, limit: int = 1000) -> Page:
        """At most `limit` outcomes of a job, by row, from row `start` on; rows without: left out.

        Fewer where they have more text than a page may have, but one at least.

        Raises:
            InputError: the job's outcomes are in its result's file and nowhere else.
        """
        ...

    def rejected(self) -> int:
        """How many records were no messages of ours."""
        ...

    def duplicates(self) -> int:
        """How many outcomes came for rows that had one already, and were left out."""
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...


def open_results(settings: StoreSettings) -> Results:
    """The Postgres store where `postgres_url` is set, else that of the folder `results`.

    Raises:
        EnvironmentFault: the store cannot be reached or read.
    """
    if settings.postgres_url is not None:
        # Only here, so that a folder's readers need no driver.
        from shared.results.postgres import PostgresResults

        return PostgresResults(settings.postgres_url)
    from shared.results.folder import FolderResults

    return FolderResults(Path(settings.results))
