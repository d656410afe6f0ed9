"""Turns of uploads: no client has them all."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from producer.api.problems import ProblemError
from producer.api.turns import Turns


class Uploads:
    """Notes whose turn it is, until they are told to end."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.at_it: list[str | None] = []
        self.over = asyncio.Event()

    async def upload(self, client: str | None) -> None:
        async with self.turns.receiving(client), self.turns.turn(client):
            self.at_it.append(client)
            await self.over.wait()

    async def begin(self, group: asyncio.TaskGroup, *clients: str | None) -> list[str | None]:
        for client in clients:
            group.create_task(self.upload(client))
        for _ in range(10):
            await asyncio.sleep(0)
        return self.at_it


@pytest.mark.parametrize(
    ("at_once", "clients", "expected"),
    [
        (4, "aaaab", "aab"),
        (4, "aaabbbc", "aabb"),
        (1, "aab", "a"),
        (3, "aaa", "aa"),
        (3, [None] * 5, [None] * 3),
    ],
)
def test_a_client_has_half_of_the_turns_at_most(at_once, clients, expected):
    async def main() -> None:
        uploads = Uploads(Turns(at_once, 100))
        async with asyncio.TaskGroup() as group:
            assert await uploads.begin(group, *clients) == list(expected)
            uploads.over.set()
        assert sorted(map(str, uploads.at_it)) == sorted(map(str, clients))

    asyncio.run(main())


def test_a_client_has_so_many_bodies_and_is_forgotten_when_they_are_done():
    async def main() -> None:
        turns = Turns(4, 2)
        async with AsyncExitStack() as stack:
            for client in ("a", "a", "b", None, None, None):
                await stack.enter_async_context(turns.receiving(client))
            with pytest.raises(ProblemError, match="2 uploads of yours are under way"):
                await stack.enter_async_context(turns.receiving("a"))
        async with turns.receiving("a"):
            pass
        assert not turns._clients

    asyncio.run(main())
