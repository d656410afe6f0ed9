"""The budgets of all hosts, as the fetcher sees them; and those of one process alone."""

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

from pairscore.politeness.budget import SECOND, Grant, HostBudget, Question
from pairscore.politeness.limits import HostLimits

Later: TypeAlias = Callable[[Sequence[tuple[Question, Grant]]], None]
_ME: Final = "me"
_SWEPT: Final = 10_000


class Budgets(Protocol):
    """Answers for hosts; belongs to one thread."""

    def ask(self, questions: Sequence[Question], later: Later) -> Sequence[Grant] | None:
        """The answers in order, or None if `later` is called with them, by another thread."""
        ...

    def close(self) -> None:
        """Let go of what it holds; no answer comes after that."""
        ...


class LocalBudgets:
    """Budgets of one process, which answers at once. `workers` is how many there are of it."""

    def __init__(
        self, limits: HostLimits, *, lease: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`lease` is for how many seconds a request may be in flight."""
        self._limits = limits
        self._lease = round(lease * SECOND)
        self._clock = clock
        self._hosts: dict[str, HostBudget] = {}
        self._sweep_at = _SWEPT
        self.workers = 1

    def ask(self, questions: Sequence[Question], _later: Later | None = None) -> list[Grant]:
        """The answers, in order."""
        return self._ask(questions, 1)

    def ask_share(self, questions: Sequence[Question]) -> list[Grant]:
        """The answers, in order, for one of the workers who cannot ask one another."""
        return self._ask(questions, self.workers)

    def close(self) -> None:
        """Nothing is held."""

    def _ask(self, questions: Sequence[Question], workers: int) -> list[Grant]:
        now = round(self._clock() * SECOND)
        answers = [self._answer(question, now, workers) for question in questions]
        if len(self._hosts) > self._sweep_at:
            self._sweep(now)
        return answers

    def _answer(self, question: Question, now: int, workers: int) -> Grant:
        host = self._hosts.get(question.host)
        if host is None:
            host = self._hosts[question.host] = HostBudget()
        budget = self._limits.of(question.host)
        if workers > 1:
            budget = budget.share(workers)
        return host.ask(
            question,
            worker=_ME,
            now=now,
            interval=max(budget.interval, question.delay),
            connections=budget.connections,
            lease=self._lease,
        )

    def _sweep(self, now: int) -> None:
        # A crawl meets millions of hosts; those at rest are forgotten.
        self._hosts = {name: host for name, host in self._hosts.items() if not host.rests(now)}
        self._sweep_at = max(_SWEPT, 2 * len(self._hosts))
