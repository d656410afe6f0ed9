"""Turns of uploads: no client has them all."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from starlette.requests import ClientDisconnect

from producer.api import turns
from producer.api.problems import ProblemError


async def never() -> None:
    await asyncio.Event().wait()


class Uploads:
    """Notes whose turn it is, until they are told to end."""

    def __init__(self, own: turns.Turns) -> None:
        self.turns = own
        self.at_it: list[str | None] = []
        self.over = asyncio.Event()

    async def upload(self, client: str | None) -> None:
        async with self.turns.receiving(client), self.turns.turn(client, never):
            self.at_it.append(client)
            await self.over.wait()

    async def begin(self, group: asyncio.TaskGroup, *clients: str | None) -> list[str | None]:
        for client in clients:
            group.create_task(self.upload(client))
        for _ in range(20):
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
        uploads = Uploads(turns.Turns(at_once, 100))
        async with asyncio.TaskGroup() as group:
            assert await uploads.begin(group, *clients) == list(expected)
            uploads.over.set()
        assert sorted(map(str, uploads.at_it)) == sorted(map(str, clients))

    asyncio.run(main())


def test_a_client_has_so_many_bodies_and_is_forgotten_when_they_are_done():
    async def main() -> None:
        own = turns.Turns(4, 2)
        async with AsyncExitStack() as stack:
            for client in ("a", "a", "b", None, None, None):
                await stack.enter_async_context(own.receiving(client))
            with pytest.raises(ProblemError, match="2 uploads of yours are under way"):
                await stack.enter_async_context(own.receiving("a"))
        async with own.receiving("a"):
            pass
        assert not own._clients

    asyncio.run(main())


@pytest.mark.parametrize("others", ["bb", "ab"])
def test_who_is_gone_has_no_turn_and_takes_none_from_others(others):
    async def main() -> None:
        uploads = Uploads(turns.Turns(1, 100))
        gone = asyncio.Event()

        async def is_gone() -> None:
            await gone.wait()

        async def leave() -> None:
            async with uploads.turns.receiving("a"), uploads.turns.turn("a", is_gone):
                raise AssertionError("a turn")

        async with asyncio.TaskGroup() as group:
            await uploads.begin(group, others[0])
            leaving = asyncio.ensure_future(leave())
            await uploads.begin(group, others[1])
            gone.set()
            with pytest.raises(ClientDisconnect):
                await leaving
            assert uploads.at_it == [others[0]]
            uploads.over.set()
        assert uploads.at_it == list(others)
        assert not uploads.turns._clients

    asyncio.run(main())
