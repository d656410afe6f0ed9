"""Whose upload is next: several are at it at once, and no client keeps the others from it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from starlette.requests import ClientDisconnect

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
    async def turn(
        self, client: str | None, gone: Callable[[], Coroutine[None, None, None]]
    ) -> AsyncIterator[None]:
        """Wait for the turn of a body that was received; `gone` returns when its sender is.

        Raises:
            ClientDisconnect: it was gone before.
        """
        own = () if client is None else (self._clients[client].turns,)
        async with AsyncExitStack() as stack:
            for turns in (*own, self._all):
                await _acquire(turns, gone)
                stack.callback(turns.release)
            yield


async def _acquire(
    turns: asyncio.Semaphore, gone: Callable[[], Coroutine[None, None, None]]
) -> None:
    if not turns.locked():
        await turns.acquire()  # at once
        return
    waiting, leaving = asyncio.create_task(turns.acquire()), asyncio.create_task(gone())
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect
    except BaseException:
        if not waiting.cancel():  # it has come by now
            turns.release()
        raise
    finally:
        leaving.cancel()
