"""A worker whose scorer does as it is told: `python -m tests.told_worker SECONDS [FAULT]`.

Each row comes out with a score after SECONDS; with `never`, none does, and a row is overdue as soon
as its URL has had its time. FAULTs: `loading`, its model never finishes loading; `closing`, its
scorer never finishes closing; `fatal`, that and its first transaction is fatal.
"""

import sys
import time
from concurrent.futures import Future
from threading import Timer
from typing import NoReturn

from pairscore.pair import Outcome, Pair
from shared.service import end_process, run_service
from shared.settings import WorkerSettings, read_service_settings
from tests.working import SCORE
from worker import __main__ as worker
from worker.ledger import Plan
from worker.publication import Publication
from worker.transactions import Fatal, Transactions


class Told:
    """Answers after a while, or never."""

    fingerprint = "told"

    def __init__(self, seconds: float | None, fault: str) -> None:
        self._seconds = seconds
        self._fault = fault
        if fault == "loading":
            _hang()

    def submit(self, _: Pair, *, urgent: bool = False) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        if self._seconds is not None:
            timer = Timer(self._seconds, future.set_result, [SCORE])
            timer.daemon = True
            timer.start()
        return future

    def close(self) -> None:
        if self._fault:
            _hang()


class Fatally(Transactions):
    """Publishes nothing, since Kafka will not have it."""

    def publish(self, plan: Plan[Publication], seconds: float) -> NoReturn:
        raise Fatal("as it was told to")


def _hang() -> None:
    sys.stderr.write("hangs now\n")
    time.sleep(3600)


def main(seconds: str, fault: str = "") -> int:
    """Run until asked to end."""
    settings = read_service_settings(WorkerSettings)
    worker._SCORER_SECONDS = 0.0  # type: ignore[misc]
    worker.run(
        settings,
        worker.install(settings),
        make_scorer=lambda _: Told(None if seconds == "never" else float(seconds), fault),
        make_transactions=Fatally if fault == "fatal" else Transactions,
    )
    return 0


if __name__ == "__main__":
    end_process(run_service("worker", lambda: main(*sys.argv[1:])))
