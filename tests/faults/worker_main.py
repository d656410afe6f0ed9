"""A worker that is struck at a point of its transactions.

`python -m tests.faults.worker_main SIGNAL POINT TIMES`: when it comes to POINT for that many times,
the process sends itself SIGNAL (KILL or STOP). In all else it is the worker of `python -m worker`;
without arguments it is never struck.
"""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from confluent_kafka import Consumer, Producer

from shared.service import end_process, run_service
from shared.settings import WorkerSettings, read_service_settings
from shared.shutdown import Deadline
from shared.topics import Topics
from worker.__main__ import install, run
from worker.ledger import Ledger, Plan
from worker.publication import Publication
from worker.transactions import Transactions

_WITHIN_SECONDS: Final = 0.008
_DAZED_SECONDS: Final = 2.0
"""A thread that was made to hang goes on later than the client's own, which rejoins the group."""


class Point(StrEnum):
    """Where a worker can be struck."""

    BEFORE_BEGIN = "before-begin"
    AFTER_BEGIN = "after-begin"
    BEFORE_PRODUCE = "before-produce"
    AFTER_PRODUCE = "after-produce"  # Kafka has all the messages
    BEFORE_SEND_OFFSETS = "before-send-offsets"
    WITHIN_SEND_OFFSETS = "within-send-offsets"
    AFTER_SEND_OFFSETS = "after-send-offsets"
    BEFORE_COMMIT = "before-commit"
    WITHIN_COMMIT = "within-commit"
    AFTER_COMMIT = "after-commit"
    BEFORE_CONFIRM = "before-confirm"
    AFTER_CONFIRM = "after-confirm"


class Fate:
    """Strikes the process at its point; belongs to the thread that passes the points."""

    def __init__(self, number: signal.Signals, point: Point | None, times: int) -> None:
        self._number = number
        self._point = point
        self._left = times

    def passes(self, point: Point) -> None:
        """Be struck here, if it is the point and the time has come."""
        if self._comes(point):
            os.kill(os.getpid(), self._number)
            time.sleep(_DAZED_SECONDS)

    def enters(self, point: Point) -> None:
        """Be struck in a moment, while the step that comes next is on its way."""
        if self._comes(point):
            threading.Thread(target=self._strike_soon, daemon=True).start()

    def _comes(self, point: Point) -> bool:
        if point is not self._point or self._left <= 0:
            return False
        self._left -= 1
        return self._left == 0

    def _strike_soon(self) -> None:
        time.sleep(random.uniform(0, _WITHIN_SECONDS))
        os.kill(os.getpid(), self._number)


class FatedTransactions(Transactions):
    """Passes the points of a transaction."""

    def __init__(self, producer: Producer, consumer: Consumer, fate: Fate) -> None:
        super().__init__(producer, consumer)
        self._fate = fate

    def begin(self) -> None:
        self._fate.passes(Point.BEFORE_BEGIN)
        super().begin()
        self._fate.passes(Point.AFTER_BEGIN)

    def produce(self, publications: Sequence[Publication], deadline: Deadline) -> None:
        self._fate.passes(Point.BEFORE_PRODUCE)
        super().produce(publications, deadline)
        self._producer.flush(deadline.left())
        self._fate.passes(Point.AFTER_PRODUCE)

    def send_offsets(self, plan: Plan[Publication], deadline: Deadline) -> None:
        self._fate.passes(Point.BEFORE_SEND_OFFSETS)
        self._fate.enters(Point.WITHIN_SEND_OFFSETS)
        super().send_offsets(plan, deadline)
        self._fate.passes(Point.AFTER_SEND_OFFSETS)

    def commit(self, deadline: Deadline) -> None:
        self._fate.passes(Point.BEFORE_COMMIT)
        self._fate.enters(Point.WITHIN_COMMIT)
        super().commit(deadline)
        self._fate.passes(Point.AFTER_COMMIT)


class FatedLedger(Ledger[Publication]):
    """Passes the points about confirming."""

    def __init__(self, fate: Fate, ahead: str) -> None:
        super().__init__(ahead)
        self._fate = fate

    def confirm(self, plan: Plan[Publication]) -> None:
        self._fate.passes(Point.BEFORE_CONFIRM)
        super().confirm(plan)
        self._fate.passes(Point.AFTER_CONFIRM)


def main(number: str = "KILL", point: str | None = None, times: str = "0") -> int:
    """Run until asked to end, or struck."""
    fate = Fate(signal.Signals[f"SIG{number}"], None if point is None else Point(point), int(times))
    settings = read_service_settings(WorkerSettings)
    run(
        settings,
        install(settings),
        make_transactions=lambda producer, consumer: FatedTransactions(producer, consumer, fate),
        ledger=FatedLedger(fate, Topics.of(settings.kafka).interactive),
    )
    return 0


if __name__ == "__main__":
    end_process(run_service("worker", lambda: main(*sys.argv[1:])))
