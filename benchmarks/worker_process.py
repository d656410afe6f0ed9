"""A worker whose scorer needs no model: `python -m benchmarks.worker_process instant|SECONDS`.

`instant` answers at once; a number is how long it sleeps over each pair, one after the other.
"""

import sys
import threading
import time
from concurrent.futures import Future

from pairscore.lanes import Lanes
from pairscore.pair import Outcome, Pair, Score
from pairscore.settings import Settings
from shared.service import end_process, run_service
from shared.settings import WorkerSettings, read_service_settings
from worker.__main__ import install, run
from worker.scoring import Scorer

_SCORE = Score(
    similarity=25.0, cosine=0.25, caption_truncated=False, image_sha256="0" * 64, attempts=1
)


class Instant:
    """Answers at once."""

    fingerprint = "instant"

    def submit(self, _: Pair, *, urgent: bool = False) -> Future[Outcome]:  # noqa: ARG002 - all are
        """The same score for all."""
        future: Future[Outcome] = Future()
        future.set_result(_SCORE)
        return future

    def close(self) -> None:
        """Nothing to end."""


class Sleepy:
    """Sleeps over each pair, as a device of that speed would compute."""

    fingerprint = "sleepy"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._queue: Lanes[Future[Outcome]] = Lanes()
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, _: Pair, *, urgent: bool = False) -> Future[Outcome]:
        """Wait for the pairs before it, an urgent one for urgent ones only, then sleep."""
        future: Future[Outcome] = Future()
        self._queue.put(future, urgent=urgent)
        return future

    def close(self) -> None:
        """The thread ends with the process."""

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            future, _ = self._queue.get()
            due = max(due, time.monotonic() - 0.1) + self._seconds
            time.sleep(max(0.0, due - time.monotonic()))
            future.set_result(_SCORE)


def main(kind: str) -> int:
    """Run until asked to end."""
    settings = read_service_settings(WorkerSettings)

    def make(_: Settings) -> Scorer:
        return Instant() if kind == "instant" else Sleepy(float(kind))

    run(settings, install(settings), make_scorer=make)
    return 0


if __name__ == "__main__":
    end_process(run_service("worker", lambda: main(sys.argv[1])))
