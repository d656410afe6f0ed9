"""Which budget a host has, and how limits are written."""

import pytest
from pydantic import ValidationError

from pairscore.politeness.limits import Budget, HostLimit, HostLimits, parse_limits
from pairscore.settings import FetchSettings

REST = Budget(20.0, 8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cdn.example.com=200", [HostLimit("cdn.example.com", 200.0)]),
        ("*.example.org=0.5/16", [HostLimit("*.example.org", 0.5, 16)]),
        (
            " A.example=0/1 , b.example=3,",
            [HostLimit("a.example", 0.0, 1), HostLimit("b.example", 3)],
        ),
        (
            "192.0.2.1=5,[2001:DB8::0:1]=6",
            [HostLimit("192.0.2.1", 5.0), HostLimit("2001:db8::1", 6)],
        ),
        ("", []),
    ],
)
def test_limits_are_read(text, expected):
    assert list(parse_limits(text)) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("example.org", "looks like"),
        ("example.org=fast", "looks like"),
        ("example.org=-1", "looks like"),
        ("exa*mple.org=1", "looks like"),
        ("example.org=1/0", "connections are from 1"),
        ("example.org=1/5000", "connections are from 1"),
        ("example.org=200000", "a rate is 0 or from"),
        ("example.org=0.0001", "a rate is 0 or from"),
        ("example.org:443=1", "a limit has no port"),
        ("http://example.org=1", "looks like"),
    ],
)
def test_what_is_no_limit_is_refused_with_what_one_looks_like(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_limits(text)
    with pytest.raises(ValidationError, match=complaint):
        FetchSettings(host_limits=text)


@pytest.mark.parametrize(
    ("host", "budget"),
    [
        ("example.com", REST),
        ("example.org", Budget(5.0, 8)),
        ("example.org.", Budget(5.0, 8)),
        ("a.example.org", Budget(1.0, 2)),
        ("b.a.example.org", Budget(1.0, 2)),
        ("x.cdn.example.org", Budget(0.0, 8)),
        ("cdn.example.org", Budget(1.0, 2)),
        ("notexample.org", REST),
        ("10.0.0.1", REST),
    ],
)
def test_the_nearest_limit_counts(host, budget):
    limits = HostLimits(REST, parse_limits("example.org=5, *.example.org=1/2, *.cdn.example.org=0"))
    assert limits.of(host) == budget


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine_is_asked_at_any_rate_if_no_limit_names_it(host):
    assert HostLimits(REST).of(host) == Budget(0.0, 8)
    named = HostLimits(REST, [HostLimit(host, 3.0, 1)])
    assert named.of(host) == Budget(3.0, 1)


@pytest.mark.parametrize("host", ["127.0.0.1.example.org", "localhost.example.org", "::2", "127.x"])
def test_what_only_looks_like_this_machine_is_not_it(host):
    assert HostLimits(REST).of(host) == REST


def test_settings_say_how_often_hosts_are_asked():
    limits = FetchSettings(rate=3, per_host=2, host_limits="*.example.org=0/9").limits
    assert limits.of("example.com") == Budget(3.0, 2)
    assert limits.of("a.example.org") == Budget(0.0, 9)


def test_a_share_is_a_part_of_the_rate_and_of_the_connections_but_one_at_least():
    assert REST.share(4) == Budget(5.0, 2)
    assert REST.share(20) == Budget(1.0, 1)
    assert Budget(0.0, 8).share(2) == Budget(0.0, 4)
