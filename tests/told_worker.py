"""A worker whose scorer does as it is told: `python -m tests.told_worker SECONDS`.

Each row comes out with a score after SECONDS; with `never`, none does, and a row is overdue as soon
as its URL has had its time.
"""

import os
import sys
from concurrent.futures import Future
from threading import Timer

from pairscore.pair import Outcome, Pair, Score
from shared.service import run_service
from shared.settings import WorkerSettings, read_service_settings
from shared.shutdown import StopSignal
from shared.telemetry.logs import configure_logging
from worker import __main__ as worker
from worker.loop import LAST_SECONDS

SCORE = Score(25.0, 0.25, caption_truncated=False, image_sha256="0" * 64, attempts=1)


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
    stop = StopSignal()
    stop.install(settings.worker.shutdown_seconds + LAST_SECONDS)
    configure_logging(settings.telemetry, "worker")
    worker._SCORER_SECONDS = 0.0  # type: ignore[misc]
    told = Told(None if seconds == "never" else float(seconds))
    worker.run(settings, stop, make_scorer=lambda _: told)
    return 0


if __name__ == "__main__":
    code = run_service("worker", lambda: main(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
