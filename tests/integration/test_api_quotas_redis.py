"""Quotas that several processes share in a real Redis, and what they do when it fails them."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deploy import local
from deploy.local.ports import free_ports
from pairscore.errors import SettingsError
from pairscore.guard import State, Unavailable
from pairscore.guard.redis_link import Script
from producer.api.client import Limits
from producer.api.quotas import LocalQuotas, open_quotas
from producer.api.quotas.account import DAY, SECOND, Account, charge
from producer.api.quotas.accounts_in_redis import QUOTA, AccountsInRedis
from producer.api.quotas.shared import SharedQuotas
from tests.api_clients import a_client

DEADLINE = 20.0


@pytest.fixture(scope="module")
def url(redis_service: local.Redis) -> str:
    return redis_service.url


@contextlib.asynccontextmanager
async def shared(url: str, seconds: float = 5.0) -> AsyncIterator[SharedQuotas]:
    quotas = open_quotas(url, seconds)
    assert isinstance(quotas, SharedQuotas)
    try:
        yield quotas
    finally:
        await quotas.close()


@contextlib.asynccontextmanager
async def accounts(url: str) -> AsyncIterator[AccountsInRedis]:
    some = AccountsInRedis(url, seconds=5.0)
    try:
        yield some
    finally:
        await some.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await condition():  # noqa: ASYNC110 (Redis sends no event)
            await asyncio.sleep(0.02)


rates = st.sampled_from([0.0, 0.001, 0.3, 1.0, 7.0, 333.0, 1e6])
steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "give back"]),
        st.integers(0, 12),
        st.integers(0, 30) | st.sampled_from([500, 1_000, 1_001, 5_000, 10**9]),
        st.sampled_from([0, 1, 12_345, SECOND, 100 * SECOND, DAY, -SECOND]),
        # Limits that are changed in between.
        st.builds(Limits, rates, rates, st.sampled_from([0, 50, 5_000, 10**12])),
    ),
    max_size=20,
)


@hypothesis_settings(deadline=None, max_examples=100)
@given(steps)
def test_the_script_does_what_the_model_does(url, steps):
    async def compare() -> None:
        name, model = a_client().name, Account()
        now = 1_764_000_000_000_000
        async with accounts(url) as some:
            for what, requests, rows, passed, limits in steps:
                now += passed
                wanted = charge(limits, requests, rows)
                if what == "give back":
                    model.give_back(wanted, now)
                    assert await some.give_back(name, wanted, now) == model
                else:
                    expected = model.take(wanted, now)
                    assert await some.take(name, wanted, now) == (expected, model)

    asyncio.run(compare())


garbage = st.binary(max_size=30) | st.sampled_from(
    [b"inf", b"nan", b"-5", b"1e300", b"9" * 40, b"9" * 15, b"9" * 16, b"0x10", b""]
)


@hypothesis_settings(deadline=None, max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(["at", "requests", "rows", "day", "rows_today", "what"]),
        garbage,
        min_size=1,
    )
)
def test_whatever_is_in_redis_a_client_may_call_again_some_time(url, lies):
    async def take() -> None:
        client = a_client(requests_per_second=1.0, rows_per_second=1.0, rows_per_day=10)
        with redis.Redis.from_url(url) as own:
            own.hset(QUOTA + client.name, mapping=lies)
        async with shared(url) as quotas:
            verdict = await quotas.take(client, 1, 1)
            assert quotas.stats.calls["take"] == 1
            assert verdict.allowed or (verdict.retry_after or 0) <= 1_001_000 + 86_400

    asyncio.run(take())


def test_a_key_of_another_type_is_as_if_there_were_none(url):
    async def take() -> None:
        client = a_client(rows_per_day=10)
        with redis.Redis.from_url(url) as own:
            own.set(QUOTA + client.name, "what")
        async with shared(url) as quotas:
            assert (await quotas.take(client, 1, 10)).allowed
            assert not (await quotas.take(client, 1, 1)).allowed
            assert quotas.stats.calls["take"] == 2

    asyncio.run(take())


def test_what_one_took_is_gone_for_the_others_and_comes_back_when_given_back(url):
    async def take() -> None:
        client = a_client(rows_per_second=1.0, rows_per_day=5_000)
        async with shared(url) as one, shared(url) as other:
            assert (await one.take(client, 1, 900)).allowed
            refused = await other.take(client, 1, 200)
            assert (refused.allowed, refused.which) == (False, "rows")
            assert 95 <= (refused.retry_after or 0) <= 100
            await one.give_back(client, 500)
            verdict = await other.take(client, 1, 200)
            assert verdict.allowed
            left = {each.name: each.remaining for each in verdict.standings}
            assert left == {"rows": pytest.approx(400, abs=5), "rows-per-day": 4_400}

    asyncio.run(take())


def test_of_many_that_ask_at_once_exactly_as_many_are_let_in_as_may_be(url):
    async def take() -> int:
        client = a_client(rows_per_day=60)
        async with shared(url) as one, shared(url) as other:
            verdicts = await asyncio.gather(
                *(quotas.take(client, 1, 1) for quotas in (one, other) for _ in range(100))
            )
            assert one.stats.errors["take"] == other.stats.errors["take"] == 0
        return sum(verdict.allowed for verdict in verdicts)

    assert asyncio.run(take()) == 60


_PROCESS = """
import asyncio, sys
from producer.api.client import Client, Limits
from producer.api.quotas import open_quotas

async def take(url, name):
    quotas = open_quotas(url, 5.0)
    client = Client(name, "k", Limits(rows_per_day=50))
    verdicts = [await quotas.take(client, 1, 1) for _ in range(40)]
    await quotas.close()
    print(sum(verdict.allowed for verdict in verdicts))

asyncio.run(take(*sys.argv[1:]))
"""


def test_processes_share_the_quotas_of_a_client(url):
    name = a_client().name
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, url, name], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    assert sum(int(process.communicate(timeout=60)[0]) for process in processes) == 50


def test_what_is_remembered_of_a_client_does_not_stay(url):
    async def take() -> None:
        client = a_client(requests_per_second=1.0, rows_per_second=1.0)
        key = QUOTA + client.name
        with redis.Redis.from_url(url) as own:
            async with shared(url) as quotas:
                await quotas.take(client, 1, 30)
                assert 25_000 < own.pttl(key) <= 31_001
                await quotas.give_back(client, 30)
                assert 0 < own.pttl(key) <= 2_001
                daily = a_client(rows_per_day=5)
                await quotas.take(daily, 1, 1)
                seconds = 86_400 - own.time()[0] % 86_400
                assert own.ttl(QUOTA + daily.name) == pytest.approx(seconds, abs=3)
                await quotas.give_back(daily, 1)
                assert not own.exists(QUOTA + daily.name)

    asyncio.run(take())


def test_a_redis_that_forgot_the_script_is_told_it(url):
    async def take() -> None:
        client = a_client(rows_per_day=10)
        async with shared(url) as quotas:
            await quotas.take(client, 1, 5)
            with redis.Redis.from_url(url) as own:
                own.script_flush()
            assert (await quotas.take(client, 1, 5)).allowed
            assert not (await quotas.take(client, 1, 1)).allowed
            assert quotas.stats.errors["take"] == 0

    asyncio.run(take())


def test_a_client_without_limits_costs_no_round_trip(url):
    async def take() -> None:
        async with shared(url) as quotas:
            assert (await quotas.take(a_client(), 1, 10**9)).allowed
            await quotas.give_back(a_client(), 5)
            assert quotas.stats.calls.total() == 0

    asyncio.run(take())


def test_a_call_that_was_given_up_leaves_no_answer_for_another(url):
    async def take() -> None:
        busy = a_client(rows_per_second=1e6)
        async with shared(url) as quotas:
            for number in range(60):
                task = asyncio.create_task(quotas.take(busy, 1, 1))
                for _ in range(number % 12):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                client = a_client(rows_per_day=7 + number)
                verdict = await quotas.take(client, 1, 1)
                assert (verdict.limit, verdict.remaining) == (7 + number, 6 + number)

    asyncio.run(take())


def full(service: local.NativeRedis, client: Any) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1")


def locked(service: local.NativeRedis, client: Any) -> None:
    client.config_set("requirepass", "secret")
    client.client_kill_filter(_type="normal", skipme=True)


def hanging(service: local.NativeRedis, client: Any) -> None:
    service.pause()


def gone(service: local.NativeRedis, client: Any) -> None:
    service.kill()


@pytest.mark.parametrize("fault", [full, locked, hanging, gone], ids=lambda each: each.__name__)
def test_whatever_redis_does_clients_are_answered_soon_and_keep_to_their_limits(restored, fault):
    async def take() -> None:
        client = a_client(rows_per_second=0.001)
        own = redis.Redis.from_url(restored.url)
        with own:
            async with shared(restored.url, 0.05) as quotas:
                await until(lambda: asked(quotas))
                assert (await quotas.take(client, 1, 900)).allowed
                fault(restored, own)
                started = time.monotonic()
                verdicts = [await quotas.take(client, 1, 1) for _ in range(150)]
                # Two failures, and then nobody is asked any more: not 150 times 50 ms.
                assert time.monotonic() - started < 3
                # 900 were taken while it was there, which this process has not forgotten.
                assert sum(verdict.allowed for verdict in verdicts) == 100
                assert quotas.stats.errors["take"] >= 2
                assert quotas.stats.left_out["take"] > 100
                assert (await quotas.take(a_client(rows_per_day=1), 1, 1)).allowed

    asyncio.run(take())


async def asked(quotas: SharedQuotas) -> bool:
    """Whether Redis answered one more question."""
    before = quotas.stats.calls["take"]
    await quotas.take(a_client(rows_per_day=1), 1, 1)
    return quotas.stats.calls["take"] > before


@pytest.mark.parametrize("fault", [hanging, gone], ids=lambda each: each.__name__)
def test_a_redis_that_comes_back_is_asked_again(restored, fault):
    async def take() -> None:
        client = a_client(rows_per_day=100)
        async with shared(restored.url, 0.3) as quotas:
            await until(lambda: asked(quotas))
            fault(restored, None)
            for _ in range(5):
                assert (await quotas.take(client, 1, 1)).allowed
            assert quotas.stats.state is State.OPEN
            if fault is gone:
                await asyncio.to_thread(restored.start)
            else:
                restored.resume()
            await until(lambda: asked(quotas))
            async with shared(restored.url) as other:
                await quotas.take(client, 1, 7)
                verdict = await other.take(client, 1, 1)
            # One that hung may have read what was asked of it, once it went on.
            assert verdict.remaining in ({90, 91, 92} if fault is hanging else {92})

    asyncio.run(take())


def test_other_work_goes_on_while_redis_does_not_answer(restored):
    async def take() -> None:
        async with shared(restored.url, 0.5) as quotas:
            restored.pause()
            task = asyncio.create_task(quotas.take(a_client(rows_per_day=1), 1, 1))
            turns = 0
            while not task.done():
                await asyncio.sleep(0.01)
                turns += 1
            assert (await task).allowed
            assert turns >= 10

    asyncio.run(take())


@pytest.mark.parametrize("login", [":wrong", "user:wrong"])
def test_a_wrong_password_is_done_without_and_not_logged(restored, login, caplog):
    async def take() -> None:
        with redis.Redis.from_url(restored.url) as own:
            own.config_set("requirepass", "secret")
        address = restored.url.replace("redis://", f"redis://{login}@")
        client = a_client(rows_per_day=5)
        async with shared(address, 0.5) as quotas:
            verdicts = [await quotas.take(client, 1, 1) for _ in range(6)]
            assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False]
            assert quotas.stats.errors["take"] == 2

    asyncio.run(take())
    assert "done without" in caplog.text
    assert "wrong" not in caplog.text.replace("WRONGPASS", "")


def test_a_redis_that_is_not_there_is_done_without():
    async def take() -> None:
        [port] = free_ports(1)
        client = a_client(rows_per_day=5)
        async with shared(f"redis://127.0.0.1:{port}/0", 0.05) as quotas:
            verdicts = [await quotas.take(client, 1, 1) for _ in range(6)]
            assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False]
            await quotas.give_back(client, 1)
            assert (await quotas.take(client, 1, 1)).allowed
            assert quotas.stats.calls.total() == 0

    asyncio.run(take())


@pytest.mark.parametrize("answer", ["{1, 2, 'three'}", "'what'", "{1,2,3,4,5,'6'}"])
def test_an_answer_of_another_shape_is_no_answer(url, answer):
    async def take() -> None:
        async with accounts(url) as some:
            some._script = Script(f"return {answer}")
            with pytest.raises(Unavailable, match="Redis answers"):
                await some.take("c", charge(Limits(rows_per_day=1), 1, 1))
            quotas = SharedQuotas(some, LocalQuotas(), seconds=5.0)
            assert (await quotas.take(a_client(rows_per_day=1), 1, 1)).allowed
            assert quotas.stats.errors["take"] == 1

    asyncio.run(take())


def test_a_url_that_is_none_of_a_redis_is_said():
    with pytest.raises(SettingsError, match="PAIRSCORE_REDIS__URL"):
        open_quotas("http://example.org", 0.05)
