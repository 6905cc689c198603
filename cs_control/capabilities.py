"""The rules of capabilities: what may be asked for, and that a publish narrows and never widens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from codesous.type.v1.capabilities_pb2 import Capabilities, HttpCapability, KvOperation
from google.protobuf.duration_pb2 import Duration

from cs_core.names import Violations

MAX_ENTRIES: Final = 64
_KV_PREFIX_CHARS: Final = 256
_SECRET_CHARS: Final = 128
_TOPIC: Final = re.compile(r"[a-z][a-z0-9_.-]{0,126}\*?|\*")
_HOST: Final = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_FETCH_SECONDS_DEFAULT: Final = 10.0
_FETCH_SECONDS_MAX: Final = 60.0


def seconds(duration: Duration) -> float:
    """The length of a duration in seconds, whatever its fields hold."""
    return duration.seconds + duration.nanos / 1e9


def check_capabilities(capabilities: Capabilities, field: str, violations: Violations) -> None:
    """Note every rule that `capabilities` breaks."""
    if capabilities.HasField("kv"):
        kv = capabilities.kv
        _check_texts(kv.prefixes, f"{field}.kv.prefixes", _KV_PREFIX_CHARS, violations)
        known = set(KvOperation.values()) - {KvOperation.KV_OPERATION_UNSPECIFIED}
        for index, operation in enumerate(kv.operations[:MAX_ENTRIES]):
            if operation not in known:
                violations.add(f"{field}.kv.operations[{index}]", "must be a known operation")
        if len(kv.operations) > MAX_ENTRIES:
            violations.add(f"{field}.kv.operations", f"must be at most {MAX_ENTRIES}")
    if capabilities.HasField("codeq"):
        rule = "must be a topic, or a prefix followed by *"
        _check_pattern(capabilities.codeq.publish_topics, f"{field}.codeq.publish_topics", _TOPIC, rule, violations)
        for index, topic in enumerate(capabilities.codeq.publish_topics[:MAX_ENTRIES]):
            if topic == "cs" or topic.startswith("cs."):
                violations.add(f"{field}.codeq.publish_topics[{index}]", "is a topic of the platform itself")
    if capabilities.HasField("http"):
        rule = "must be a host name in lower case, or *. and a domain"
        _check_pattern(capabilities.http.allow_hosts, f"{field}.http.allow_hosts", _HOST, rule, violations)
        if capabilities.http.HasField("timeout"):
            length = seconds(capabilities.http.timeout)
            if not 0 < length <= _FETCH_SECONDS_MAX:
                violations.add(f"{field}.http.timeout", f"must be more than 0 s and at most {_FETCH_SECONDS_MAX:g} s")
    _check_texts(capabilities.secrets, f"{field}.secrets", _SECRET_CHARS, violations)


def check_narrowing(narrow: Capabilities, wide: Capabilities, field: str, violations: Violations) -> None:
    """Note everything that `narrow` allows and `wide` does not."""
    for kind in ("kv", "codeq", "http"):
        if narrow.HasField(kind) and not wide.HasField(kind):
            violations.add(f"{field}.{kind}", "the manifest does not ask for it")
    _check_covered(
        narrow.kv.prefixes,
        lambda prefix: any(covers_prefix(allowed, prefix) for allowed in wide.kv.prefixes),
        f"{field}.kv.prefixes",
        violations,
    )
    _check_covered(
        [KvOperation.Name(operation) for operation in narrow.kv.operations],
        lambda name: KvOperation.Value(name) in wide.kv.operations,
        f"{field}.kv.operations",
        violations,
    )
    _check_covered(
        narrow.codeq.publish_topics,
        lambda topic: any(covers_topic(allowed, topic) for allowed in wide.codeq.publish_topics),
        f"{field}.codeq.publish_topics",
        violations,
    )
    _check_covered(
        narrow.http.allow_hosts,
        lambda host: any(covers_host(allowed, host) for allowed in wide.http.allow_hosts),
        f"{field}.http.allow_hosts",
        violations,
    )
    if narrow.HasField("http") and wide.HasField("http") and _fetch_limit(narrow.http) > _fetch_limit(wide.http):
        violations.add(f"{field}.http.timeout", "is longer than the manifest's")
    _check_covered(narrow.secrets, lambda name: name in wide.secrets, f"{field}.secrets", violations)


def _fetch_limit(http: HttpCapability) -> float:
    return seconds(http.timeout) if http.HasField("timeout") else _FETCH_SECONDS_DEFAULT


def covers_prefix(allowed: str, prefix: str) -> bool:
    """Whether every key under `prefix` is under `allowed`."""
    return prefix.startswith(allowed)


def covers_topic(allowed: str, topic: str) -> bool:
    """Whether every topic that `topic` means, a name or a prefix followed by `*`, is one that `allowed` means."""
    return topic.startswith(allowed[:-1]) if allowed.endswith("*") else topic == allowed


def covers_host(allowed: str, host: str) -> bool:
    """Whether every host that `host` means, a name or `*.` and a domain, is one that `allowed` means."""
    return host == allowed or (allowed.startswith("*.") and host.endswith(allowed[1:]))


def _check_covered(asked: Iterable[str], covered: Callable[[str], bool], field: str, violations: Violations) -> None:
    for index, value in enumerate(asked):
        if not covered(value):
            violations.add(f"{field}[{index}]", "the manifest does not ask for it")


def _check_texts(values: Sequence[str], field: str, most_chars: int, violations: Violations) -> None:
    if len(values) > MAX_ENTRIES:
        violations.add(field, f"must be at most {MAX_ENTRIES}")
    for index, value in enumerate(values[:MAX_ENTRIES]):
        if not 1 <= len(value) <= most_chars or not value.isprintable():
            violations.add(f"{field}[{index}]", f"must be 1 to {most_chars} printable characters")


def _check_pattern(
    values: Sequence[str], field: str, pattern: re.Pattern[str], rule: str, violations: Violations
) -> None:
    if len(values) > MAX_ENTRIES:
        violations.add(field, f"must be at most {MAX_ENTRIES}")
    for index, value in enumerate(values[:MAX_ENTRIES]):
        if len(value) > 253 or not pattern.fullmatch(value):
            violations.add(f"{field}[{index}]", rule)
