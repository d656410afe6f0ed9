"""Work on large bodies: beside the event loop, and so that others have their turn meanwhile.

A thread is not enough for that. A call that does not come back to Python holds the interpreter
until it returns, in whatever thread it is, and so does pydantic through all of a body.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from pydantic import AfterValidator

LARGE_BYTES: Final = 64_000
"""What is longer is worth a thread; for others it would cost more than the work."""

# They take turns at the interpreter: more of them would need more memory, and be no faster.
_AT_ONCE: Final = 8

T = TypeVar("T")


class Aside:
    """Does such work; belongs to the event loop."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def run(self, size: int, work: Callable[[], T]) -> T:
        """What some work on so many bytes gives, or raises; in a thread where they are many.

        It has the context of the caller. Who is cancelled does not wait for its end.
        """
        if size <= LARGE_BYTES:
            return work()
        async with self._turns:
            return await asyncio.to_thread(work)


def _let_by(value: T) -> T:
    return value


LETS_BY: Final = AfterValidator(_let_by)
"""On each of many items in a body: calling Python lets another thread have the interpreter."""
