"""The address guard: every special-purpose range is refused in every form, public ones are not."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pairscore.fetch.address import AddressGuard, IPAddress, IPNetwork

REFUSED = {
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "rfc1918": [
        *["10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255"],
        *["192.168.0.1", "192.168.255.255"],
    ],
    "link-local": ["169.254.0.1", "169.254.255.255", "fe80::1", "febf::1"],
    "cloud metadata": ["169.254.169.254", "169.254.170.2", "100.100.100.200", "fd00:ec2::254"],
    "carrier-grade NAT": ["100.64.0.0", "100.127.255.255"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "broadcast": ["255.255.255.255"],
    "reserved": ["240.0.0.1", "254.1.2.3", "4000::1", "e000::1"],
    "protocol assignments": ["192.0.0.1", "192.0.0.170", "2001::1", "2001:1ff::1"],
    "documentation": ["192.0.2.1", "198.51.100.7", "203.0.113.9", "2001:db8::1", "3fff::1"],
    "benchmarking": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "unique local": ["fc00::1", "fd12:3456:789a::1", "fdff::1"],
    "site-local": ["fec0::1", "feff::1"],
    "discard": ["100::1"],
    "segment routing": ["5f00::1"],
    "IPv4-mapped": [
        *["::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe"],
        "::ffff:0.0.0.0",
    ],
    "IPv4-compatible": ["::127.0.0.1", "::7f00:1", "::8.8.8.8"],
    "IPv4-translated": ["::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"],
    "NAT64": ["64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b::169.254.169.254"],
    "local NAT64": ["64:ff9b:1::8.8.8.8", "64:ff9b:1:ffff::1"],
    "6to4": ["2002:7f00:1::", "2002:808:808::1", "192.88.99.1"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "zones": ["fe80::1%eth0", "::1%lo", "fd00::1%25"],
}
PUBLIC = [
    *["1.1.1.1", "8.8.8.8", "93.184.216.34", "151.101.1.140", "223.255.255.254"],
    # The neighbours of refused ranges.
    *["1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"],
    *["128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0"],
    *["191.255.255.255", "192.0.1.0", "192.0.3.0", "192.88.98.255", "192.88.100.0"],
    *["192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "198.51.99.255"],
    *["198.51.101.0", "203.0.112.255", "203.0.114.0"],
    *["2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450:4001::1", "2620:fe::fe"],
    *["2001:200::1", "2001:db7:ffff::1", "2001:db9::1", "2003::1", "3ffe:ffff::1", "2400:cb00::1"],
    *["::ffff:8.8.8.8", "::ffff:808:808", "64:ff9b::8.8.8.8", "64:ff9b::101:101"],
]
# IANA's special-purpose address registries (RFC 6890), deprecated ranges and multicast.
SPECIAL_RANGES = [
    *["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"],
    *["172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"],
    *["198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"],
    *["::1/128", "::/128", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32"],
    *["2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"],
]
MAPPED = IPv6Network("::ffff:0:0/96")
NAT64 = IPv6Network("64:ff9b::/96")


def within(text: str | IPNetwork) -> st.SearchStrategy[IPAddress]:
    network = ip_network(text)
    kind = IPv4Address if network.version == 4 else IPv6Address
    return st.integers(int(network[0]), int(network[-1])).map(kind)


v4 = st.ip_addresses(v=4) | st.sampled_from([r for r in SPECIAL_RANGES if "." in r]).flatmap(within)
carrying = st.builds(
    lambda prefix, ip: IPv6Address(int(prefix[0]) | int(ip)), st.sampled_from([MAPPED, NAT64]), v4
)
v6 = (
    st.ip_addresses(v=6)
    | st.sampled_from([r for r in SPECIAL_RANGES if ":" in r]).flatmap(within)
    | within("2000::/3")
    | carrying
)
networks = st.builds(
    lambda ip, bits: ip_network((ip, min(bits, ip.max_prefixlen)), strict=False),
    v4 | v6,
    st.integers(0, 128),
)


def carried(ip: IPAddress) -> IPv4Address | None:
    if isinstance(ip, IPv6Address) and (ip in MAPPED or ip in NAT64):
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


def is_special(ip: IPAddress) -> bool:
    inner = carried(ip)
    if inner is not None:
        return is_special(inner)
    return (
        any(ip in ip_network(text) for text in SPECIAL_RANGES)
        or ip.is_private
        or ip.is_loopback
        or ip.is_link_local
        or ip.is_multicast
        or ip.is_reserved
        or ip.is_unspecified
        or (isinstance(ip, IPv6Address) and bool(ip.is_site_local or ip.sixtofour or ip.teredo))
    )


@pytest.mark.parametrize(
    ("kind", "address"), [(kind, text) for kind, texts in REFUSED.items() for text in texts]
)
def test_an_address_that_is_not_public_is_refused_in_every_form(kind, address):
    assert not AddressGuard().permits(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_permitted(address):
    assert AddressGuard().permits(address)


def test_the_zone_of_an_address_does_not_matter():
    assert AddressGuard().permits("2606:4700:4700::1111%eth0")
    assert AddressGuard([ip_network("fe80::/10")]).permits("fe80::1%eth0")


@pytest.mark.parametrize("text", ["", "example.org", "127.1", "2130706433", "0x7f.0.0.1", "[::1]"])
def test_what_is_no_address_is_never_permitted(text):
    with pytest.raises(ValueError, match="address"):
        AddressGuard().permits(text)


@hypothesis_settings(deadline=None)
@given(v4 | v6)
def test_nothing_special_is_permitted_as_an_object_or_as_text(ip):
    permitted = AddressGuard().permits(ip)
    assert AddressGuard().permits(str(ip)) == permitted
    if is_special(ip):
        assert not permitted


@hypothesis_settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_every_ipv4_address_outside_the_registry_is_permitted_and_so_is_its_mapped_form(ip):
    expected = not any(ip in ip_network(text) for text in SPECIAL_RANGES if "." in text)
    assert AddressGuard().permits(ip) == expected
    assert AddressGuard().permits(f"::ffff:{ip}") == expected
    assert AddressGuard().permits(f"64:ff9b::{ip}") == expected


@hypothesis_settings(deadline=None, max_examples=300)
@given(networks, v4 | v6, st.booleans(), st.data())
def test_an_allowed_network_opens_itself_and_nothing_else(network, elsewhere, inside, data):
    ip = data.draw(within(network)) if inside else elsewhere
    forms = [form for form in (ip, carried(ip)) if form is not None]
    named = any(form in network for form in forms if form.version == network.version)
    assert AddressGuard([network]).permits(ip) == (named or AddressGuard().permits(ip))


@pytest.mark.parametrize(
    ("network", "opened", "closed"),
    [
        ("127.0.0.1/32", ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"], ["127.0.0.2"]),
        ("10.1.0.0/16", ["10.1.2.3", "::ffff:a01:203"], ["10.2.0.1", "::ffff:10.2.0.1"]),
        ("fd00:1::/32", ["fd00:1::5"], ["fd00:2::5", "fe80::1", "10.0.0.1"]),
        ("::1/128", ["::1"], ["127.0.0.1", "::2", "::ffff:127.0.0.1"]),
        ("::ffff:10.0.0.0/104", ["::ffff:10.0.0.1"], ["10.0.0.1", "::ffff:11.0.0.0", "::a00:1"]),
        ("0.0.0.0/0", ["10.0.0.1", "255.255.255.255"], ["::1", "fd00::1", "2002:a00:1::"]),
    ],
)
def test_allowed_networks_by_example(network, opened, closed):
    guard = AddressGuard([ip_network(network)])
    assert all(guard.permits(address) for address in opened)
    public = AddressGuard()
    assert all(guard.permits(address) == public.permits(address) for address in closed)


def test_several_networks_may_be_allowed():
    guard = AddressGuard([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])
    permitted = [guard.permits(text) for text in ("10.0.0.1", "fd00::1", "192.168.0.1")]
    assert permitted == [True, True, False]
    assert guard.permits(ip_address("8.8.8.8"))
