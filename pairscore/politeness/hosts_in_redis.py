"""The budgets of hosts in Redis, and how many workers share them."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from pairscore.guard import Unavailable
from pairscore.guard.redis_link import Command, RedisLink, Script, listed
from pairscore.politeness.budget import SECOND, Grant, Question
from pairscore.politeness.limits import HostLimits

# Not those of the cache, which may be cleared without hosts being forgotten.
HOST: Final = "pairscore.host:"
WORKERS: Final = "pairscore.workers"
_WORKER_SECONDS: Final = 30


class HostsInRedis:
    """Asks Redis; belongs to one thread. Raises `guard.Unavailable`."""

    def __init__(
        self, url: str, limits: HostLimits, *, worker: str, lease: float, seconds: float
    ) -> None:
        """`lease` is for how long a request may be in flight, `seconds` the longest silence.

        Raises:
            SettingsError: `url` cannot be one of a Redis.
        """
        text = files("pairscore.politeness").joinpath("script.lua").read_text("utf-8")
        self._script = Script(text)
        self._link = RedisLink(url, seconds=seconds)
        self._limits = limits
        self._worker = worker
        self._lease = round(lease * SECOND)

    def ask(self, questions: Sequence[Question], *, now: int = 0) -> list[Grant]:
        """The answers in order, in one round trip; `now` (microseconds) for another clock."""
        answers = self._link.send([self._command(each, now) for each in questions], self._script)
        return [_grant(answer) for answer in answers]

    def count_workers(self) -> int:
        """Say that this one is there, and how many are."""
        (seconds, _), kind = self._link.send([("TIME",), ("TYPE", WORKERS)])
        now = int(seconds)
        wrong: list[Command] = [] if kind in (b"none", b"zset") else [("DEL", WORKERS)]
        answers = self._link.send(
            [
                *wrong,
                ("ZADD", WORKERS, now, self._worker),
                ("ZREMRANGEBYSCORE", WORKERS, 0, now - _WORKER_SECONDS),
                ("EXPIRE", WORKERS, _WORKER_SECONDS),
                ("ZCARD", WORKERS),
            ]
        )
        return max(1, int(answers[-1]))

    def leave(self) -> None:
        """Say that this one is not there any more."""
        self._link.send([("ZREM", WORKERS, self._worker)])

    def ping(self) -> None:
        """See whether it answers."""
        self._link.ping()

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def _command(self, question: Question, now: int) -> Command:
        budget = self._limits.of(question.host)
        return (
            "EVALSHA",
            self._script.sha1,
            1,
            HOST + question.host,
            self._worker,
            question.wanted,
            -1 if question.in_flight is None else question.in_flight,
            question.failures,
            int(question.answered),
            question.close,
            max(budget.interval, question.delay),
            budget.connections,
            self._lease,
            now,
        )


def _grant(answer: object) -> Grant:
    numbers = [each for each in listed(answer, 7) if isinstance(each, int)]
    if len(numbers) != 7:
        raise Unavailable(f"Redis answers {answer!r:.80}")
    permits, first, interval, again, closed, unreachable, troubled = numbers
    return Grant(permits, first, interval, again, closed, bool(unreachable), bool(troubled))
