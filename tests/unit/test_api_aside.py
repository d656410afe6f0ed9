"""What takes long does not hold up the event loop, and what is short does not leave it."""

import asyncio
import gc
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest
from pydantic import BaseModel

from producer.api.aside import LARGE_BYTES, Aside
from producer.api.posting import _lines_of, _pairs_of
from producer.api.problems import Kind, ProblemError
from producer.api.routes.bigquery import BigQueryRequest
from producer.api.routes.snowflake import SnowflakeRequest
from producer.api.schemas import JobRequest

WITHIN = 20.0
ROWS = 100_000
BODIES: dict[type[BaseModel], object] = {
    JobRequest: {"pairs": [{"url": f"http://e.org/{n}", "caption": "c"} for n in range(ROWS)]},
    BigQueryRequest: {"requestId": "1", "calls": [[f"http://e.org/{n}", "c"] for n in range(ROWS)]},
    SnowflakeRequest: {"data": [[n, f"http://e.org/{n}", "c"] for n in range(ROWS)]},
}
said: ContextVar[str] = ContextVar("said")


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Who wants the interpreter asks for it at once, however little there is to be done."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    gc.disable()  # it may call Python, too, where a tool has asked for that
    yield
    gc.enable()
    sys.setswitchinterval(before)


def where() -> tuple[threading.Thread, str]:
    return threading.current_thread(), said.get()


def test_only_large_bodies_leave_the_loop_and_take_its_context_along():
    async def work() -> None:
        said.set("r17")
        aside = Aside()
        here = threading.current_thread()
        assert await aside.run(LARGE_BYTES, where) == (here, "r17")
        thread, context = await aside.run(LARGE_BYTES + 1, where)
        assert thread is not here
        assert context == "r17"

    asyncio.run(work())


@pytest.mark.parametrize("size", [1, LARGE_BYTES + 1])
def test_what_is_wrong_is_raised(size):
    def refuse() -> None:
        raise ProblemError(Kind.INVALID, "row 3: no", row=3)

    with pytest.raises(ProblemError, match="row 3: no") as caught:
        asyncio.run(Aside().run(size, refuse))
    assert caught.value.row == 3


def test_who_is_cancelled_does_not_wait_for_the_work():
    begun, go = threading.Event(), threading.Event()

    def hang() -> bool:
        begun.set()
        return go.wait(WITHIN)

    async def work() -> None:
        aside = Aside()
        running = asyncio.create_task(aside.run(LARGE_BYTES + 1, hang))
        assert await asyncio.to_thread(begun.wait, WITHIN)
        running.cancel()
        try:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(running, WITHIN / 2)
            assert await aside.run(LARGE_BYTES + 1, lambda: 17) == 17
        finally:
            go.set()

    asyncio.run(work())


def test_few_are_worked_on_at_once():
    lock, at_once, most = threading.Lock(), 0, 0

    def count() -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.002)
        with lock:
            at_once -= 1

    async def work() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))
        aside = Aside()
        await asyncio.gather(*[aside.run(LARGE_BYTES + 1, count) for _ in range(100)])

    asyncio.run(work())
    assert 1 < most <= 8


@pytest.mark.usefixtures("quick_switches")
@pytest.mark.parametrize("model", BODIES, ids=[model.__name__ for model in BODIES])
def test_others_have_their_turn_while_a_large_body_is_read(model):
    raw = json.dumps(BODIES[model]).encode()
    turns = 0

    def read() -> int:
        before = turns
        model.model_validate_json(raw)
        return turns - before

    async def work() -> int:
        nonlocal turns
        reading = asyncio.create_task(Aside().run(len(raw), read))
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        return await reading

    # Without a word of Python in between there is one before it, and one after it.
    assert asyncio.run(work()) > 10


def test_pairs_are_as_they_were_sent_and_a_row_that_is_wrong_is_named():
    odd = [("http://e.org/1", 'a "cat"\n'), ("http://e.org/\u00e9", "\U0001f408"), ("", "")]
    body = json.dumps({"pairs": [{"caption": c, "url": u} for u, c in odd]}).encode()
    pairs = _pairs_of(body, 1_000)
    assert pairs == odd
    lines = _lines_of(pairs).splitlines()
    assert lines[0] == b'{"url":"http://e.org/1","caption":"a \\"cat\\"\\n"}'
    assert lines[1] == '{"url":"http://e.org/\u00e9","caption":"\U0001f408"}'.encode()
    with pytest.raises(ProblemError) as caught:
        _pairs_of(json.dumps({"pairs": [{"url": "u", "caption": "c" * 1_000}]}).encode(), 1_000)
    assert (caught.value.kind, caught.value.row) == (Kind.INVALID, 0)
