"""Which addresses belong to the public internet: by the IANA registries of special-purpose addresses.

The rules stand here and not in `ipaddress`, whose `is_global` differs between the releases of Python and knows
nothing of addresses within addresses. An IPv6 address that carries an IPv4 address to which something on the way
could send the packets (mapped, 6to4, Teredo, NAT64, ISATAP) is as good as the worst of what it carries.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SPECIAL_V4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local; the metadata services of clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_SPECIAL_V6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: ORCHID, benchmarks, AMT; Teredo is unwrapped before
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})


def is_public(address: Address) -> bool:
    """Whether the address, and each one that it carries, belongs to the public internet."""
    return all(_is_public_alone(each) for each in unwrap(address))


def unwrap(address: Address) -> Iterator[Address]:
    """The addresses that must all be allowed for `address` to be: itself, or what it carries."""
    if isinstance(address, IPv4Address):
        yield address
        return
    bits = int(address)
    if address in _MAPPED or address in _NAT64:
        yield IPv4Address(bits & 0xFFFFFFFF)
    elif address in _SIX_TO_FOUR:
        yield IPv4Address((bits >> 80) & 0xFFFFFFFF)
    elif address in _TEREDO:
        yield IPv4Address((bits >> 64) & 0xFFFFFFFF)
        yield IPv4Address(~bits & 0xFFFFFFFF)
    else:
        yield address
        if (bits >> 32) & 0xFFFFFFFF in _ISATAP:
            yield IPv4Address(bits & 0xFFFFFFFF)


def _is_public_alone(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)


def parse_networks(texts: list[str]) -> tuple[Network, ...]:
    """Networks as settings write them. Raises ValueError for what is none."""
    return tuple(ip_network(text) for text in texts)
