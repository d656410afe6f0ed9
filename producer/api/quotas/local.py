"""The quotas as the API sees them; and those of one process alone."""

import time
from collections.abc import Callable
from typing import Protocol

from producer.api.client import Client
from producer.api.quotas.account import SECOND, Account, charge
from producer.api.quotas.verdict import Verdict, judge


class Quotas(Protocol):
    """Takes from what clients may ask. Belongs to one event loop; never holds it up."""

    async def take(self, client: Client, requests: int = 1, rows: int = 0) -> Verdict:
        """Take so many requests and rows of a client's quotas: all of it, or nothing.

        Rows that do not fit at once are taken all the same if they are more than ever would, and
        the client is in no debt; then it is in debt, and waits until that is paid.
        """
        ...

    async def give_back(self, client: Client, rows: int) -> None:
        """Give back rows that were taken and then not accepted."""
        ...

    async def close(self) -> None:
        """Let go of what is held."""
        ...


class LocalQuotas:
    """Quotas of one process, which answers at once."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since the epoch."""
        self._clock = clock
        self._accounts: dict[str, Account] = {}

    async def take(self, client: Client, requests: int = 1, rows: int = 0) -> Verdict:
        """See `Quotas.take`."""
        return self._take(client, requests, rows, force=False)

    def record(self, client: Client, requests: int, rows: int) -> None:
        """Take what has been granted elsewhere, be it more than there is."""
        self._take(client, requests, rows, force=True)

    async def give_back(self, client: Client, rows: int) -> None:
        """See `Quotas.give_back`."""
        self._account(client).give_back(charge(client.limits, 0, rows), self._now())

    async def close(self) -> None:
        """Nothing is held."""

    def _take(self, client: Client, requests: int, rows: int, *, force: bool) -> Verdict:
        account, wanted = self._account(client), charge(client.limits, requests, rows)
        allowed = account.take(wanted, self._now(), force=force)
        return judge(client.limits, wanted, account, allowed=allowed or force)

    def _account(self, client: Client) -> Account:
        # As many as there are clients in the file of keys, so that none has to be forgotten.
        return self._accounts.setdefault(client.name, Account())

    def _now(self) -> int:
        return round(self._clock() * SECOND)
