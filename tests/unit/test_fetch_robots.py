"""What robots.txt and `X-Robots-Tag` want of us, and for how long that is believed."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from protego import Protego

from pairscore.fetch import Fetched, NotModified, Origin, Url, parse_url
from pairscore.fetch.robots import (
    origin_of,
    parse_rules,
    product_token,
    read_rules,
    robots_url,
)
from pairscore.fetch.robots_cache import Allowed, RobotsCache
from pairscore.fetch.robots_tag import opted_out
from pairscore.pair import Failure, Reason
from pairscore.settings import load_settings

AGENT = "pairscore"
HOUR, DAY, TEN_MINUTES = 3600.0, 86400.0, 600.0
NOTHING_SAID = Origin("http://example.org/robots.txt")
GONE = Failure(Reason.HTTP_ERROR, "404")
BUSY = Failure(Reason.HTTP_ERROR, "503", attempts=4, retryable=True)
PRIVATE = b"User-agent: *\nDisallow: /private"

# RFC 9309 section 5.1.
SIMPLE = b"""\
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""
# RFC 9309 section 5.2.
LONGEST = b"""\
User-Agent: foobot
Allow: /example/page/
Disallow: /example/page/disallowed.gif
"""


def url_of(cell: str) -> Url:
    url = parse_url(cell)
    assert isinstance(url, Url)
    return url


def at(path: str) -> Url:
    return url_of(f"http://example.org{path}")


def allows(text: str | bytes, path: str, agent: str = AGENT) -> bool:
    body = text if isinstance(text, bytes) else text.encode()
    return parse_rules(body, agent).allows(at(path))


def fetched(body: bytes, lifetime: float | None = None) -> Fetched:
    return Fetched(body, 1, Origin("http://example.org/robots.txt", lifetime=lifetime))


# Groups and rules.


@pytest.mark.parametrize(
    ("agent", "path", "allowed"),
    [
        ("foobot", "/", False),
        ("foobot", "/example/page.html", True),
        ("foobot", "/example/allowed.gif", True),
        ("foobot", "/example/other.gif", False),
        ("FooBot", "/other", False),
        ("barbot", "/example/page.html", False),
        ("bazbot", "/example/page.html", False),
        ("bazbot", "/example/picture.gif", True),
        ("quxbot", "/example/page.html", True),
        ("quxbot", "/picture.gif", True),
        ("pairscore", "/example/x", False),
        ("pairscore", "/picture.gif", False),
        ("pairscore", "/picture.gif?size=1", True),
        ("pairscore", "/publications/x", True),
        ("pairscore", "/", True),
    ],
)
def test_the_groups_of_the_rfc_mean_what_it_says(agent, path, allowed):
    assert allows(SIMPLE, path, agent) is allowed


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/example/page/", True),
        ("/example/page/x.gif", True),
        ("/example/page/disallowed.gif", False),
    ],
)
def test_the_longest_match_of_the_rfc_counts(path, allowed):
    assert allows(LONGEST, path, "foobot") is allowed


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        ("Disallow: /a\nAllow: /a", "/a", True),
        ("Allow: /a\nDisallow: /a", "/a", True),
        ("Disallow: /a\nAllow: /a/b", "/a/b/c", True),
        ("Allow: /a/b\nDisallow: /a", "/a/c", False),
        ("Disallow: /", "/anything", False),
        ("Disallow:", "/anything", True),
        ("Disallow: /Case", "/case", True),
        ("Disallow: /fish*.php", "/fishheads/catfish.php?id=1", False),
        ("Disallow: /fish*.php", "/Fish.PHP", True),
        ("Disallow: /*.jpg$", "/x/y.jpg", False),
        ("Disallow: /*.jpg$", "/x/y.jpg?z", True),
        ("Disallow: /*.jpg", "/x/y.jpg?z", False),
        ("Disallow: /a$", "/a", False),
        ("Disallow: /a$", "/ab", True),
        ("Disallow: /a$b", "/a$b", False),
        ("Disallow: /*?*size=", "/x?y=1&size=2", False),
        ("Disallow: /x?y", "/x", True),
        ("disallow : /a # why", "/a", False),
        ("DISALLOW:/a", "/a", False),
        ("Dissallow: /a", "/a", False),
        ("Disallow /a", "/a", False),
        ("Disallow: /caf\u00e9", "/caf%C3%A9", False),
        ("Disallow: /caf%c3%a9", "/caf\u00e9", False),
        ("Disallow: /foo/bar?baz=http://foo.bar", "/foo/bar?baz=http://foo.bar", False),
        ("Disallow: /foo/bar/\u30c4", "/foo/bar/%E3%83%84", False),
        ("Disallow: /foo/bar/%62%61%7A", "/foo/bar/baz", False),
        ("Disallow: /a%2Fb", "/a/b", True),
        ("Disallow: //double", "//double/slash", False),
        ("Disallow: /", "/robots.txt", True),
    ],
)
def test_a_rule_covers_what_its_pattern_says(rules, path, allowed):
    assert allows(f"User-agent: *\n{rules}", path) is allowed


@pytest.mark.parametrize(
    "agent_line",
    [
        "User-agent: pairscore",
        "user-agent:PAIRSCORE",
        "User-Agent : PairScore",
        "User-agent: pairscore/1.0",
        "User-agent: pairscore 1.0",
        "User-agent: pairscore*",
        "User-agent: pairscore# ours",
        "Useragent: pairscore",
        "User agent: pairscore",
        "User-agent pairscore",
        "  \tUser-agent: pairscore",
    ],
)
def test_our_own_group_counts_before_that_of_everyone(agent_line):
    closed = f"User-agent: *\nAllow: /\n\n{agent_line}\nDisallow: /"
    opened = f"{agent_line}\nAllow: /\n\nUser-agent: *\nDisallow: /"
    assert not allows(closed, "/x")
    assert allows(opened, "/x")


@pytest.mark.parametrize("name", ["pair", "p", "pairscore-image", "xpairscore", "score", "**", ""])
def test_a_group_of_a_name_that_only_resembles_ours_is_not_ours(name):
    assert allows(f"User-agent: {name}\nDisallow: /", "/x")


def test_an_empty_group_of_ours_allows_what_everyone_is_forbidden():
    assert allows("User-agent: *\nDisallow: /\n\nUser-agent: pairscore\nDisallow:", "/x")


def test_rules_of_several_groups_of_ours_are_taken_together():
    text = "User-agent: pairscore\nDisallow: /a\n\nUser-agent: x\nDisallow: /b\n\n"
    text += "User-agent: pairscore\nUser-agent: y\nDisallow: /c"
    assert [allows(text, path) for path in ("/a", "/b", "/c")] == [False, True, False]


def test_agents_share_a_group_across_lines_that_are_no_rules():
    text = (
        "User-agent: pairscore\n\n# note\nSitemap: http://h/s\nFoo: bar\nUser-agent: y\nDisallow: /"
    )
    assert not allows(text, "/x")


def test_an_agent_line_without_a_name_ends_the_group_before_it():
    assert allows("User-agent: *\nDisallow: /a\nUser-agent:\nDisallow: /b", "/b")


def test_rules_before_any_agent_are_nobodys():
    assert allows("Disallow: /\nUser-agent: x\nDisallow: /", "/x")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_do_not_matter(end, mark):
    text = mark + end.join(["User-agent: pairscore", "Disallow: /a", "Allow: /a/b", ""])
    assert [allows(text, path) for path in ("/a", "/a/b", "/b")] == [False, True, True]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n",
        b"\xef\xbb\xbf",
        b"\x00\xff\xfe" * 100,
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
        b"<!DOCTYPE html><html><head><title>404</title></head>\n<body>Disallow: /</body></html>",
        b'{"error": "not found"}',
        "User-agent: *\nDisallow: /".encode("utf-16"),
        b"User-agent",
    ],
)
def test_what_is_no_robots_txt_has_no_rules(body):
    assert allows(body, "/x")


def test_bytes_that_are_no_utf_8_spoil_only_their_line():
    assert not allows(b"User-agent: *\nDisallow: /\xff\xfe\nDisallow: /a", "/a")


def test_only_the_first_500_kib_count_and_no_half_line_of_them():
    head = b"User-agent: *\nDisallow: /early\n"
    padding = b"#" * (500 * 1024 - len(head) - 12) + b"\n"
    body = head + padding + b"Disallow: /late"
    assert body[: 500 * 1024].endswith(b"\nDisallow: /")
    assert [allows(body, path) for path in ("/early", "/late", "/other")] == [False, True, True]
    # A file that ends there means what it says.
    assert not allows(body[: 500 * 1024], "/other")
    assert not allows(head + padding[15:] + b"Disallow: /late", "/late")


def test_one_endless_line_is_no_rule():
    assert allows(b"User-agent: *\rDisallow: /" + b"a" * 600_000, "/a")
    assert allows(b"a" * 600_000, "/a")


def test_agents_times_rules_cost_no_more_than_their_text():
    agents = "".join(f"User-agent: a{number}\n" for number in range(10_000))
    rules = parse_rules(f"{agents}User-agent: *\n{'Disallow: /x*y' * 10}".encode(), AGENT)
    assert rules.size < 10_000
    assert parse_rules(f"{agents}{'Disallow: /' * 20_000}".encode(), AGENT).size == 0


def test_a_parser_that_fails_forbids_nothing(monkeypatch):
    def fail(content: str) -> Protego:
        raise RecursionError

    monkeypatch.setattr(Protego, "parse", fail)
    assert parse_rules(b"User-agent: *\nDisallow: /", AGENT).allows(at("/x"))


@pytest.mark.parametrize(
    ("lines", "delay"),
    [
        ("Crawl-delay: 2", 2.0),
        ("crawl-delay: 0.5\nDisallow: /a", 0.5),
        ("Crawl-delay: 3600", 60.0),
        ("Crawl-delay: 0", None),
        ("Crawl-delay: -1", None),
        ("Crawl-delay: soon", None),
        ("Crawl-delay: nan", None),
        ("Crawl-delay: inf", None),
        ("Disallow: /a", None),
    ],
)
def test_a_delay_is_seconds_within_bounds(lines, delay):
    assert parse_rules(f"User-agent: *\n{lines}".encode(), AGENT).delay == delay


def test_a_delay_for_others_is_not_ours():
    text = b"User-agent: x\nCrawl-delay: 9\n\nUser-agent: pairscore\nDisallow: /a"
    assert parse_rules(text, AGENT).delay is None


_words = st.sampled_from(
    (
        *("User-agent: *", "user-agent:pairscore", "Disallow: /", "Allow: /*a$", "Crawl-delay: 1"),
        *("Disallow: http://[", "Disallow: %zz%", "Allow: $", "\ufeff", "\x00", "*", "#", "\r"),
    )
)
_bodies = st.one_of(
    st.binary(max_size=300),
    st.lists(_words | st.text(max_size=20), max_size=20).map(lambda lines: "\n".join(lines)),
).map(lambda body: body if isinstance(body, bytes) else body.encode("utf-8", "replace"))
_cells = st.one_of(
    st.text(max_size=60).map(lambda rest: f"http://example.org/{rest}"),
    st.text(max_size=60).map(lambda rest: f"https://{rest}"),
    st.builds(
        "http://{}@[::1]:{}/{}".format, st.text(max_size=9), st.integers(1, 65535), st.text()
    ),
)


@hypothesis_settings(deadline=None, max_examples=400)
@given(_bodies, _cells)
@example(b"User-agent: *\nDisallow: /[", "http://[x@example.org//[?]#")
@example(b"User-agent: *\nDisallow: *", "http://a:b?c@example.org")
def test_any_bytes_are_rules_that_answer_for_any_url(body, cell):
    rules = parse_rules(body, AGENT)
    assert rules.delay is None or 0 < rules.delay <= 60
    url = parse_url(cell)
    if isinstance(url, Url):
        assert rules.allows(url) in (True, False)
        assert parse_url(robots_url(url).text) == robots_url(url)
        assert origin_of(robots_url(url)) == origin_of(url)


# Names and places.


@pytest.mark.parametrize(
    ("user_agent", "token"),
    [
        (None, "pairscore"),
        ("", "pairscore"),
        ("pairscore/0.9.0 (+http://example.org)", "pairscore"),
        ("example-bot/2 (+mailto:someone@example.org)", "example-bot"),
        ("example_bot", "example_bot"),
        ("Mozilla/5.0 (compatible; x2bot/2; +http://example.org)", "x2bot"),
        ("Mozilla/5.0 (X11; Linux x86_64)", "Mozilla"),
        ("(nobody)", "pairscore"),
    ],
)
def test_a_user_agent_goes_by_its_product(user_agent, token):
    assert product_token(user_agent) == token


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("http://example.org/a/b?c", "http://example.org/robots.txt"),
        ("https://example.org:8443/a", "https://example.org:8443/robots.txt"),
        ("https://example.org:443/a", "https://example.org/robots.txt"),
        ("http://example.org:80/a", "http://example.org/robots.txt"),
        ("http://example.org:443/a", "http://example.org:443/robots.txt"),
        ("http://example.org:8080", "http://example.org:8080/robots.txt"),
        ("http://user:secret@example.org/a", "http://example.org/robots.txt"),
        ("http://a@b:c@example.org:81/", "http://example.org:81/robots.txt"),
        ("http://[::1]:80/a", "http://[::1]/robots.txt"),
        ("http://[2001:db8::80]/a", "http://[2001:db8::80]/robots.txt"),
        ("http://EXAMPLE.org?x", "http://example.org/robots.txt"),
    ],
)
def test_robots_txt_is_at_the_root_of_the_origin(cell, expected):
    url = url_of(cell)
    assert robots_url(url) == Url(expected, url.host)


# What asking for it came to.


@pytest.mark.parametrize(
    ("said", "believed"),
    [(None, DAY), (0.0, HOUR), (2 * HOUR, 2 * HOUR), (7 * DAY, DAY)],
)
def test_a_body_counts_for_as_long_as_its_server_says_within_bounds(said, believed):
    rules, seconds = read_rules(fetched(PRIVATE, said), AGENT)
    assert seconds == believed
    assert rules.refusal(at("/private/x")) == Failure(Reason.DISALLOWED, "robots.txt")
    assert rules.refusal(at("/public")) is None


@pytest.mark.parametrize(
    "failure",
    [
        *(Failure(Reason.HTTP_ERROR, str(status)) for status in (304, 400, 401, 403, 404, 410)),
        Failure(Reason.TOO_MANY_REDIRECTS, "more than 5"),
        Failure(Reason.DNS_ERROR),
        Failure(Reason.INVALID_URL, "redirected to no host"),
        Failure(Reason.BLOCKED_ADDRESS),
        Failure(Reason.TLS_ERROR),
    ],
)
def test_what_is_not_there_allows_everything_for_a_day(failure):
    rules, seconds = read_rules(failure, AGENT)
    assert rules.allows(at("/x"))
    assert rules.delay is None
    assert seconds == DAY


@pytest.mark.parametrize(
    "failure",
    [
        *(
            Failure(Reason.HTTP_ERROR, str(status), attempts=4, retryable=True)
            for status in (429, 500, 503)
        ),
        Failure(Reason.CONNECT_ERROR, retryable=True),
        Failure(Reason.DNS_ERROR, retryable=True),
        Failure(Reason.TIMEOUT, "not done within 15 s", retryable=True),
    ],
)
def test_what_cannot_be_reached_forbids_everything_for_a_while(failure):
    rules, seconds = read_rules(failure, AGENT)
    assert seconds == TEN_MINUTES
    refusal = rules.refusal(at("/x"))
    assert refusal == Failure(Reason.DISALLOWED, f"robots.txt: {failure.error}", retryable=True)


def test_a_file_over_the_cap_forbids_everything_for_good():
    rules, seconds = read_rules(Failure(Reason.TOO_LARGE, "over 20 bytes"), AGENT)
    assert seconds == DAY
    expected = Failure(Reason.DISALLOWED, "robots.txt: too_large: over 20 bytes")
    assert rules.refusal(at("/x")) == expected


@pytest.mark.parametrize(
    "failure",
    [
        Failure(Reason.TIMEOUT, attempts=1, retryable=True, deferred=True),
        Failure(Reason.INTERNAL, "no file descriptor left", attempts=1, retryable=True),
    ],
)
def test_what_was_never_asked_is_the_failure_of_rows_for_a_moment(failure):
    rules, seconds = read_rules(failure, AGENT)
    assert 0 < seconds <= 1
    refusal = rules.refusal(at("/x"))
    assert refusal is not None
    assert (refusal.reason, refusal.deferred) == (failure.reason, failure.deferred)
    assert refusal.attempts == 0


def test_an_answer_to_a_condition_that_was_not_put_forbids_nothing():
    rules, seconds = read_rules(NotModified(1, NOTHING_SAID), AGENT)
    assert rules.allows(at("/x"))
    assert seconds == HOUR


# What is remembered.


def test_an_origin_is_unknown_until_its_robots_txt_was_asked_for():
    cache = RobotsCache(AGENT)
    assert cache.decision(at("/private/x"), 0) is None
    cache.learn(robots_url(at("/")), fetched(PRIVATE + b"\nCrawl-delay: 3"), 0)
    assert cache.decision(at("/private/x"), 0) == Failure(Reason.DISALLOWED, "robots.txt")
    assert cache.decision(at("/public"), 0) == Allowed(3.0)


@pytest.mark.parametrize(
    "cell",
    ["https://example.org/", "http://example.org:8080/", "http://www.example.org/"],
)
def test_other_schemes_ports_and_hosts_are_other_origins(cell):
    cache = RobotsCache(AGENT)
    cache.learn(at("/"), GONE, 0)
    assert cache.decision(at("/x"), 0) == Allowed()
    assert cache.decision(url_of("http://user:secret@example.org:80/y"), 0) == Allowed()
    assert cache.decision(url_of(cell), 0) is None


@pytest.mark.parametrize(
    ("result", "seconds"),
    [(fetched(b"", 2 * HOUR), 2 * HOUR), (GONE, DAY), (BUSY, TEN_MINUTES)],
)
def test_what_was_learned_is_forgotten_when_it_is_too_old(result, seconds):
    cache = RobotsCache(AGENT)
    cache.learn(at("/"), result, 100)
    assert cache.decision(at("/x"), 100 + seconds - 1) is not None
    assert cache.decision(at("/x"), 100 + seconds) is None
    assert len(cache) == 0


def test_a_row_of_an_origin_out_of_reach_may_be_tried_when_that_is_asked_again():
    cache = RobotsCache(AGENT)
    cache.learn(at("/"), BUSY, 100)
    refused = cache.decision(at("/x"), 160)
    assert isinstance(refused, Failure)
    assert refused.reason is Reason.DISALLOWED
    assert refused.retryable
    assert refused.retry_after == 540
    assert refused.error == "disallowed: robots.txt: http_error: 503"


def test_what_is_learned_last_counts():
    cache = RobotsCache(AGENT)
    cache.learn(at("/"), BUSY, 0)
    cache.learn(at("/"), GONE, 10)
    assert cache.decision(at("/x"), 10) == Allowed()
    assert len(cache) == 1


def test_the_origins_used_least_recently_are_forgotten_first():
    cache = RobotsCache(AGENT, max_origins=3)
    first, second, third, fourth = (url_of(f"http://h{number}/") for number in range(4))
    for url in (first, second, third):
        cache.learn(url, GONE, 0)
    assert cache.decision(first, 1) is not None
    cache.learn(fourth, GONE, 2)
    assert len(cache) == 3
    assert cache.decision(second, 2) is None
    assert all(cache.decision(url, 2) is not None for url in (first, third, fourth))


def test_long_rules_count_by_their_size_and_the_last_one_always_stays():
    long = b"User-agent: *\n" + b"".join(b"Disallow: /%d\n" % number for number in range(1000))
    cache = RobotsCache(AGENT, max_bytes=2_500_000)
    urls = [url_of(f"http://h{number}/") for number in range(10)]
    for url in urls:
        cache.learn(url, fetched(long), 0)
        assert cache.decision(url, 0) == Allowed()
    assert 1 < len(cache) < 5
    small = RobotsCache(AGENT, max_bytes=1)
    for url in urls:
        small.learn(url, fetched(long), 0)
        assert small.decision(url, 0) == Allowed()
        assert len(small) == 1


def test_a_cache_that_forgets_has_room_again():
    long = b"User-agent: *\n" + b"".join(b"Disallow: /%d\n" % number for number in range(1000))
    cache = RobotsCache(AGENT, max_bytes=2_500_000)
    for now in itertools.accumulate([DAY] * 20):
        cache.learn(at("/"), fetched(long), now)
        assert cache.decision(at("/"), now + DAY) is None
    cache.learn(url_of("http://h1/"), GONE, 0)
    cache.learn(url_of("http://h2/"), GONE, 0)
    assert len(cache) == 2


# The field of a response.


@pytest.mark.parametrize(
    ("values", "directive"),
    [
        (["noai"], "noai"),
        (["NoImageAI"], "noimageai"),
        (["noindex, noai , nofollow"], "noai"),
        (["noindex,noimageai,noai"], "noimageai"),
        (["noindex", "noai"], "noai"),
        (["pairscore: noai"], "noai"),
        (["PairScore:noai"], "noai"),
        (["*: noai"], "noai"),
        (["pairscore: noindex, noai"], "noai"),
        (["otherbot: noindex, pairscore: noai"], "noai"),
        (["otherbot: noai", "noai"], "noai"),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noai"], "noai"),
        (["unavailable_after: Friday, 25-Jun-10 15:00:00 UTC, noai"], "noai"),
        (["max-image-preview: large, noai"], "noai"),
        (["max-snippet:50,max-video-preview:-1,noai"], "noai"),
        (["pairscore: max-image-preview: large, noai"], "noai"),
    ],
)
def test_noai_and_noimageai_opt_out(values, directive):
    assert opted_out(values, "PairScore") == directive


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        [", ,"],
        ["noindex, noimageindex, none"],
        ["otherbot: noai"],
        ["otherbot: noindex, noai"],
        ["otherbot: unavailable_after: 25 Jun 2010 15:00:00 PST, noai"],
        ["noindex, otherbot: noai, noimageai"],
        ["pairscore: noindex, otherbot: noai"],
        ["noaix, xnoai, no-ai, no ai"],
        ["unavailable_after: noai"],
        ["noai=1"],
    ],
)
def test_nothing_else_opts_out_nor_what_is_said_to_others(values):
    assert opted_out(values, "pairscore") is None


@hypothesis_settings(deadline=None)
@given(st.lists(st.text(alphabet="noai,: *-;\xe9\x00p") | st.text(), max_size=5))
def test_any_values_are_an_answer(values):
    assert opted_out(values, "p") in (None, "noai", "noimageai")


def test_robots_are_ignored_unless_they_are_to_be_respected(monkeypatch):
    assert load_settings().fetch.robots == "ignore"
    monkeypatch.setenv("PAIRSCORE_FETCH__ROBOTS", "respect")
    assert load_settings().fetch.robots == "respect"
