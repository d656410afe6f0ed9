"""Which addresses may be asked for an image: public unicast ones, and those that the user allows.

Pure: no resolving and no I/O. The fetcher asks it about every address that it is about to connect
to, after resolving, so that neither a name nor a redirect can lead around it.
"""

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import TypeAlias

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

# RFC 6890 and its registry, written out because `is_global` differs between Python versions and
# calls some of these public (multicast, for one).
_REFUSED_IPV4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, and the metadata services of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_UNICAST_IPV6 = IPv6Network("2000::/3")
_REFUSED_IPV6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo and ORCHID among them
        "2001:db8::/32",
        "2002::/16",  # 6to4 (deprecated, RFC 7526): carries any IPv4 address
        "3fff::/20",
    )
)
# The two forms that real networks use to reach a public IPv4 host; what counts is the IPv4 address.
_CARRIES_IPV4 = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))


class AddressGuard:
    """Says whether an address may be connected to.

    Everything that is not public unicast is refused: loopback, private, link-local, shared (CGNAT),
    multicast, reserved and documentation ranges, and those same addresses inside IPv4-mapped and
    NAT64 forms. 6to4, Teredo, IPv4-compatible and local NAT64 (64:ff9b:1::/48) addresses are
    refused whole.
    """

    def __init__(self, allow_networks: Iterable[IPNetwork] = ()) -> None:
        self._allowed = tuple(allow_networks)

    def permits(self, address: str | IPAddress) -> bool:
        """Whether `address` (an IP, not a name; a zone such as `%eth0` is ignored) may be asked.

        Raises:
            ValueError: `address` is no IP address.
        """
        ip = ip_address(address.partition("%")[0]) if isinstance(address, str) else address
        forms = (ip, *_carried(ip))
        if any(_within(form, self._allowed) for form in forms):
            return True
        return _is_public(forms[-1])


def _carried(ip: IPAddress) -> tuple[IPv4Address, ...]:
    if isinstance(ip, IPv6Address) and any(ip in network for network in _CARRIES_IPV4):
        return (IPv4Address(int(ip) & 0xFFFF_FFFF),)
    return ()


def _within(ip: IPAddress, networks: Iterable[IPNetwork]) -> bool:
    return any(ip in network for network in networks if network.version == ip.version)


def _is_public(ip: IPAddress) -> bool:
    if isinstance(ip, IPv4Address):
        return not _within(ip, _REFUSED_IPV4)
    return ip in _UNICAST_IPV6 and not _within(ip, _REFUSED_IPV6)
