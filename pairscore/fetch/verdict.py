"""What the end of an attempt means: nothing wrong, or a reason.

Pure: libcurl's error codes (https://curl.se/libcurl/c/libcurl-errors.html) and HTTP's status codes
(RFC 9110) in, the reasons of the closed list out.
"""

import re
from dataclasses import dataclass
from typing import Final

from pairscore.fetch.waiting import Ending
from pairscore.pair import Failure, Reason
from pairscore.politeness import Grant
from pairscore.politeness.budget import SECOND
from pairscore.settings import FetchSettings

# Not libcurl's, whose low-speed limit averages over so long that it comes after most deadlines.
SILENT: Final = -1
RESOLVE_HOST: Final = 6
_UNSUPPORTED_PROTOCOL, _MALFORMED_URL = 1, 3
_RESOLVE_PROXY, _COULDNT_CONNECT = 5, 7
_PARTIAL_FILE, _WRITE_ERROR, _TIMED_OUT, _TLS_CONNECT = 18, 23, 28, 35
_FILESIZE_EXCEEDED, _TOO_LARGE_HEADERS = 63, 100
# Certificates, ciphers, handshakes; the codes of key and CA files of our own are not among them.
_TLS: Final = frozenset({35, 51, 58, 59, 60, 64, 80, 83, 90, 91, 98})
# Weird replies, HTTP/2 and HTTP/3 framing, nothing received, send and receive errors, bad
# encodings, proxies.
_BROKEN: Final = frozenset({8, 16, 52, 55, 56, 61, 88, 92, 95, 96, 97})
# What a handshake ends with that was cut off rather than refused.
_CUT_OFF: Final = ("SSL_ERROR_SYSCALL", "onnection reset", "Broken pipe", "unexpected eof")
_EXHAUSTED: Final = "no file descriptor left; lower --concurrency or raise `ulimit -n`"
_USERINFO: Final = re.compile(r"://\S*@")
_TOOK: Final = re.compile(r" after \d+ (?:ms|milliseconds)\b")
_DETAIL_LIMIT: Final = 300
# In so many parts a host's backlog comes back: ten minutes of it every 2 s, a day every 5 min.
_ROUNDS: Final = 300
_NOT_MODIFIED: Final = 304
_RETRIED_STATUS: Final = frozenset({408, 425, 429})
_CLOSING_STATUS: Final = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about a GET that has ended; sizes are bytes, times seconds.

    `status` is that of the last response, 0 without one, and `headers_ended` whether its headers
    were whole. `refused` are the addresses that the guard did not permit and `opened` counts those
    it did; `exhausted` says that one of these got no file descriptor. `location` is the URL that a
    redirect leads to, empty without one.
    """

    status: int
    received: int
    over_cap: bool
    headers_ended: bool
    refused: tuple[str, ...]
    opened: int
    exhausted: bool
    request_sent: bool
    resolved: bool
    retry_after: float | None
    seconds: float
    location: str


def leads_on(code: int, evidence: Evidence) -> bool:
    """Whether the GET ended in a redirect; how the body of one ends does not matter."""
    return bool(evidence.location) and code in (0, _WRITE_ERROR, _FILESIZE_EXCEEDED)


def still_holds(code: int, evidence: Evidence) -> bool:
    """Whether a conditional GET ended in the answer that nothing has changed."""
    return code == 0 and evidence.status == _NOT_MODIFIED and evidence.headers_ended


def judge(code: int, message: str, evidence: Evidence, settings: FetchSettings) -> Failure | None:
    """The failure that libcurl's `code` (0: none) and the evidence amount to; None for a good body.

    `SILENT` is the code of an attempt given up because a response that had begun went silent for
    `stall_timeout`.
    A name that did not resolve (`RESOLVE_HOST`) is reported as temporary; only asking the resolver
    can tell.
    """
    # An error is an error however its page ends; of a redirect only the body is not wanted.
    refused = evidence.status >= 400
    unwanted_body = code in (_WRITE_ERROR, _FILESIZE_EXCEEDED) and 300 <= evidence.status < 400
    if refused or unwanted_body or (code == 0 and evidence.headers_ended):
        return _judge_status(evidence)
    if code == 0:
        # libcurl is content with headers that stop short.
        return Failure(Reason.CONNECT_ERROR, "closed inside the headers", retryable=True)
    if evidence.over_cap or code == _FILESIZE_EXCEEDED:
        return Failure(Reason.TOO_LARGE, f"over {settings.max_bytes:,} bytes")
    if code in (SILENT, _TIMED_OUT):
        return _judge_timeout(code, evidence, settings)
    if code == _COULDNT_CONNECT and evidence.exhausted:
        return Failure(Reason.INTERNAL, _EXHAUSTED, retryable=True)
    if code == _COULDNT_CONNECT and evidence.refused and not evidence.opened:
        return Failure(Reason.BLOCKED_ADDRESS, _blocked(evidence.refused))
    return _judge_code(code, message, evidence)


def ending(evidence: Evidence, failure: Failure | None, *, whole: bool = True) -> Ending:
    """What the end of an attempt, in `failure` or in none, says of the host that was asked.

    `whole` says that it had as long to connect as it may have.
    """
    status, reason = evidence.status, None if failure is None else failure.reason
    return Ending(
        answered=evidence.request_sent or reason is Reason.TLS_ERROR,
        failed=whole and not evidence.request_sent and reason is Reason.CONNECT_ERROR,
        close=(evidence.retry_after or 0.0) if status in _CLOSING_STATUS else 0.0,
    )


def left_alone(host: str, grant: Grant, attempts: int) -> Failure:
    """Why a host is not asked that is to be left alone for longer than a request may wait."""
    seconds = grant.closed / SECOND
    if grant.unreachable:
        detail = f"{host} has not answered for a while; it is asked again in {seconds:,.0f} s"
        return Failure(Reason.CONNECT_ERROR, detail, attempts, retryable=True, retry_after=seconds)
    detail = f"{host} asks to be left alone for {seconds:,.0f} s"
    return Failure(
        Reason.TIMEOUT, detail, attempts, retryable=True, retry_after=seconds, deferred=True
    )


def too_slow(host: str, backlog: float) -> Failure:
    """Why a host is not asked that has too many requests, which it takes `backlog` seconds for.

    The longer that is, the longer they keep away, so that most time goes into others.
    """
    detail = f"{host} is too slow for all its rows"
    return Failure(
        Reason.TIMEOUT, detail, retryable=True, retry_after=backlog / _ROUNDS, deferred=True
    )


def _judge_status(evidence: Evidence) -> Failure | None:
    status = evidence.status
    if 200 <= status < 300:
        return None
    return Failure(
        Reason.HTTP_ERROR,
        str(status),
        retryable=status in _RETRIED_STATUS or status >= 500,
        retry_after=evidence.retry_after,
    )


def _judge_timeout(code: int, evidence: Evidence, settings: FetchSettings) -> Failure:
    if evidence.request_sent:
        silent = code == SILENT
        limit = settings.stall_timeout if silent else settings.timeout
        what = "no data for" if silent else "not done within"
        detail = f"{what} {limit:g} s, {evidence.received:,} bytes received"
        return Failure(Reason.TIMEOUT, detail, retryable=True)
    limit = min(settings.connect_timeout, settings.timeout)
    if evidence.resolved:
        return Failure(Reason.CONNECT_ERROR, f"no connection within {limit:g} s", retryable=True)
    return Failure(Reason.DNS_ERROR, f"no answer within {limit:g} s", retryable=True)


def _judge_code(code: int, message: str, evidence: Evidence) -> Failure:
    line = _one_line(message)
    if code == _UNSUPPORTED_PROTOCOL and not message.startswith("Protocol"):
        # The same code says that what the server spoke is no HTTP that libcurl knows.
        return Failure(Reason.CONNECT_ERROR, line, retryable=True)
    if code in (_UNSUPPORTED_PROTOCOL, _MALFORMED_URL):
        return Failure(Reason.INVALID_URL, line)
    if code in (_RESOLVE_PROXY, RESOLVE_HOST):
        return Failure(Reason.DNS_ERROR, line, retryable=True)
    if code == _TLS_CONNECT and any(sign in message for sign in _CUT_OFF):
        return Failure(Reason.CONNECT_ERROR, line, retryable=True)
    if code in _TLS:
        return Failure(Reason.TLS_ERROR, line)
    if code == _TOO_LARGE_HEADERS or "Too large response headers" in message:
        return Failure(Reason.TOO_LARGE, "headers without end")
    if code == _PARTIAL_FILE:
        line = f"closed after {evidence.received:,} bytes, before the end"
    if code in _BROKEN or code in (_COULDNT_CONNECT, _PARTIAL_FILE):
        return Failure(Reason.CONNECT_ERROR, line, retryable=True)
    return Failure(Reason.INTERNAL, f"libcurl {code}: {line}", retryable=True)


def _blocked(addresses: tuple[str, ...]) -> str:
    return f"{', '.join(dict.fromkeys(addresses))} is not public"


def _one_line(message: str) -> str:
    # Messages quote URLs, in which passwords may be, and what servers sent: bytes that are no
    # UTF-8, control characters.
    # How long it took differs from one time to the next; what came of a row should not.
    plain = _TOOK.sub("", _USERINFO.sub("://", " ".join(message.split())))
    line = plain[:_DETAIL_LIMIT]
    return "".join(character if character.isprintable() else "\ufffd" for character in line)
