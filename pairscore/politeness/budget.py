"""The budget of one host: who may ask it when, by a state that several workers share.

Pure: integers in, integers out, all times are microseconds. `script.lua` is the same for Redis, and
tests hold the two together. The rate is kept by the generic cell rate algorithm (ITU-T I.371, 1996,
annex A), the breaker is M. Nygard's ("Release It!", 2007, chapter 5.2).
"""

from dataclasses import dataclass, field
from typing import Final

SECOND: Final = 1_000_000
AHEAD: Final = SECOND
"""How far ahead requests are granted, so that a host that is asked all the time needs few asks."""

BURST: Final = SECOND // 4
"""A host that was not asked for so long may be asked at once as often as in that time."""

WAITING: Final = 5 * SECOND
"""Who asked that long ago, and in vain, is not taken to be waiting any more."""

LONGEST: Final = 86_400 * SECOND
"""No host is left alone for longer than that without being asked again."""

TURN: Final = SECOND // 2
"""Who was given something so much later than one who has nothing lets that one go first."""

POLL: Final = SECOND // 20
FAILURES: Final = 5
LEAST_PAUSE: Final = 10 * SECOND
MOST_PAUSE: Final = 600 * SECOND


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a host's budget, and told to it.

    `wanted` requests are to begin, `in_flight` (None: nothing is said of that) have not ended.
    `failures` are connections that failed since the last time, `answered` says that there was an
    answer too; `close` is for how many microseconds the host asked to be left alone, `delay` is how
    many it wants between two requests, where its limit says less.
    """

    host: str
    wanted: int = 0
    in_flight: int | None = None
    failures: int = 0
    answered: bool = False
    close: int = 0
    delay: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """What a host may be asked: `permits` requests, `first` from now on, `interval` apart.

    `first` may be past. Asking again is of use after `again`, 0 if nothing was wanted in vain. The
    host is left alone for `closed`, because it asked for that or, if `unreachable`, because it
    does not answer. `troubled` says that it is of interest whether it answers.
    """

    permits: int = 0
    first: int = 0
    interval: int = 0
    again: int = 0
    closed: int = 0
    unreachable: bool = False
    troubled: bool = False


@dataclass(slots=True)
class Share:
    """One worker's part: connections that it may have, when it last got one, and when it asked."""

    held: int
    wants: bool
    granted: int
    seen: int


@dataclass(slots=True)
class HostBudget:
    """The state of one host.

    `due` is when the next request is to begin. The host is left alone until `closed_until`. After
    `failures` in a row, the last one at `failed_at`, it is unreachable until `reopens` (0 if it is
    not); then `prober` sends one request, which is given up at `probe_until`. The next time it is
    another worker's turn than `failed_by`'s, if there is one: the network of one may be at fault.
    """

    due: int = 0
    closed_until: int = 0
    failures: int = 0
    failed_at: int = 0
    reopens: int = 0
    pause: int = 0
    probe_until: int = 0
    prober: str = ""
    failed_by: str = ""
    shares: dict[str, Share] = field(default_factory=dict)

    def ask(
        self,
        question: Question,
        *,
        worker: str,
        now: int,
        interval: int,
        connections: int,
        lease: int,
    ) -> Grant:
        """Answer a worker.

        Args:
            question: what it wants and has to tell.
            worker: its name.
            now: the time, the same clock for all.
            interval: between requests, 0 for none.
            connections: how many there may be at once.
            lease: how long a connection lasts whose worker is not heard of.
        """
        self._hear(question, worker, now)
        self.shares = {
            name: share
            for name, share in self.shares.items()
            if share.seen <= now < share.seen + lease
        }
        troubled = self.failures > 0 or self.reopens > 0
        if question.in_flight is None:
            return Grant(troubled=troubled)
        mine = self._tell(worker, question, question.in_flight, now)
        if question.wanted == 0:
            return Grant(troubled=troubled)
        if self.closed_until > now:
            return Grant(closed=self.closed_until - now, troubled=troubled)
        if self.reopens:
            return self._probe(mine, worker, question.in_flight, now, lease)
        return self._grant(mine, worker, question, now, interval, connections, troubled)

    def rests(self, now: int) -> bool:
        """Whether there is nothing to remember of it."""
        failed = self.failed_at + 2 * MOST_PAUSE if self.failures else 0
        return not self.shares and max(self.due + BURST, self.closed_until, failed) < now

    def _hear(self, question: Question, worker: str, now: int) -> None:
        if question.failures:
            self.failed_at = now
        if question.failures and not self.reopens:
            self.failures += question.failures
            if self.failures >= FAILURES:
                self.pause, self.reopens = LEAST_PAUSE, now + LEAST_PAUSE
        elif question.failures and self.prober == worker:
            self.pause = min(2 * self.pause, MOST_PAUSE)
            self.reopens, self.prober, self.probe_until = now + self.pause, "", 0
            self.failed_by = worker
        if question.answered:
            self.failures = self.reopens = self.pause = self.probe_until = 0
            self.prober = self.failed_by = ""
        if question.close:
            self.closed_until = max(self.closed_until, now + min(question.close, LONGEST))

    def _tell(self, worker: str, question: Question, in_flight: int, now: int) -> Share:
        mine = self.shares.pop(worker, None) or Share(0, wants=False, granted=0, seen=now)
        mine.held, mine.wants, mine.seen = in_flight, question.wanted > 0, now
        if mine.held or mine.wants:
            self.shares[worker] = mine
        return mine

    def _probe(self, mine: Share, worker: str, in_flight: int, now: int, lease: int) -> Grant:
        if self.reopens > now:
            return Grant(closed=self.reopens - now, unreachable=True, troubled=True)
        others = self.prober not in ("", worker) and self.probe_until > now
        own = self.prober == worker and self.probe_until > now and in_flight > 0
        if others or own or (self.failed_by == worker and self._waiting(worker, now)):
            return Grant(again=SECOND, troubled=True)
        self.prober, self.probe_until = worker, now + lease
        mine.held, mine.granted = in_flight + 1, now
        return Grant(permits=1, again=SECOND, troubled=True)

    def _grant(
        self,
        mine: Share,
        worker: str,
        question: Question,
        now: int,
        interval: int,
        connections: int,
        troubled: bool,
    ) -> Grant:
        in_flight = mine.held
        others = [share for name, share in self.shares.items() if name != worker]
        waiting = self._waiting(worker, now)
        # Where there are more workers than connections, those go first that waited for longer.
        ahead = sum(each.held == 0 and each.granted + TURN < mine.granted for each in waiting)
        free = connections - sum(each.held for each in others) - in_flight - ahead
        fair = max(1, connections // (1 + len(waiting))) - in_flight
        permits = max(0, min(question.wanted, free, fair))
        first = 0
        again = POLL * (1 + len(waiting)) if others else SECOND
        if interval and permits:
            burst = max(1, BURST // interval)
            due = max(self.due, now - (burst - 1) * interval)
            slots = (now + AHEAD - due) // interval + 1 if due <= now + AHEAD else 0
            permits = min(permits, slots)
            if permits == 0:
                again = due - now - AHEAD + interval
            first = due - now
            self.due = due + permits * interval
        if permits:
            mine.held, mine.granted = in_flight + permits, now
        again = again if permits < question.wanted else 0
        return Grant(permits, first, interval, again, troubled=troubled)

    def _waiting(self, worker: str, now: int) -> list[Share]:
        """Those of other workers that want something."""
        return [
            share
            for name, share in self.shares.items()
            if name != worker and share.wants and share.seen + WAITING > now
        ]
