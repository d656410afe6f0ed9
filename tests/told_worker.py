"""A worker whose scorer does as it is told: `python -m tests.told_worker SECONDS`.

Each row comes out with a score after SECONDS; with `never`, none does, and a row is overdue as soon
as its URL has had its time.
"""

import sys
from concurrent.futures import Future
from threading import Timer

from pairscore.pair import Outcome, Pair
from shared.service import end_process, run_service
from shared.settings import WorkerSettings, read_service_settings
from tests.working import SCORE
from worker import __main__ as worker


class Told:
    """Answers after a while, or never."""

    fingerprint = "told"

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def submit(self, _: Pair) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        if self._seconds is not None:
            timer = Timer(self._seconds, future.set_result, [SCORE])
            timer.daemon = True
            timer.start()
        return future

    def close(self) -> None:
        pass


def main(seconds: str) -> int:
    """Run until asked to end."""
    settings = read_service_settings(WorkerSettings)
    worker._SCORER_SECONDS = 0.0  # type: ignore[misc]
    told = Told(None if seconds == "never" else float(seconds))
    worker.run(settings, worker.install(settings), make_scorer=lambda _: told)
    return 0


if __name__ == "__main__":
    end_process(run_service("worker", lambda: main(sys.argv[1])))
