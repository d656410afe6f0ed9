"""Whose upload is next: several are at it at once, and no client keeps the others from it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from producer.api.problems import Kind, ProblemError

_AGAIN_SECONDS: Final = 5


@dataclass(slots=True)
class _Own:
    turns: asyncio.Semaphore
    bodies: int = 0


class Turns:
    """`receiving` a body -> `turn`, to check and publish it. Belongs to one event loop.

    `at_once` have their turn, of one client half of them; the others wait, first come, first
    served. A client has `most` bodies here. Where there are no clients, all is everybody's.
    """

    def __init__(self, at_once: int, most: int) -> None:
        self._all = asyncio.Semaphore(at_once)
        self._half = -(-at_once // 2)
        self._most = most
        self._clients: dict[str, _Own] = {}

    @asynccontextmanager
    async def receiving(self, client: str | None) -> AsyncIterator[None]:
        """Take part with a body of a client's until the end of the block.

        Raises:
            ProblemError: it has as many as it may have.
        """
        if client is None:
            yield
            return
        own = self._clients.setdefault(client, _Own(asyncio.Semaphore(self._half)))
        if own.bodies >= self._most:
            raise ProblemError(
                Kind.TOO_MANY,
                f"{self._most} uploads of yours are under way, as many as may be at once; send "
                "this one again once another is done",
                headers={"Retry-After": str(_AGAIN_SECONDS), "Connection": "close"},
            )
        own.bodies += 1
        try:
            yield
        finally:
            own.bodies -= 1
            if not own.bodies:
                del self._clients[client]

    @asynccontextmanager
    async def turn(self, client: str | None) -> AsyncIterator[None]:
        """Wait for the turn of a body that was received."""
        if client is None:
            async with self._all:
                yield
            return
        async with self._clients[client].turns, self._all:
            yield
