"""Waiting until a job's outcomes are all stored."""

import logging
from collections.abc import Callable
from typing import Final

from pairscore.errors import EnvironmentFault
from producer.pulse import Pulse
from shared.results import JobStatus, Results
from shared.shutdown import Deadline

_LOOK_SECONDS: Final = 0.5
_HINT_SECONDS: Final = 30.0
_STILL_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class Waiting:
    """Follows one job in a results store, and tells how far it is.

    Args:
        results: the store.
        job: the job's name.
        pulse: of the process.
        stored: told of each status.
        say: told what people should know.
    """

    def __init__(
        self,
        results: Results,
        job: str,
        *,
        pulse: Pulse,
        stored: Callable[[JobStatus], None],
        say: Callable[[str], None],
    ) -> None:
        self._results = results
        self._job = job
        self._pulse = pulse
        self._stored = stored
        self._say = say
        self._due = pulse.deadline(0)
        self._unreadable = False

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
            self._unreadable = True
            status = None
        else:
            self._unreadable = False
        self._due = self._pulse.deadline(_LOOK_SECONDS)
        if status is not None:
            self._stored(status)
        return status

    def until_complete(self) -> JobStatus:
        """Wait for as long as it takes; hints at what may be missing where nothing comes.

        Raises:
            KeyboardInterrupt: asked to end.
        """
        patience: Deadline | None = self._pulse.deadline(_HINT_SECONDS)
        done: int | None = None
        while True:
            status = self.look()
            if status is not None and status.state == "complete":
                return status
            if status is not None and status.done != done:
                done = status.done
                patience = self._pulse.deadline(_STILL_SECONDS)
            if patience is not None and patience.passed:
                patience = None
                self._say(self._hint(known=done is not None))
            self._pulse.wait(_LOOK_SECONDS)

    def _hint(self, *, known: bool) -> str:
        if known:
            return (
                f"no outcome has come for {_STILL_SECONDS:.0f} s; see whether workers run "
                "(`python -m worker`)"
            )
        return (
            f"nothing of job {self._job} is at {self._results.where} yet, where results are "
            "expected; a sink (`python -m sink csv` or `postgres`) must run with the same "
            "PAIRSCORE_RESULTS or PAIRSCORE_POSTGRES_URL"
        )
