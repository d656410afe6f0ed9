"""The accounts of clients in Redis, by one script that nothing comes between."""

from importlib.resources import files
from typing import Any, Final

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from pairscore.errors import SettingsError
from pairscore.guard import Unavailable
from pairscore.guard.redis_link import Script, faults, listed
from producer.api.quotas.account import Account, Charge

# Not that of the cache, which may be cleared without quotas being forgotten.
QUOTA: Final = "pairscore.quota:"
_CONNECTIONS: Final = 8


class AccountsInRedis:
    """Asks Redis; belongs to one event loop. All raise `guard.Unavailable`.

    A call that is cancelled closes its connection, so that no answer is taken for another's.
    """

    def __init__(self, url: str, *, seconds: float) -> None:
        """`seconds` is the longest silence; the caller has a deadline of its own.

        Raises:
            SettingsError: `url` cannot be one of a Redis.
        """
        text = files("producer.api.quotas").joinpath("script.lua").read_text("utf-8")
        self._script = Script(text)
        try:
            pool: Any = redis.asyncio.BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=seconds,
                socket_timeout=seconds,
                socket_connect_timeout=seconds,
                # What cannot be had at once is done without.
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
        except ValueError as error:  # which does not quote the URL: a password may be in it
            raise SettingsError(f"setting PAIRSCORE_REDIS__URL: {error}") from None
        self._client: Any = redis.asyncio.Redis.from_pool(pool)

    async def take(self, name: str, wanted: Charge, now: int = 0) -> tuple[bool, Account]:
        """Take from a client's account; `now` (microseconds) for another clock than Redis's.

        Returns:
            Whether it was taken, and the account after that.
        """
        return await self._run(name, wanted, now, give_back=False)

    async def give_back(self, name: str, taken: Charge, now: int = 0) -> Account:
        """Give back to a client's account; the account after that."""
        _, account = await self._run(name, taken, now, give_back=True)
        return account

    async def ping(self) -> None:
        """See whether it answers."""
        with faults():
            await self._client.ping()

    async def close(self) -> None:
        """Close the connections."""
        with faults():
            await self._client.aclose()

    async def _run(
        self, name: str, amount: Charge, now: int, *, give_back: bool
    ) -> tuple[bool, Account]:
        arguments = (
            1,
            QUOTA + name,
            int(give_back),
            amount.requests,
            amount.requests_depth,
            amount.rows,
            amount.rows_depth,
            amount.rows_today,
            amount.rows_per_day,
            now,
        )
        with faults():
            try:
                answer = await self._client.execute_command(
                    "EVALSHA", self._script.sha1, *arguments
                )
            except NoScriptError:
                answer = await self._client.execute_command("EVAL", self._script.text, *arguments)
        return _account(answer)


def _account(answer: object) -> tuple[bool, Account]:
    numbers = [each for each in listed(answer, 6) if isinstance(each, int)]
    if len(numbers) != 6:
        raise Unavailable(f"Redis answers {answer!r:.80}")
    taken, at, requests, rows, day, rows_today = numbers
    return taken == 1, Account(at, requests, rows, day, rows_today)
