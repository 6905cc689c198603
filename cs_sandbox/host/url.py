"""The reading of URLs that user code gave. One strict reading, of which everything else takes its parts.

What two readers could take for two different hosts is refused, not interpreted: spaces and backslashes, percent signs
in a host, zone ids, addresses in octal, hexadecimal or short form. So there is no second spelling of an address, and
the host that is checked is the host that is connected to. Names beyond ASCII become their IDNA form first (UTS 46),
which also turns full-width digits and dots into plain ones: those are judged after it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin

import idna

from cs_sandbox.job import HostCallError

URL_MAX: Final = 8192
PORTS: Final = {"http": 80, "https": 443}
_REASON: Final = "CS_VALIDATION_FIELD"
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z]+)://(?P<authority>[^/?#]+)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?:#.*)?")
_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f\\]")
_AUTHORITY: Final = re.compile(r"(?:(?P<user>.*)@)?(?P<host>\[[^\]]*\]|[^:@]*)(?::(?P<port>[0-9]{0,5}))?", re.DOTALL)
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_TARGET_UNSAFE: Final = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/?%\[\]|^]")


@dataclass(frozen=True, slots=True)
class ParsedUrl:
    """The parts of a URL, canonical."""

    scheme: str
    host: str
    """ASCII, lower case: a name without a final dot, or an address (IPv6 without brackets)."""
    port: int
    target: str
    """Path and query, ASCII. The fragment is left out."""

    @property
    def origin(self) -> tuple[str, str, int]:
        """What must be the same for credentials to be sent along."""
        return (self.scheme, self.host, self.port)

    @property
    def authority(self) -> str:
        """Host and port, as the header `host` has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_url(text: str) -> ParsedUrl:
    """Read an absolute URL. Raises HostCallError with CS_VALIDATION_FIELD for all but a plain http or https URL."""
    if len(text) > URL_MAX:
        raise _refuse(f"is longer than {URL_MAX} characters")
    found = None if _FORBIDDEN.search(text) else _URL.fullmatch(text)
    if found is None or found["scheme"].lower() not in PORTS:
        raise _refuse("must be an absolute http or https URL without spaces, control characters and backslashes")
    scheme = found["scheme"].lower()
    authority = _AUTHORITY.fullmatch(found["authority"])
    if authority is None:
        raise _refuse("has no host, or a port that is no number")
    host = _host(authority["host"])
    if authority["user"] is not None:
        raise _refuse(f"must not carry a user name or password (its host is {host!r})")
    port = int(authority["port"]) if authority["port"] else PORTS[scheme]
    if not 1 <= port <= 65_535:
        raise _refuse("has a port that is not from 1 to 65535")
    return ParsedUrl(scheme, host, port, _target(found["path"] or "/") + _target(found["query"] or ""))


def follow(url: ParsedUrl, location: str) -> ParsedUrl:
    """The URL that a redirect from `url` leads to. Raises HostCallError as `parse_url` does."""
    if _FORBIDDEN.search(location):
        raise _refuse("of the redirect holds spaces, control characters or backslashes")
    try:
        return parse_url(urljoin(str(url), location))
    except ValueError:
        raise _refuse("of the redirect cannot be read") from None


def _host(raw: str) -> str:
    """The canonical host. Raises HostCallError for what is no plain name and no address in its one plain spelling."""
    try:
        if raw.startswith("["):
            return _ipv6(raw[1:-1])
        name = raw if raw.isascii() else idna.encode(raw, uts46=True, transitional=False).decode()
        name = name.lower().removesuffix(".")
        labels = name.split(".")
        if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
            raise ValueError(name)  # noqa: TRY301 - one answer for all that is odd
        # A name whose last label is a number is an address to every resolver, in one of many spellings. One is taken.
        return str(ipaddress.IPv4Address(name)) if _NUMBER.fullmatch(labels[-1]) else name
    except (ValueError, idna.IDNAError):
        raise _refuse(f"has a host that is no plain name or address: {raw[:100]!r}") from None


def _ipv6(text: str) -> str:
    if "%" in text:
        raise ValueError(text)
    return str(ipaddress.IPv6Address(text))


def _target(text: str) -> str:
    return _TARGET_UNSAFE.sub(_percent, text)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "replace"))


def _refuse(rule: str) -> HostCallError:
    return HostCallError(_REASON, f"url: {rule}")
