"""Names that do not resolve: gone for good, or a resolver that could not say."""

import socket
import threading

import pytest

from pairscore.fetch.resolver import NameCheck, does_not_exist
from pairscore.pair import Failure, Reason

UNRESOLVED = Failure(Reason.DNS_ERROR, "Could not resolve host", retryable=True)


def answer_with(monkeypatch: pytest.MonkeyPatch, result: object) -> None:
    def getaddrinfo(*args: object, **kwargs: object) -> object:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("host", ["nowhere.invalid", "nowhere.invalid.", "invalid.invalid"])
def test_reserved_names_are_not_asked_about(monkeypatch, host):
    answer_with(monkeypatch, AssertionError("asked"))
    assert does_not_exist(host)


@pytest.mark.parametrize(
    ("result", "absent"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), True),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), False),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure"), False),
        (socket.gaierror(socket.EAI_SYSTEM, "System error"), False),
        ([(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))], False),
    ],
)
def test_only_a_definite_answer_makes_a_name_absent(monkeypatch, result, absent):
    answer_with(monkeypatch, result)
    assert does_not_exist("somewhere.example") is absent


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "ex\ufffd\ufffd.test", "a\0b", "\u2100.x"])
def test_what_can_be_no_name_is_absent(host):
    assert does_not_exist(host)


@pytest.mark.parametrize(
    ("host", "retryable"), [("nowhere.invalid", False), ("somewhere.example", True)]
)
def test_a_failure_is_permanent_where_there_is_no_such_name(monkeypatch, host, retryable):
    answer_with(monkeypatch, socket.gaierror(socket.EAI_AGAIN, "Temporary failure"))
    names, settled, done = NameCheck(), [], threading.Event()

    def take(failure):
        settled.append(failure)
        done.set()

    names.settle(host, UNRESOLVED, take)
    assert done.wait(10)
    names.close()
    assert settled == [Failure(Reason.DNS_ERROR, "Could not resolve host", retryable=retryable)]


def test_closing_gives_up_what_waits_behind_a_lookup_that_hangs(monkeypatch):
    asked, let_go = threading.Semaphore(0), threading.Event()
    settled: list[Failure] = []

    def hang(*args: object, **kwargs: object) -> object:
        asked.release()
        assert let_go.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    names = NameCheck(threads=2)
    for number in range(5):
        names.settle(f"host{number}.example", UNRESOLVED, settled.append)
    assert asked.acquire(timeout=10)
    assert asked.acquire(timeout=10)
    threads = [thread for thread in threading.enumerate() if thread.name == "pairscore-dns"]
    names.close()
    assert settled == []
    assert len(threads) == 2
    assert all(thread.daemon for thread in threads)
    let_go.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert settled == [UNRESOLVED, UNRESOLVED]
