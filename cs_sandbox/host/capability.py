"""The check of a host call against what its version was granted. What is absent is denied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from codesous.type.v1.capabilities_pb2 import Capabilities

from cs_sandbox.host.catalogue import HostCall
from cs_sandbox.host.url import ParsedUrl, parse_url
from cs_sandbox.job import HostCallError

DENIED: Final = "CS_RUNTIME_CAPABILITY_DENIED"
REASON_FIELD: Final = "CS_VALIDATION_FIELD"
_SHOWN: Final = 128
"""Characters of what was asked that an error repeats."""


@dataclass(frozen=True, slots=True)
class Grants:
    """What one activation may ask for."""

    capabilities: Capabilities
    cadence: bool = False
    """Whether it came from a Cadence task: only those have a heartbeat."""
    report_host: Callable[[str], None] | None = None
    """Told of each fetch from a host that the capabilities do not name; it is then let through. None: it is denied."""

    def check(self, call: HostCall, arguments: list[Any]) -> None:
        """Return when the call is granted. Raises HostCallError, which names the capability and what was asked."""
        asked = arguments[0] if arguments else None
        match call.area:
            case "kv":
                self._check_kv(call, asked)
            case "codeq":
                self._check_topic(asked)
            case "http":
                if call.operation == "fetch":
                    self.check_url(parse_url(_text(call, asked)))
            case "cadence":
                if not self.cadence:
                    raise denied("cadence", "a heartbeat", "of an activation that no Cadence task caused")
            case "secrets":
                if _text(call, asked) not in self.capabilities.secrets:
                    raise denied("secrets", shown(asked), "by cs.secrets.get")

    def _check_kv(self, call: HostCall, asked: object) -> None:
        key, granted = _text(call, asked), self.capabilities.kv
        if call.kv not in granted.operations:
            raise denied("kv", f"operation {call.operation}", f"on {shown(key)}")
        if not any(key.startswith(prefix) for prefix in granted.prefixes):
            what = "prefix" if call.operation == "list" else "key"
            raise denied("kv", f"{what} {shown(key)}", f"for {call.operation}")

    def _check_topic(self, asked: object) -> None:
        if not isinstance(asked, str):
            raise HostCallError(REASON_FIELD, "cs.codeq.publish: the topic must be text")
        if asked == "cs" or asked.startswith("cs."):
            why = "cs.* is the platform's own"
            raise HostCallError(DENIED, f"capability codeq never allows topic {shown(asked)}: {why}")
        if not matches_topic(self.capabilities.codeq.publish_topics, asked):
            raise denied("codeq", f"topic {shown(asked)}", "by cs.codeq.publish")

    def check_url(self, url: ParsedUrl) -> None:
        """Return when the host may be reached, or its use is only reported. Raises HostCallError."""
        if matches_host(self.capabilities.http.allow_hosts, url.host):
            return
        if self.report_host is None:
            raise denied("http", f"host {shown(url.host)}", "by fetch")
        self.report_host(url.host)


def matches_topic(patterns: Sequence[str], topic: str) -> bool:
    """Whether `topic` is one of the names, or begins like one that ends in `*`."""
    return any(topic.startswith(p[:-1]) if p.endswith("*") else topic == p for p in patterns)


def matches_host(patterns: Sequence[str], host: str) -> bool:
    """Whether a host, in its canonical form, is one of the names, or below a domain that is given as `*.domain`."""
    return any(host.endswith(p[1:].lower()) if p.startswith("*.") else host == p.lower() for p in patterns)


def denied(capability: str, asked: str, where: str) -> HostCallError:
    """The denial: names the capability and what was asked."""
    return HostCallError(
        DENIED, f"capability {capability} does not allow {asked} {where}: the version's capabilities do not name it"
    )


def shown(value: object) -> str:
    """What was asked, short enough to repeat in an error."""
    text = value if isinstance(value, str) else type(value).__name__
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def _text(call: HostCall, asked: object) -> str:
    if not isinstance(asked, str):
        raise HostCallError(REASON_FIELD, f"cs.{call.method}: the first argument must be text")
    return asked
