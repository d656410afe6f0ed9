"""Waiting until a job's outcomes are all stored, and saying what may be missing while none come."""

import logging
from collections.abc import Callable
from typing import Final

from pairscore.errors import EnvironmentFault
from producer.pulse import Pulse
from shared.results import JobStatus, Results

_LOOK_SECONDS: Final = 0.5
_HINT_SECONDS: Final = 30.0
_STILL_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class Waiting:
    """Follows one job in a results store, and tells how far it is.

    Args:
        results: the store.
        job: the job's name.
        dead_letters: the topic of what workers could not read.
        pulse: of the process.
        stored: told of each status.
        say: told what people should know.
    """

    def __init__(
        self,
        results: Results,
        job: str,
        *,
        dead_letters: str,
        pulse: Pulse,
        stored: Callable[[JobStatus], None],
        say: Callable[[str], None],
    ) -> None:
        self._results = results
        self._job = job
        self._dead_letters = dead_letters
        self._pulse = pulse
        self._stored = stored
        self._say = say
        self._due = pulse.deadline(0)
        self._unreadable = ""

    def look(self) -> JobStatus | None:
        """The job's status, if it is time to look again and it has one."""
        if not self._due.passed:
            return None
        try:
            status = self._results.job(self._job)
        except EnvironmentFault as fault:
            # The store may be away for a while; the job goes on without us.
            if not self._unreadable:
                _log.warning("the results cannot be read now: %s", fault)
            self._unreadable = str(fault)
            status = None
        else:
            self._unreadable = ""
        self._due = self._pulse.deadline(_LOOK_SECONDS)
        if status is not None:
            self._stored(status)
        return status

    def until_complete(self) -> JobStatus:
        """Wait for as long as it takes, for a job that is closed on Kafka.

        Says what may be missing now and then for as long as nothing moves.

        Raises:
            KeyboardInterrupt: asked to end.
        """
        seen: JobStatus | None = None
        since = self._pulse.clock()
        patience = self._pulse.deadline(_HINT_SECONDS)
        while True:
            status = self.look()
            if status is not None and status.state == "complete":
                return status
            if status is not None and (seen is None or _moved(seen, status)):
                since = self._pulse.clock()
                patience = self._pulse.deadline(_STILL_SECONDS)
            seen = status or seen
            if patience.passed:
                patience = self._pulse.deadline(_HINT_SECONDS)
                self._say(self._hint(seen, self._pulse.clock() - since))
            self._pulse.wait(_LOOK_SECONDS)

    def _hint(self, seen: JobStatus | None, seconds: float) -> str:
        if self._unreadable:
            return f"still waiting: the results cannot be read: {self._unreadable}"
        where = self._results.where
        if seen is None or seen.state == "open":
            # A sink reads at once, even where no worker runs, that the job is closed.
            return (
                f"no sink stores job {self._job} at {where}, where its result is waited for: start "
                "one (`python -m sink csv` or `postgres`) with the same settings, "
                "PAIRSCORE_RESULTS or PAIRSCORE_POSTGRES_URL among them"
            )
        return (
            f"no outcome has come for {seconds:.0f} s, and {seen.lag:,} are missing: see "
            f"`python -m sink status {self._job}` for what is stored, `python scripts/lag.py` for "
            "what workers and sinks have still to read (rows that are tried again wait in "
            f"`pairs.retry`), and topic {self._dead_letters} for what no worker could read"
        )


def _moved(before: JobStatus, now: JobStatus) -> bool:
    return (before.done, before.state) != (now.done, now.state)
