"""Budgets that several processes share in a real Redis, and what they do when it fails them."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deploy import local
from deploy.local.ports import free_ports
from pairscore.guard import State, Unavailable
from pairscore.politeness.budget import FAILURES, SECOND, Grant, HostBudget, Question
from pairscore.politeness.budgets import LocalBudgets
from pairscore.politeness.hosts_in_redis import HOST, WORKERS, HostsInRedis
from pairscore.politeness.limits import Budget, HostLimit, HostLimits
from pairscore.politeness.shared import SharedBudgets
from tests.fetching import wait_until

LEASE = 20.0
LIMITS = HostLimits(Budget(20.0, 8))


def name() -> str:
    return f"{uuid.uuid4().hex}.example.org"


def hosts_of(
    url: str, limits: HostLimits = LIMITS, *, worker: str = "", seconds: float = 5.0
) -> HostsInRedis:
    return HostsInRedis(
        url, limits, worker=worker or uuid.uuid4().hex, lease=LEASE, seconds=seconds
    )


class Asking:
    """Budgets that are shared, whose answers a test can wait for."""

    def __init__(self, url: str, limits: HostLimits = LIMITS, *, seconds: float = 5.0) -> None:
        self.crashes: list[BaseException] = []
        self.local = LocalBudgets(limits, lease=LEASE)
        self.budgets = SharedBudgets(
            hosts_of(url, limits, seconds=seconds),
            self.local,
            seconds=5 * seconds,
            on_crash=self.crashes.append,
        )

    def ask(self, *questions: Question) -> list[Grant]:
        answers: list[Grant] = []
        there = threading.Event()

        def later(answered: Any) -> None:
            answers.extend(grant for _, grant in answered)
            there.set()

        now = self.budgets.ask(questions, later)
        if now is not None:
            return now
        assert there.wait(10)
        return answers


@contextmanager
def asking(*arguments: Any, **settings: Any) -> Iterator[Asking]:
    some = Asking(*arguments, **settings)
    try:
        yield some
    finally:
        some.budgets.close()
    assert some.crashes == []


@pytest.fixture
def url(redis_service: local.Redis) -> str:
    return redis_service.url


steps = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(0, 12),
        st.none() | st.integers(0, 9),
        st.integers(0, FAILURES),
        st.booleans(),
        st.sampled_from([0, 0, 0, 3 * SECOND, 10**14]),
        st.sampled_from([0, 0, SECOND, 60 * SECOND]),
        st.sampled_from([0, 1, 1_234, 50_000, 333_333, SECOND, 7 * SECOND, 60 * SECOND]),
    ),
    max_size=25,
)


# A worker that comes again after its share had expired.
@example(
    [
        ("b", 0, 1, 0, False, 0, 0, 0),
        ("b", 0, 1, 0, False, 0, 0, 60 * SECOND),
        ("a", 1, 0, 0, False, 0, 0, 0),
    ],
    0.0,
    1,
)
@hypothesis_settings(deadline=None, max_examples=150)
@given(steps, st.sampled_from([0.0, 0.3, 7.0, 20.0, 333.0]), st.integers(1, 9))
def test_the_script_does_what_the_model_does(redis_url, steps, rate, connections):
    limits, host, model = HostLimits(Budget(rate, connections)), name(), HostBudget()
    links = {worker: hosts_of(redis_url, limits, worker=worker) for worker in "abc"}
    now = 1_764_000_000_000_000
    try:
        for worker, wanted, in_flight, failures, answered, close, delay, passed in steps:
            now += passed
            question = Question(host, wanted, in_flight, failures, answered, close, delay)
            expected = model.ask(
                question,
                worker=worker,
                now=now,
                interval=max(limits.of(host).interval, delay),
                connections=connections,
                lease=round(LEASE * SECOND),
            )
            assert links[worker].ask([question], now=now) == [expected]
    finally:
        for link in links.values():
            link.close()


@pytest.fixture(scope="module")
def redis_url(redis_service: local.Redis) -> str:
    return redis_service.url


garbage = st.binary(max_size=30) | st.sampled_from(
    [b"inf", b"nan", b"-5", b"1e300", b"9" * 40, b"3 1 9999999999999999 1", b"0x10", b""]
)


@hypothesis_settings(deadline=None, max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(["due", "closed_until", "failures", "reopens", "probe_until", "prober"])
        | st.sampled_from(["w:a", "w:", "pause", "what"]),
        garbage,
        min_size=1,
    )
)
def test_whatever_is_in_redis_a_host_is_asked_again_some_time(redis_url, lies):
    host, link = name(), hosts_of(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.hset(HOST + host, mapping=lies)
    grant = link.ask([Question(host, 4, 0)])[0]
    assert grant.permits > 0 or max(grant.again, grant.closed) <= 86_400 * SECOND
    link.close()


def test_a_key_of_another_type_is_as_if_there_were_none(url):
    host, link = name(), hosts_of(url)
    with redis.Redis.from_url(url) as client:
        client.set(HOST + host, "what")
    assert link.ask([Question(host, 4, 0)])[0].permits == 4
    link.close()


def test_what_is_remembered_of_a_host_at_rest_does_not_stay(url):
    host, link = name(), hosts_of(url)
    key = HOST + host
    with redis.Redis.from_url(url) as client:
        link.ask([Question(host, 1, 0)])
        assert 0 < client.pttl(key) <= (LEASE + 2) * 1000
        link.ask([Question(host, 0, 0)])
        wait_until(lambda: not client.exists(key))
    link.close()


def test_a_host_closed_for_one_is_closed_for_all_at_once(url):
    host = name()
    with asking(url) as one, asking(url) as other:
        assert other.ask(Question(host, 1, 0))[0].permits == 1
        one.ask(Question(host, close=30 * SECOND))
        grant = other.ask(Question(host, 1, 1))[0]
        assert grant.permits == 0
        assert 29 * SECOND < grant.closed <= 30 * SECOND


def test_connections_are_those_of_all(url):
    host = name()
    limits = HostLimits(Budget(0.0, 8))
    with asking(url, limits) as one, asking(url, limits) as other:
        assert one.ask(Question(host, 20, 0))[0].permits == 8
        assert other.ask(Question(host, 20, 0))[0].permits == 0
        assert one.ask(Question(host, 0, 3))[0].permits == 0
        assert other.ask(Question(host, 20, 0))[0].permits == 5


def test_workers_are_counted_while_they_are_there(own_redis):
    with redis.Redis.from_url(own_redis.url) as client:
        client.flushall()
    with asking(own_redis.url) as one:
        wait_until(lambda: one.budgets.stats.calls["count_workers"] > 0)
        assert one.budgets.workers == 1
        link = hosts_of(own_redis.url)
        assert link.count_workers() == 2
        link.leave()
        assert link.count_workers() == 2  # it has come again
        link.leave()
        link.close()
    link = hosts_of(own_redis.url)
    assert link.count_workers() == 1
    link.close()


def test_without_redis_each_keeps_to_its_share(own_redis):
    host = name()
    links = [hosts_of(own_redis.url) for _ in range(4)]
    for link in links[1:]:
        link.count_workers()
    with asking(own_redis.url, seconds=0.05) as one:
        wait_until(lambda: one.budgets.workers >= 4)
        with paused(own_redis):
            grants = [one.ask(Question(name(), 20, 0))[0] for _ in range(3)]
            assert one.budgets.stats.state is State.OPEN or one.budgets.stats.errors["ask"]
            assert {grant.permits for grant in grants} <= {1, 2}
            first = one.ask(Question(host, 1, 0))[0]
            assert first.interval == pytest.approx(4 * SECOND / 20, rel=0.5)
        wait_until(lambda: one.ask(Question(name(), 8, 0))[0].permits > 2)
    for link in links:
        link.close()


def test_what_a_host_asked_for_while_redis_was_away_is_kept_to_all_the_same(own_redis):
    host = name()
    with asking(own_redis.url, seconds=0.05) as one:
        with done_without(own_redis, one):
            one.ask(Question(host, close=60 * SECOND))
            assert one.ask(Question(host, 1, 0))[0].closed > 59 * SECOND
        assert one.ask(Question(host, 1, 0))[0].closed > 50 * SECOND


@contextmanager
def done_without(redis_service: local.NativeRedis, one: Asking) -> Iterator[None]:
    """Redis does not answer and is not asked any more in the block, and is afterwards."""
    with paused(redis_service):
        for _ in range(3):
            one.ask(Question(name(), 1, 0))
        yield
    answered = one.budgets.stats.calls
    before = answered["ask"]
    wait_until(lambda: bool(one.ask(Question(name(), 1, 0))) and answered["ask"] > before)


@contextmanager
def paused(redis_service: local.NativeRedis) -> Iterator[None]:
    redis_service.pause()
    try:
        yield
    finally:
        redis_service.resume()


def full(service: local.NativeRedis, client: Any) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1")


def evicting(service: local.NativeRedis, client: Any) -> None:
    client.config_set("maxmemory-policy", "allkeys-random")
    client.config_set("maxmemory", "1")


def locked(service: local.NativeRedis, client: Any) -> None:
    client.config_set("requirepass", "secret")
    client.client_kill_filter(_type="normal", skipme=True)


def hanging(service: local.NativeRedis, client: Any) -> None:
    service.pause()


def gone(service: local.NativeRedis, client: Any) -> None:
    service.kill()


@pytest.mark.parametrize("fault", [full, evicting, locked, hanging, gone], ids=lambda f: f.__name__)
def test_whatever_redis_does_hosts_are_asked_and_not_above_twice_their_rate(restored, fault):
    host = name()
    limits = HostLimits(Budget(20.0, 8), [HostLimit(host, 4.0, 2)])
    client = redis.Redis.from_url(restored.url)
    client.flushall()
    with client, asking(restored.url, limits, seconds=0.05) as one:
        one.ask(Question(host, 1, 0))
        fault(restored, client)
        ends, permits = time.monotonic() + 2, 0
        while time.monotonic() < ends:
            permits += one.ask(Question(host, 2, 0))[0].permits
            threading.Event().wait(0.02)
        # What Redis had granted one second ahead, and what this process then grants itself.
        assert 4 <= permits <= 2 * 4 + 2 * (4 + 1)


def test_a_redis_that_is_not_there_is_done_without_and_found_when_it_comes():
    [port] = free_ports(1)
    with asking(f"redis://127.0.0.1:{port}/0", seconds=0.05) as one:
        assert [one.ask(Question(name(), 1, 0))[0].permits for _ in range(4)] == [1] * 4
        assert one.budgets.stats.errors["ask"] + one.budgets.stats.errors["count_workers"] >= 2
        assert one.budgets.stats.calls["ask"] == 0


def test_an_answer_of_another_shape_is_no_answer(url):
    link = hosts_of(url)
    link._script = type(link._script)("return {1, 2, 'three'}")
    with pytest.raises(Unavailable, match="Redis answers"):
        link.ask([Question(name(), 1, 0)])
    link.close()


def test_four_together_keep_to_the_rate(url):
    """By what they are granted; test_fetch_hosts.py measures it at a server."""
    host, ends = name(), time.monotonic() + 3
    taken: list[float] = []

    def work(ask: Callable[..., list[Grant]]) -> None:
        while time.monotonic() < ends:
            grant = ask(Question(host, 3, 0))[0]
            now = time.monotonic()
            slots = [
                now + (grant.first + n * grant.interval) / SECOND for n in range(grant.permits)
            ]
            taken.extend(max(now, slot) for slot in slots)
            last = slots[-1] if slots else now + grant.again / SECOND
            time.sleep(max(0.001, last - time.monotonic()))

    some = [Asking(url) for _ in range(4)]
    threads = [threading.Thread(target=work, args=(each.ask,)) for each in some]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for each in some:
        each.budgets.close()
    seconds = max(taken) - min(taken)
    assert 0.85 * 20 <= (len(taken) - 5) / seconds <= 1.05 * 20


def test_failures_that_were_heard_of_without_redis_do_not_outlast_that(own_redis):
    host = name()
    with asking(own_redis.url, seconds=0.05) as one:
        with done_without(own_redis, one):
            one.ask(Question(host, failures=FAILURES))
            assert one.ask(Question(host, 1, 0))[0].unreachable
        assert one.ask(Question(host, 4, 0))[0].permits == 4


def test_what_was_told_last_is_told_before_the_end(url):
    host = name()
    with asking(url) as one:
        assert one.ask(Question(host, 8, 0))[0].permits > 0
        one.budgets.ask([Question(host, 0, 0)], lambda _: None)
    link = hosts_of(url, HostLimits(Budget(0.0, 8)))
    assert link.ask([Question(host, 8, 0)])[0].permits == 8
    link.close()


def test_a_key_of_workers_that_is_none_is_made_anew(own_redis):
    with redis.Redis.from_url(own_redis.url) as client:
        client.set(WORKERS, "what")
    link = hosts_of(own_redis.url)
    assert link.count_workers() == 1
    link.leave()
    link.close()
