"""The fetcher's thread: how it ends, and what it leaves behind."""

import gc
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from pairscore.fetch import Fetched, Fetcher
from pairscore.settings import FetchSettings
from tests.fetching import DEADLINE, Fetching, fetched, parsed_url, wait_until
from tests.hostile_server import HostileServer, redirect, reply

DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture
def server():
    with HostileServer() as server:
        yield server


def fetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "pairscore-fetch"]


def open_descriptors():
    gc.collect()
    return len(list(DESCRIPTORS.iterdir()))


def test_a_callback_that_raises_ends_the_thread_and_is_reported(server):
    def fail(_result):
        raise ZeroDivisionError("a defect")

    fetching = Fetching()
    fetching.fetcher.fetch(parsed_url(server.on("/a", reply(200, b"x"))), fail)
    assert fetching.crashed.wait(DEADLINE)
    assert [type(error) for error in fetching.crashes] == [ZeroDivisionError]
    wait_until(lambda: not fetch_threads())
    fetching.fetcher.close()


def test_closing_does_not_wait_for_what_is_in_flight(server):
    ended: list[object] = []
    fetching = Fetching(timeout=600, stall_timeout=600)
    url = server.on("/a", lambda exchange: exchange.hold())
    for n in range(20):
        server.on(f"/{n}", lambda exchange: exchange.hold())
        fetching.start(server.url(f"/{n}")).add_done_callback(ended.append)
    fetching.start(server.on("/late", reply(503, Retry_After="50")))
    fetching.start(url)
    fetching.start("http://nowhere.invalid/")
    wait_until(lambda: server.hits() >= 8)
    begun = time.monotonic()
    fetching.fetcher.close()
    assert time.monotonic() - begun < 5
    wait_until(lambda: not fetch_threads())
    assert ended == []
    assert fetching.crashes == []


def test_it_may_be_closed_twice_and_told_things_afterwards(server):
    fetching = Fetching()
    [result] = fetched([fetching.start(server.on("/a", reply(200, b"x")))])
    fetching.fetcher.close()
    fetching.fetcher.close()
    fetching.fetcher.consumed(result)
    fetching.start(server.url("/a"))
    assert fetching.crashes == []


def test_it_may_be_closed_while_names_are_being_settled():
    crashes: list[BaseException] = []
    ended = threading.Event()
    fetcher = Fetcher(FetchSettings(attempts=1), on_crash=crashes.append)
    for number in range(8):
        url = parsed_url(f"http://no{number}.invalid/")
        fetcher.fetch(url, lambda _result: ended.set())
    assert ended.wait(DEADLINE)
    fetcher.close()
    assert crashes == []


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="descriptors are counted in /proc")
def test_two_thousand_requests_each_end_once_and_leave_nothing_open():
    before = open_descriptors()
    hosts = [f"127.0.0.{n}" for n in range(1, 5)] if sys.platform == "linux" else ["127.0.0.1"]
    servers = [HostileServer(host) for host in hosts]
    ends: Counter[int] = Counter()
    kinds: Counter[str] = Counter()
    done = threading.Event()
    fetching = Fetching(attempts=2, concurrency=32)

    def note(number, fetching):
        def end(result):
            ends[number] += 1
            if isinstance(result, Fetched):
                kinds["fetched"] += 1
                fetching.fetcher.consumed(result)
            else:
                kinds[result.error] += 1
            if sum(kinds.values()) == 2000:
                done.set()

        return end

    for server in servers:
        server.on("/ok", reply(200, b"x" * 5000))
        server.on("/there", redirect("/ok"))
        server.on("/gone", reply(404))
        server.on("/broken", lambda exchange: exchange.reset())
    try:
        for number in range(2000):
            server = servers[number % len(servers)]
            path = ("/ok", "/ok", "/there", "/gone", "/ok")[number // len(servers) % 5]
            path = "/broken" if number % 100 == 99 else path
            fetching.fetcher.fetch(parsed_url(server.url(path)), note(number, fetching))
        assert done.wait(60)
    finally:
        fetching.fetcher.close()
        for server in servers:
            server.close()
    assert fetching.crashes == []
    assert len(ends) == 2000
    assert set(ends.values()) == {1}
    assert kinds["fetched"] + kinds["http_error: 404"] == 1980
    wait_until(lambda: open_descriptors() <= before)


CRAMPED = """
import os, resource, sys
from tests.fetching import Fetching
from tests.hostile_server import HostileServer, reply
from pairscore.errors import EnvironmentFault

soft = int(sys.argv[1])
with HostileServer() as server:
    url = server.on("/a", reply(200, b"x"))
    if soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, int(sys.argv[2])))
        try:
            fetching = Fetching()
        except EnvironmentFault as fault:
            print(fault)
            sys.exit()
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], fetching.body(url))
    else:
        fetching = Fetching(attempts=2)
        fetching.failure("http://127.0.0.1:1/")  # what is opened once is open now
        resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0) + 1 + int(sys.argv[2]), 4096))
        failure = fetching.failure(url)
        print(failure.error, failure.attempts)
    fetching.fetcher.close()
"""


@pytest.mark.parametrize(
    ("soft", "hard", "said"),
    [
        ("48", "4096", "272 b'x'"),
        ("48", "200", "64 downloads at once need 272 open files, and this process may have 200"),
        # None left, and one left of the two that it takes.
        ("0", "0", "internal: no file descriptor left; lower --concurrency or raise `ulimit -n` 2"),
        ("0", "1", "internal: no file descriptor left; lower --concurrency or raise `ulimit -n` 2"),
    ],
)
def test_a_lack_of_descriptors_is_not_blamed_on_the_rows(soft, hard, said):
    command = [sys.executable, "-c", CRAMPED, soft, hard]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.stdout.startswith(said), ended
