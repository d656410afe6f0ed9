"""Quotas that several processes share in Redis; where that does not answer, each has its own."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from pairscore.guard import CallStats, State, Unavailable
from pairscore.guard.breaker import Breaker
from producer.api.client import Client, Limits
from producer.api.quotas.account import charge
from producer.api.quotas.accounts_in_redis import AccountsInRedis
from producer.api.quotas.local import LocalQuotas
from producer.api.quotas.verdict import Verdict, judge

TAKE: Final = "take"
GIVE_BACK: Final = "give_back"
PROBE_SECONDS: Final = 1.0
_FAILURES: Final = 2
_LEAST_REST: Final = 1.0
_MOST_REST: Final = 30.0
_NONE: Final = Limits()
_log = logging.getLogger(__name__)
T = TypeVar("T")


class SharedQuotas:
    """Asks Redis, and waits for that for `seconds` at most; else asks `local`.

    What Redis grants is written down in `local` too, so that a client does not begin anew where
    Redis goes away; what is taken while it is away it never learns of. Where calls fail, no more
    are made until a probe that nobody waits for went well. `stats` say what came of asking.
    """

    def __init__(
        self,
        accounts: AccountsInRedis,
        local: LocalQuotas,
        *,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stats: Final = CallStats()
        self._accounts = accounts
        self._local = local
        self._seconds = seconds
        self._clock = clock
        self._breaker = Breaker(failures=_FAILURES, least=_LEAST_REST, most=_MOST_REST)
        self._probe: asyncio.Task[None] | None = None

    async def take(self, client: Client, requests: int = 1, rows: int = 0) -> Verdict:
        """See `Quotas.take`."""
        if client.limits == _NONE:
            return Verdict(allowed=True)
        wanted = charge(client.limits, requests, rows)
        answer = await self._ask(TAKE, lambda: self._accounts.take(client.name, wanted))
        if answer is None:
            return await self._local.take(client, requests, rows)
        allowed, account = answer
        if allowed:
            self._local.record(client, requests, rows)
        return judge(client.limits, wanted, account, allowed=allowed)

    async def give_back(self, client: Client, rows: int) -> None:
        """See `Quotas.give_back`."""
        if client.limits == _NONE:
            return
        await self._local.give_back(client, rows)
        taken = charge(client.limits, 0, rows)
        await self._ask(GIVE_BACK, lambda: self._accounts.give_back(client.name, taken))

    async def close(self) -> None:
        """Close the connections, and give a probe up."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait([self._probe])
        with suppress(Unavailable):
            await self._accounts.close()

    async def _ask(self, call: str, ask: Callable[[], Awaitable[T]]) -> T | None:
        if not self._available():
            self.stats.skipped(call, 1)
            return None
        started = self._clock()
        try:
            async with asyncio.timeout(self._seconds):
                answer = await ask()
        except TimeoutError:
            self._failed(call, f"no answer within {self._seconds * 1000:.0f} ms")
            return None
        except Unavailable as error:
            self._failed(call, str(error))
            return None
        # Whatever it is, the client is answered; what is unforeseen is a defect, and said.
        except Exception as error:  # noqa: BLE001
            _log.exception("Redis (quotas): a defect")
            self._failed(call, repr(error))
            return None
        if self._breaker.succeeded():
            _log.info("Redis (quotas) answers again")
        self.stats.answered(call, 1, self._clock() - started)
        return answer

    def _available(self) -> bool:
        """Whether it is worth asking; begins a probe where it is time for one."""
        state = self._breaker.state(self._clock())
        self.stats.state = state
        if state is State.HALF_OPEN:
            self._breaker.probe()
            self._probe = asyncio.create_task(self._try_out())
        return state is State.CLOSED

    def _failed(self, call: str, why: str) -> None:
        self.stats.failed(call)
        if self._breaker.failed(self._clock()):
            _log.warning(
                "Redis (quotas) is done without until it answers again, each process has quotas "
                "of its own: %s",
                why,
            )
        else:
            _log.debug("Redis (quotas): %s", why)

    async def _try_out(self) -> None:
        well = False
        try:
            with suppress(TimeoutError, Unavailable):
                async with asyncio.timeout(PROBE_SECONDS):
                    await self._accounts.ping()
                well = True
        finally:
            if well:
                self._breaker.probed()
            else:
                self._breaker.failed(self._clock())
