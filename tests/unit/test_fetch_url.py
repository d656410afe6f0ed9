"""Cells that hold URLs: the form they are asked in, or what is wrong with them."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pairscore.fetch import Url, parse_url
from pairscore.fetch.url import MAX_CHARACTERS
from pairscore.pair import Failure, Reason

GOOD = [
    ("http://example.org/cat.jpg", "http://example.org/cat.jpg", "example.org"),
    ("  https://example.org/a \n", "https://example.org/a", "example.org"),
    ("HTTP://EXAMPLE.Org/Cat.JPG", "http://example.org/Cat.JPG", "example.org"),
    ("http://example.org", "http://example.org/", "example.org"),
    ("http://example.org?x=1", "http://example.org/?x=1", "example.org"),
    ("http://example.org/a#part", "http://example.org/a", "example.org"),
    ("http://example.org:8080/a", "http://example.org:8080/a", "example.org"),
    ("http://example.org:/a", "http://example.org/a", "example.org"),
    ("http://example.org./a", "http://example.org./a", "example.org."),
    ("http://under_score.example/a", "http://under_score.example/a", "under_score.example"),
    ("http://example.org/a b.jpg", "http://example.org/a%20b.jpg", "example.org"),
    ("http://example.org/caf\u00e9?q=\u732b", "http://example.org/caf%C3%A9?q=%E7%8C%AB", None),
    ("http://example.org/%7Ecat%2Fdog%e9", "http://example.org/%7Ecat%2Fdog%e9", None),
    ("http://example.org/100%", "http://example.org/100%25", None),
    ("http://example.org/%zz%4", "http://example.org/%25zz%254", None),
    ("http://example.org/a?u=http://b/c?d=e", "http://example.org/a?u=http://b/c?d=e", None),
    ('http://example.org/"<>|`{}^', "http://example.org/%22%3C%3E%7C%60%7B%7D%5E", None),
    ("http://b\u00fccher.example/", "http://xn--bcher-kva.example/", "xn--bcher-kva.example"),
    ("http://\u65e5\u672c\u8a9e.jp/", "http://xn--wgv71a119e.jp/", "xn--wgv71a119e.jp"),
    ("http://BU\u0308CHER.example/", "http://xn--bcher-kva.example/", "xn--bcher-kva.example"),
    ("http://example\u3002org/", "http://example.org/", "example.org"),
    ("http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/", "http://127.0.0.1/", "127.0.0.1"),
    ("http://127.0.0.1:1/", "http://127.0.0.1:1/", "127.0.0.1"),
    ("http://[::1]:8/", "http://[::1]:8/", "::1"),
    ("http://[2001:DB8:0::1]/", "http://[2001:db8::1]/", "2001:db8::1"),
    ("http://u:p@example.org/", "http://u:p@example.org/", "example.org"),
    ("http://a@b@example.org/", "http://a%40b@example.org/", "example.org"),
    ("http://example.org\\@other.example/", "http://example.org%5C@other.example/", None),
]
BAD = [
    ("", "empty"),
    (" \t\n", "empty"),
    ("cat.jpg", "no scheme: only http and https"),
    ("//example.org/cat.jpg", "no scheme: only http and https"),
    ("www.example.org/cat.jpg", "no scheme: only http and https"),
    ("ftp://example.org/a", "ftp: only http and https"),
    ("file:///etc/passwd", "file: only http and https"),
    ("data:image/png;base64,AAAA", "data: only http and https"),
    ("javascript:alert(1)", "javascript: only http and https"),
    ("gopher://example.org/", "gopher: only http and https"),
    ("http:///a", "no host"),
    ("http:a", "no host"),
    ("https://", "no host"),
    ("http://user@/a", "no host"),
    ("http://:80/a", "no host"),
    ("http://example.org:0/", "port 0"),
    ("http://example.org:65536/", "ort"),
    ("http://example.org:http/", "ort"),
    ("http://example.org:-1/", "ort"),
    ("http://exam ple.org/", "no host name"),
    ("http://a..b/", "no host name"),
    ("http://.a/", "no host name"),
    ("http://-a/", "no host name"),
    ("http://" + "a" * 64 + ".org/", "no host name"),
    ("http://" + ".".join(["a" * 60] * 5) + "/", "no host name"),
    ("http://exa%6dple.org/", "no host name"),
    ("http://\u00ad/", "no host name"),
    ("http://\u2100.example/", "NFKC"),
    ("http://[::1/", "IPv6"),
    ("http://[::1%25eth0]/", "no host name"),
    ("http://[fe80::1%eth0]/", "no host name"),
    ("http://[::g]/", "address"),
    ("http://[127.0.0.1]/", "IPv"),
    ("http://[v1.a]/", "no host name"),
    ("http://::1/", "ort"),
    ("http://example.org\\a", "no host name"),
    ("http://example.org/a\0b", "control character '\\x00'"),
    ("http://example.org/a\nb", "control character '\\n'"),
    ("http://example.org/a\x7f", "control character '\\x7f'"),
    ("http://example.org/" + "a" * MAX_CHARACTERS, "8,211 characters; at most 8,192"),
]
cells = st.text() | st.builds(
    "{}://{}{}".format,
    st.sampled_from(["http", "https", "HTTP", "ftp", ""]),
    st.text(
        alphabet=st.one_of(st.sampled_from(list("aZ09.-_@:[]%\\\u3002\uff11")), st.characters())
    ),
    st.text(alphabet=st.one_of(st.sampled_from(list("/?#%2F &=+;@:\\")), st.characters())),
)
ascii_hosts = st.from_regex(
    r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z0-9]{1,8}){0,3}", fullmatch=True
)


@pytest.mark.parametrize(("cell", "text", "host"), GOOD)
def test_a_url_is_given_the_form_it_is_asked_in(cell, text, host):
    parsed = parse_url(cell)
    assert isinstance(parsed, Url)
    assert parsed.text == text
    assert parsed.host == (host or urlsplit(text).hostname)


@pytest.mark.parametrize(("cell", "complaint"), BAD)
def test_what_cannot_be_asked_for_is_an_invalid_url_that_says_why(cell, complaint):
    failure = parse_url(cell)
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.INVALID_URL
    assert complaint in failure.detail
    assert not failure.retryable


def test_the_longest_url_allowed_is_allowed():
    cell = "http://example.org/"
    assert isinstance(parse_url(cell + "a" * (MAX_CHARACTERS - len(cell))), Url)


@hypothesis_settings(deadline=None, max_examples=400)
@given(cells)
def test_any_text_is_a_url_in_ascii_or_a_short_complaint(cell):
    parsed = parse_url(cell)
    if isinstance(parsed, Failure):
        assert parsed.reason is Reason.INVALID_URL
        assert 0 < len(parsed.detail) <= 300
        return
    assert parsed.text.isascii()
    assert parsed.text.isprintable()
    assert not set(' "<>\\^`{|}') & set(parsed.text)
    assert urlsplit(parsed.text).scheme in ("http", "https")
    assert urlsplit(parsed.text).hostname == parsed.host == parsed.host.lower()
    assert parse_url(parsed.text) == parsed


@hypothesis_settings(deadline=None)
@given(ascii_hosts, st.text(max_size=30), st.none() | st.integers(1, 65535))
def test_a_url_made_of_good_parts_keeps_them(host, path, port):
    authority = host if port is None else f"{host}:{port}"
    clean = "".join(c for c in path if c.isprintable() and c not in "#?").strip()
    parsed = parse_url(f"http://{authority}/x{clean}")
    assert isinstance(parsed, Url)
    assert parsed.host == host
    assert parsed.text.startswith(f"http://{authority}/x")


@hypothesis_settings(deadline=None)
@given(st.binary(max_size=20))
def test_what_is_percent_encoded_stays_as_it_is(data):
    encoded = "".join(f"%{byte:02x}" for byte in data)
    parsed = parse_url(f"http://example.org/{encoded}?{encoded}x")
    assert isinstance(parsed, Url)
    assert parsed.text == f"http://example.org/{encoded}?{encoded}x"


@pytest.mark.parametrize(
    "cell", ["x" * 8000 + "://h/", "http://h:" + "x" * 8000, "http://" + "[" * 8000]
)
def test_a_complaint_about_a_long_cell_is_short(cell):
    failure = parse_url(cell)
    assert isinstance(failure, Failure)
    assert len(failure.detail) <= 300
