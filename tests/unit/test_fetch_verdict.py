"""What the end of an attempt is called, and whether it is tried again."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pairscore.fetch.verdict import SILENT, Evidence, judge, leads_on
from pairscore.pair import Failure, Reason
from pairscore.settings import FetchSettings

SETTINGS = FetchSettings(max_bytes=1000, timeout=10, connect_timeout=5, stall_timeout=3)
SENT = Evidence(
    status=0,
    received=0,
    over_cap=False,
    headers_ended=True,
    refused=(),
    opened=1,
    exhausted=False,
    request_sent=True,
    resolved=True,
    retry_after=None,
    seconds=0.1,
    location="",
)
UNSENT = replace(SENT, request_sent=False)
UNRESOLVED = replace(UNSENT, opened=0, resolved=False)
GOT_200 = replace(SENT, status=200, received=7)
TRIED_AGAIN, FINAL = True, False

TABLE = [
    # code, message, evidence, reason, detail, whether it is tried again
    (0, "", replace(SENT, status=404), "http_error", "404", FINAL),
    (0, "", replace(SENT, status=410), "http_error", "410", FINAL),
    (0, "", replace(SENT, status=302), "http_error", "302", FINAL),
    (0, "", replace(SENT, status=304), "http_error", "304", FINAL),
    (0, "", replace(SENT, status=401), "http_error", "401", FINAL),
    (0, "", replace(SENT, status=408), "http_error", "408", TRIED_AGAIN),
    (0, "", replace(SENT, status=425), "http_error", "425", TRIED_AGAIN),
    (0, "", replace(SENT, status=429), "http_error", "429", TRIED_AGAIN),
    (0, "", replace(SENT, status=500), "http_error", "500", TRIED_AGAIN),
    (0, "", replace(SENT, status=503), "http_error", "503", TRIED_AGAIN),
    (0, "", replace(SENT, status=999), "http_error", "999", TRIED_AGAIN),
    # However an error page ends, its status is what counts; so it is for a redirect's body.
    (23, "Failed writing", replace(SENT, status=404), "http_error", "404", FINAL),
    (63, "Exceeded", replace(SENT, status=404), "http_error", "404", FINAL),
    (18, "end of file", replace(SENT, status=404), "http_error", "404", FINAL),
    (28, "Operation timed out", replace(SENT, status=410), "http_error", "410", FINAL),
    (56, "Recv failure", replace(SENT, status=503), "http_error", "503", TRIED_AGAIN),
    (23, "Failed writing", replace(SENT, status=302), "http_error", "302", FINAL),
    (63, "Exceeded", GOT_200, "too_large", "over 1,000 bytes", FINAL),
    (23, "Failed", replace(GOT_200, over_cap=True), "too_large", "over 1,000 bytes", FINAL),
    (56, "Too large response headers: 9 > 8", SENT, "too_large", "headers without end", FINAL),
    (100, "", SENT, "too_large", "headers without end", FINAL),
    (28, "Operation timed out", GOT_200, "timeout", "not done within 10 s, 7 bytes", TRIED_AGAIN),
    (SILENT, "", GOT_200, "timeout", "no data for 3 s, 7 bytes", TRIED_AGAIN),
    (28, "Connection timed out", UNSENT, "connect_error", "no connection within 5 s", TRIED_AGAIN),
    (28, "Resolving timed out", UNRESOLVED, "dns_error", "no answer within 5 s", TRIED_AGAIN),
    (6, "Could not resolve host: x", UNRESOLVED, "dns_error", "resolve host: x", TRIED_AGAIN),
    (5, "Could not resolve proxy: x", UNRESOLVED, "dns_error", "proxy: x", TRIED_AGAIN),
    (7, "Connection refused", UNSENT, "connect_error", "Connection refused", TRIED_AGAIN),
    (
        *(7, "Could not connect", replace(UNSENT, opened=0, refused=("10.0.0.1", "10.0.0.1"))),
        *("blocked_address", "10.0.0.1 is not public", FINAL),
    ),
    # One of its addresses was asked, and did not answer.
    (
        *(7, "Could not connect", replace(UNSENT, opened=1, refused=("10.0.0.1",))),
        *("connect_error", "Could not connect", TRIED_AGAIN),
    ),
    # Not the address's fault, whatever became of the others.
    (
        *(7, "Could not connect", replace(UNSENT, exhausted=True, refused=("10.0.0.1",))),
        *("internal", "no file descriptor left", TRIED_AGAIN),
    ),
    (
        *(0, "", replace(GOT_200, headers_ended=False)),
        *("connect_error", "closed inside the headers", TRIED_AGAIN),
    ),
    (18, "end", GOT_200, "connect_error", "closed after 7 bytes, before the end", TRIED_AGAIN),
    (52, "Empty reply from server", SENT, "connect_error", "Empty reply", TRIED_AGAIN),
    (56, "Connection reset by peer", SENT, "connect_error", "Connection reset", TRIED_AGAIN),
    (8, "Weird server reply", SENT, "connect_error", "Weird", TRIED_AGAIN),
    (61, "Unrecognized content encoding", GOT_200, "connect_error", "encoding", TRIED_AGAIN),
    (92, "HTTP/2 stream 1 was reset", SENT, "connect_error", "HTTP/2", TRIED_AGAIN),
    (97, "proxy handshake", UNSENT, "connect_error", "proxy", TRIED_AGAIN),
    (1, "Received HTTP/0.9 when not allowed", SENT, "connect_error", "HTTP/0.9", TRIED_AGAIN),
    (1, "Unsupported HTTP version in response", SENT, "connect_error", "version", TRIED_AGAIN),
    (1, 'Protocol "ftp" is disabled', UNSENT, "invalid_url", '"ftp"', FINAL),
    (3, "URL using bad/illegal format", UNSENT, "invalid_url", "bad/illegal", FINAL),
    (60, "self-signed certificate", UNSENT, "tls_error", "self-signed", FINAL),
    (35, "wrong version number", UNSENT, "tls_error", "wrong version number", FINAL),
    (35, "Recv failure: Connection reset by peer", UNSENT, "connect_error", "reset", TRIED_AGAIN),
    (35, "SSL_ERROR_SYSCALL in connection", UNSENT, "connect_error", "SYSCALL", TRIED_AGAIN),
    (27, "Out of memory", SENT, "internal", "libcurl 27: Out of memory", TRIED_AGAIN),
]


@pytest.mark.parametrize(("code", "message", "evidence", "reason", "detail", "again"), TABLE)
def test_the_end_of_an_attempt_has_a_reason(code, message, evidence, reason, detail, again):
    failure = judge(code, message, evidence, SETTINGS)
    assert failure is not None
    assert (failure.reason.value, failure.retryable) == (reason, again)
    assert detail in failure.detail


@pytest.mark.parametrize("status", [200, 201, 203, 204, 206, 299])
def test_any_2xx_is_a_body(status):
    assert judge(0, "", replace(SENT, status=status), SETTINGS) is None


@pytest.mark.parametrize(
    ("code", "location", "expected"),
    [
        (0, "http://example.org/b", True),
        (0, "", False),
        (23, "http://example.org/b", True),
        (63, "http://example.org/b", True),
        (28, "http://example.org/b", False),
        (56, "http://example.org/b", False),
    ],
)
def test_a_redirect_leads_on_however_much_its_page_holds(code, location, expected):
    assert leads_on(code, replace(SENT, status=302, location=location)) is expected


def test_what_the_server_asked_to_wait_is_handed_on():
    failure = judge(0, "", replace(SENT, status=429, retry_after=7.0), SETTINGS)
    assert failure == Failure(Reason.HTTP_ERROR, "429", retryable=True, retry_after=7.0)


@pytest.mark.parametrize(
    "url", ["foo://user:secret@bar:1", "http://secret@bar/@", "http://a:b@secret@bar:1/"]
)
def test_the_password_in_a_url_that_libcurl_quotes_is_left_out(url):
    failure = judge(7, f"Unsupported proxy scheme for '{url}' here", UNSENT, SETTINGS)
    assert failure is not None
    assert "secret" not in failure.detail
    assert failure.detail.startswith("Unsupported proxy scheme for '")
    assert failure.detail.endswith(" here")


evidences = st.builds(
    Evidence,
    status=st.sampled_from([0, 100, 200, 204, 301, 404, 429, 500, 999]),
    received=st.integers(0, 10**9),
    over_cap=st.booleans(),
    headers_ended=st.booleans(),
    refused=st.lists(st.just("10.0.0.1")).map(tuple),
    opened=st.integers(0, 3),
    exhausted=st.booleans(),
    request_sent=st.booleans(),
    resolved=st.booleans(),
    retry_after=st.none() | st.floats(0, 1e6),
    seconds=st.floats(0, 100),
    location=st.just(""),
)


@hypothesis_settings(deadline=None)
@given(st.integers(-1, 110), st.text(st.characters(exclude_categories=[])), evidences)
def test_whatever_libcurl_says_is_one_printable_line(code, message, evidence):
    failure = judge(code, message, evidence, SETTINGS)
    if failure is None:
        assert code == 0
        assert 200 <= evidence.status < 300
    else:
        assert len(failure.detail) < 350
        assert failure.detail.isprintable()
        failure.detail.encode()


def test_what_libcurl_says_of_how_long_it_took_is_left_out():
    message = "Failed to connect to 192.0.2.1 port 80 after 12 ms: Could not connect to server"
    failure = judge(7, message, UNSENT, SETTINGS)
    assert failure is not None
    assert failure.detail == "Failed to connect to 192.0.2.1 port 80: Could not connect to server"
