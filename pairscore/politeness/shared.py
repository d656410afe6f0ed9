"""The budgets of a fleet, in Redis; where that does not answer, each worker keeps to its share."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import Empty
from typing import TYPE_CHECKING, Final

from pairscore.guard import CallStats, Guard
from pairscore.inbox import Inbox
from pairscore.politeness.budget import Grant, Question
from pairscore.politeness.budgets import Later, LocalBudgets

if TYPE_CHECKING:
    from pairscore.politeness.hosts_in_redis import HostsInRedis

ASK: Final = "ask"
_COUNT: Final = "count_workers"
_HEARTBEAT_SECONDS: Final = 5.0
_MOST_AT_ONCE: Final = 500
_CLOSE_SECONDS: Final = 2.0


class SharedBudgets:
    """Asks for a whole fleet, on a thread of its own.

    Where nobody answers, this process keeps to its share of each budget, by how many workers there
    were the last time; what it was told of hosts it knows itself. `stats` say what came of asking.
    """

    def __init__(
        self,
        hosts: "HostsInRedis",
        local: LocalBudgets,
        *,
        seconds: float,
        on_crash: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`seconds` is what one round trip may take."""
        self.stats: Final = CallStats()
        self._hosts = hosts
        self._local = local
        self._on_crash = on_crash
        self._clock = clock
        self._lock = threading.Lock()  # of `_local`
        self._inbox: Inbox[tuple[Sequence[Question], Later] | None] = Inbox()
        self._heartbeat = clock()
        self._closed = False
        self._guard = Guard(
            name="Redis (hosts)",
            seconds=seconds,
            probe=hosts.ping,
            close=hosts.close,
            stats=self.stats,
            clock=clock,
        )
        self._thread = threading.Thread(target=self._run, name="pairscore-hosts", daemon=True)
        self._thread.start()

    @property
    def workers(self) -> int:
        """How many workers there were when that was last known."""
        return self._local.workers

    def ask(self, questions: Sequence[Question], later: Later) -> list[Grant] | None:
        """The answers in order where nobody can be asked, else None: `later` gets them."""
        if not self._guard.available:
            with self._lock:
                return self._local.ask_share(questions)
        self._inbox.put((questions, later))
        return None

    def close(self) -> None:
        """Say goodbye and end the thread, within some seconds."""
        self._inbox.put(None)
        self._thread.join(_CLOSE_SECONDS)
        self._guard.close()

    def _run(self) -> None:
        try:
            while not self._closed:
                asked = self._next()
                if self._clock() >= self._heartbeat:
                    self._count_workers()
                if asked:
                    self._answer(asked)
            self._guard.ask(_COUNT, 1, self._leave)
        # The one place where a defect of this thread is turned into the end of the scorer.
        except BaseException as error:  # noqa: BLE001
            self._on_crash(error)

    def _next(self) -> list[tuple[Sequence[Question], Later]]:
        """What has been asked, as much of it as one round trip is good for; notes the end."""
        asked: list[tuple[Sequence[Question], Later]] = []
        size = 0
        try:
            each = self._inbox.get(timeout=max(0.0, self._heartbeat - self._clock()))
            while each is not None:
                asked.append(each)
                size += len(each[0])
                if size >= _MOST_AT_ONCE:
                    break
                each = self._inbox.get_nowait()
            self._closed = each is None
        except Empty:
            pass
        return asked

    def _answer(self, asked: Sequence[tuple[Sequence[Question], Later]]) -> None:
        questions = [question for some, _ in asked for question in some]
        grants = self._guard.ask(ASK, len(questions), lambda: self._hosts.ask(questions))
        with self._lock:
            if grants is None:
                grants = self._local.ask_share(questions)
            else:
                # A Redis that forgets hosts does not make this process forget them.
                own = self._local.ask(list(map(_of_own, questions, grants)))
                grants = list(map(_both, grants, own))
        answers = iter(grants)
        for some, later in asked:
            later([(question, next(answers)) for question in some])

    def _count_workers(self) -> None:
        self._heartbeat = self._clock() + _HEARTBEAT_SECONDS
        workers = self._guard.ask(_COUNT, 1, self._hosts.count_workers)
        if workers is not None:
            self._local.workers = workers

    def _leave(self) -> bool:
        self._hosts.leave()
        return True


def _of_own(question: Question, grant: Grant) -> Question:
    # Whether a host answers, all know better than one.
    return replace(question, wanted=grant.permits, failures=0, answered=not grant.troubled)


def _both(grant: Grant, own: Grant) -> Grant:
    """What both allow."""
    if not grant.permits or own.permits == grant.permits:
        return replace(grant, first=max(grant.first, own.first))
    return replace(
        grant,
        permits=own.permits,
        first=max(grant.first, own.first),
        again=max(grant.again, own.again),
        closed=own.closed,
        unreachable=own.unreachable,
    )
