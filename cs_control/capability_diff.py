"""What a version may reach that another may not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from codesous.control.v1.capability_diff_pb2 import CapabilityDiff, Reach
from codesous.control.v1.version_pb2 import Version
from codesous.runtime.v1.version_config_pb2 import VersionConfig
from codesous.type.v1.capabilities_pb2 import KvOperation

from cs_control.capabilities import covers_host, covers_prefix, covers_topic

_NOTHING = Reach()
# No pattern of a capability: what a version may reach whose egress is only reported.
ANY_HOST: Final = "*"


def diff_versions(before: Version | None, after: Version) -> CapabilityDiff:
    """Compare two versions; None compares with nothing at all."""
    old = _NOTHING if before is None else reach_of(before.config)
    new = reach_of(after.config)
    added, removed = beyond(new, old), beyond(old, new)
    return CapabilityDiff(
        from_version=0 if before is None else before.version,
        to_version=after.version,
        added=added if added != _NOTHING else None,
        removed=removed if removed != _NOTHING else None,
    )


def reach_of(config: VersionConfig) -> Reach:
    """What a configuration comes to. Prefixes without an operation, or operations without a prefix, reach nothing."""
    capabilities, kv = config.capabilities, config.capabilities.kv
    usable = bool(kv.prefixes) and bool(kv.operations)
    return Reach(
        hosts=[ANY_HOST] if config.egress_report_only else _sorted(capabilities.http.allow_hosts),
        topics=_sorted(capabilities.codeq.publish_topics),
        key_prefixes=_sorted(kv.prefixes if usable else ()),
        key_operations=sorted(set(kv.operations if usable else ())),
        secrets=_sorted(capabilities.secrets),
    )


def beyond(wide: Reach, narrow: Reach) -> Reach:
    """What of `wide` no pattern of `narrow` covers. An operation is new when it was allowed on no key before."""
    return Reach(
        hosts=_uncovered(wide.hosts, narrow.hosts, _covers_host),
        topics=_uncovered(wide.topics, narrow.topics, covers_topic),
        key_prefixes=_uncovered(wide.key_prefixes, narrow.key_prefixes, covers_prefix),
        key_operations=[operation for operation in wide.key_operations if operation not in narrow.key_operations],
        secrets=[name for name in wide.secrets if name not in narrow.secrets],
    )


def listed(reach: Reach) -> dict[str, str]:
    """What is reached, by kind, as text: for messages and for the details of an error."""
    kinds = {
        "hosts": reach.hosts,
        "topics": reach.topics,
        "key_prefixes": reach.key_prefixes,
        "key_operations": [_word(operation) for operation in reach.key_operations],
        "secrets": reach.secrets,
    }
    return {kind: ", ".join(values) for kind, values in kinds.items() if values}


def _covers_host(allowed: str, host: str) -> bool:
    return allowed == ANY_HOST or covers_host(allowed, host)


def _word(operation: KvOperation.ValueType) -> str:
    return KvOperation.Name(operation).removeprefix("KV_OPERATION_").lower()


def _uncovered(asked: Iterable[str], allowed: Iterable[str], covers: Callable[[str, str], bool]) -> list[str]:
    known = list(allowed)
    return [pattern for pattern in asked if not any(covers(one, pattern) for one in known)]


def _sorted(values: Iterable[str]) -> list[str]:
    return sorted(set(values))
