"""The rules of the way out: where the fetches of functions may go. Each rule gives a verdict; `enforce` acts on it.

Names are judged by `capability`, before they are looked up; here the addresses are, when a connection is about to be
made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from cs_sandbox.host.addresses import Address, Network, is_public, unwrap
from cs_sandbox.host.capability import DENIED
from cs_sandbox.job import HostCallError

BLOCKED_PORTS: Final = frozenset({
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110,
    111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532,
    540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061,
    6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
})  # fmt: skip
"""The "bad ports" of the Fetch standard: services that take a request for commands of their own."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of one connection. `why` tells it to people when it is not allowed."""

    allowed: bool
    host: str
    port: int
    why: str = ""
    addresses: tuple[Address, ...] = ()
    """Where the connection may go, in the order of the resolver."""


@dataclass(frozen=True, slots=True)
class EgressRules:
    """Which addresses and ports may be connected to."""

    allow_networks: tuple[Network, ...] = ()
    """Taken for public, whatever they are. Dangerous: for development only."""
    block_networks: tuple[Network, ...] = ()
    """Never connected to, whatever else is said: an operator's own public networks."""

    def judge(self, host: str, port: int, addresses: Sequence[str]) -> Verdict:
        """Judge a connection to a host whose name stands for `addresses`."""
        if port in BLOCKED_PORTS:
            return Verdict(False, host, port, f"port {port} belongs to another protocol")
        passed = tuple(address for text in addresses if (address := _read(text)) is not None and self._passes(address))
        if not passed:
            # Which addresses they are is not told: a function is not to map what is inside.
            return Verdict(False, host, port, "it is no address of the public internet")
        return Verdict(True, host, port, addresses=passed)

    def _passes(self, address: Address) -> bool:
        carried = tuple(unwrap(address))
        if any(each in network for network in self.block_networks for each in (address, *carried)):
            return False
        return any(address in network for network in self.allow_networks) or is_public(address)


def enforce(verdict: Verdict) -> Verdict:
    """The verdict itself when it allows. Raises HostCallError, which names the capability and what was asked."""
    if not verdict.allowed:
        asked = f"host {verdict.host!r}, port {verdict.port}"
        raise HostCallError(DENIED, f"capability http does not allow {asked}: {verdict.why}")
    return verdict


def _read(text: str) -> Address | None:
    """An address of a resolver; one with a zone is of one link only, and never public."""
    return None if "%" in text else ip_address(text)
