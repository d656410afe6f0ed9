"""What becomes of the jobs of a fleet, a line at a time."""

from collections.abc import Callable

from pairscore.errors import EnvironmentFault
from shared.results import JobStatus, Results


class JobNews:
    """Says what is new of jobs at each call of `tell`; complete ones of earlier are no news."""

    def __init__(self, results: Results, say: Callable[[str], None]) -> None:
        self._results = results
        self._say = say
        self._told: dict[str, str] = {}
        self._begun = False

    def tell(self) -> None:
        """Look at the results, and say how far each job is that went on since the last time."""
        try:
            jobs = self._results.jobs()
        except EnvironmentFault:
            # Busy, or away for a while; the sink says so in its log.
            return
        for status in reversed(jobs):
            line = describe(status)
            if self._told.get(status.job) != line:
                self._told[status.job] = line
                if self._begun or status.state != "complete":
                    self._say(line)
        self._begun = True


def describe(status: JobStatus) -> str:
    """A job in one line."""
    failed = status.done - status.scored
    counts = f"{status.scored:,} scored, {failed:,} failed"
    if status.state == "complete":
        return f"job {status.job}: complete, {counts}; {status.result}"
    of = f"{status.rows:,}" if status.rows is not None else f"{status.rows_published:,} published"
    return f"job {status.job}: {status.done:,} of {of} rows, {counts}"
