"""The rules of manifests, configurations and capabilities."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from codesous.runtime.v1.manifest_pb2 import Manifest
from codesous.runtime.v1.version_config_pb2 import IsolationLevel, VersionConfig
from codesous.type.v1.capabilities_pb2 import Capabilities, KvOperation
from google.protobuf import json_format

from cs_control.capabilities import check_capabilities, check_narrowing
from cs_control.manifest import read_manifest
from cs_control.version_config import effective_config
from cs_core.config import LimitSettings
from cs_core.errors import ValidationError
from cs_core.names import Violations

LIMITS = LimitSettings()
FILES = {"index.js": b"export default () => 1"}


def manifest(**fields: Any) -> dict[str, bytes]:
    return {**FILES, "manifest.json": json.dumps({"runtime": "cs-js", **fields}).encode()}


def config(**fields: Any) -> VersionConfig:
    return json_format.ParseDict(fields, VersionConfig())


def capabilities(**fields: Any) -> Capabilities:
    return json_format.ParseDict(fields, Capabilities())


def violated(error: ValidationError) -> set[str]:
    return {violation.field for violation in error.violations}


def test_enum_values_may_be_written_as_their_short_words() -> None:
    short = manifest(config={"isolation": "version"}, capabilities={"kv": {"prefixes": ["a"], "operations": ["get"]}})
    read = read_manifest(short, LIMITS)
    assert read.config.isolation == IsolationLevel.ISOLATION_LEVEL_VERSION
    assert list(read.capabilities.kv.operations) == [KvOperation.KV_OPERATION_GET]
    full = manifest(
        config={"isolation": "ISOLATION_LEVEL_VERSION"},
        capabilities={"kv": {"prefixes": ["a"], "operations": ["KV_OPERATION_GET"]}},
    )
    assert read_manifest(full, LIMITS) == read


def test_the_smallest_manifest_is_fine() -> None:
    assert read_manifest(manifest(), LIMITS) == Manifest(runtime="cs-js")


@pytest.mark.parametrize(
    ("files", "field"),
    [
        (FILES, "manifest.json"),
        ({**FILES, "manifest.json": b""}, "manifest.json"),
        ({**FILES, "manifest.json": b"[]"}, "manifest.json"),
        ({**FILES, "manifest.json": b'{"runtime": "cs-js", "runtime": "cs-js"}'}, "manifest.json"),
        (manifest(config={"isolation": "tenant"}), "manifest.json"),
        (manifest(config={"isolation": "unspecified"}), "manifest.json"),
        ({**FILES, "manifest.json": b"\xff"}, "manifest.json"),
        ({**FILES, "manifest.json": b"[" * 100_000}, "manifest.json"),
        ({**FILES, "manifest.json": b'{"a":' * 20_000}, "manifest.json"),
        ({**FILES, "manifest.json": b'{"runtime": 1}'}, "manifest.json"),
        (manifest(config={"timeout": "0.1e999s"}), "manifest.json"),
        (manifest(unknown=1), "manifest.json"),
        (manifest(config={"unknown": 1}), "manifest.json"),
        (manifest(runtime="python"), "manifest.json: runtime"),
        (manifest(runtime=""), "manifest.json: runtime"),
        (manifest(entry="missing.js"), "manifest.json: entry"),
        (manifest(entry="/index.js"), "manifest.json: entry"),
        (manifest(description="x" * 257), "manifest.json: description"),
        (manifest(description="a\nb"), "manifest.json: description"),
        (manifest(config={"timeout": "0s"}), "manifest.json: config.timeout"),
        (manifest(capabilities={"secrets": [""]}), "manifest.json: capabilities.secrets[0]"),
    ],
)
def test_a_bad_manifest_names_what_is_wrong(files: dict[str, bytes], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read_manifest(files, LIMITS)
    assert caught.value.reason == "CS_VALIDATION_MANIFEST"
    assert field in violated(caught.value)


def test_defaults_are_filled_in() -> None:
    found = effective_config(Manifest(), VersionConfig(), LIMITS)
    assert found.timeout.ToTimedelta() == timedelta(seconds=3)
    assert found.worker_timeout.ToTimedelta() == timedelta(seconds=30)
    assert (found.memory_mb, found.max_concurrency) == (128, 100)
    assert found.isolation == IsolationLevel.ISOLATION_LEVEL_ACTIVATION
    assert list(found.invoke_http_roles) == []


def test_what_the_publish_sets_replaces_what_the_manifest_says() -> None:
    base = Manifest(config=config(timeout="5s", invokeHttpRoles=["a", "b"], env={"A": "1", "B": "2"}, memoryMb=64))
    found = effective_config(base, config(invokeHttpRoles=["c"], env={"C": "3"}, timeout="1s"), LIMITS)
    assert list(found.invoke_http_roles) == ["c"]
    assert dict(found.env) == {"C": "3"}
    assert found.timeout.ToTimedelta() == timedelta(seconds=1)
    assert found.memory_mb == 64
    assert list(base.config.invoke_http_roles) == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"timeout": "30.001s"}, "config.timeout"),
        ({"timeout": "0.0001s"}, "config.timeout"),
        ({"timeout": "-1s"}, "config.timeout"),
        ({"timeout": "9999999999s"}, "config.timeout"),
        ({"workerTimeout": "901s"}, "config.worker_timeout"),
        ({"memoryMb": 15}, "config.memory_mb"),
        ({"memoryMb": 4097}, "config.memory_mb"),
        ({"maxConcurrency": 101}, "config.max_concurrency"),
        ({"invokeHttpRoles": [""]}, "config.invoke_http_roles[0]"),
        ({"invokeScheduleRoles": ["x" * 257]}, "config.invoke_schedule_roles[0]"),
        ({"invokeCadenceRoles": ["r"] * 65}, "config.invoke_cadence_roles"),
        ({"env": {"lower": "x"}}, "config.env[lower]"),
        ({"env": {"A": "x" * 4097}}, "config.env[A]"),
        ({"env": {f"A{n}": "" for n in range(65)}}, "config.env"),
        ({"retry": {"maxAttempts": 11}}, "config.retry.max_attempts"),
        ({"retry": {"initialBackoff": "0.01s"}}, "config.retry.initial_backoff"),
        ({"retry": {"maxBackoff": "3601s"}}, "config.retry.max_backoff"),
        ({"retry": {"multiplier": 0.5}}, "config.retry.multiplier"),
        ({"retry": {"multiplier": "NaN"}}, "config.retry.multiplier"),
        ({"retry": {"reasons": ["CS_NOPE"]}}, "config.retry.reasons[0]"),
        ({"capabilities": {"kv": {}}}, "config.capabilities.kv"),
    ],
)
def test_a_bad_configuration_names_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        effective_config(Manifest(), config(**fields), LIMITS)
    assert caught.value.reason == "CS_VALIDATION_CONFIG"
    assert violated(caught.value) == {field}


def test_an_unknown_isolation_level_is_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        effective_config(Manifest(), VersionConfig(isolation=99), LIMITS)  # type: ignore[arg-type]
    assert violated(caught.value) == {"config.isolation"}


def test_one_answer_names_all_that_is_wrong() -> None:
    with pytest.raises(ValidationError) as caught:
        effective_config(Manifest(), config(memoryMb=1, timeout="31s", maxConcurrency=999), LIMITS)
    assert violated(caught.value) == {"config.memory_mb", "config.timeout", "config.max_concurrency"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"kv": {"prefixes": [""]}}, "c.kv.prefixes[0]"),
        ({"kv": {"prefixes": ["x" * 257]}}, "c.kv.prefixes[0]"),
        ({"kv": {"prefixes": ["p"] * 65}}, "c.kv.prefixes"),
        ({"kv": {"operations": ["KV_OPERATION_UNSPECIFIED"]}}, "c.kv.operations[0]"),
        ({"codeq": {"publishTopics": ["a b"]}}, "c.codeq.publish_topics[0]"),
        ({"codeq": {"publishTopics": ["a*b"]}}, "c.codeq.publish_topics[0]"),
        ({"codeq": {"publishTopics": ["cs.invoke"]}}, "c.codeq.publish_topics[0]"),
        ({"codeq": {"publishTopics": ["ok", "cs.*"]}}, "c.codeq.publish_topics[1]"),
        ({"http": {"allowHosts": ["UPPER.example"]}}, "c.http.allow_hosts[0]"),
        ({"http": {"allowHosts": ["a..b"]}}, "c.http.allow_hosts[0]"),
        ({"http": {"allowHosts": ["*"]}}, "c.http.allow_hosts[0]"),
        ({"http": {"allowHosts": ["http://a.example"]}}, "c.http.allow_hosts[0]"),
        ({"http": {"timeout": "61s"}}, "c.http.timeout"),
        ({"secrets": ["x" * 129]}, "c.secrets[0]"),
    ],
)
def test_rules_of_capabilities(fields: dict[str, Any], field: str) -> None:
    violations = Violations()
    check_capabilities(capabilities(**fields), "c", violations)
    with pytest.raises(ValidationError) as caught:
        violations.raise_if_any()
    assert violated(caught.value) == {field}


WIDE = capabilities(
    kv={"prefixes": ["a/"], "operations": ["KV_OPERATION_GET", "KV_OPERATION_SET"]},
    codeq={"publishTopics": ["orders.*", "audit"]},
    http={"allowHosts": ["api.example", "*.cdn.example"], "timeout": "20s"},
    secrets=["token"],
)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"kv": {"prefixes": ["a/b"], "operations": ["KV_OPERATION_GET"]}},
        {"codeq": {"publishTopics": ["orders.new", "orders.new.*", "audit"]}},
        {"http": {"allowHosts": ["api.example", "x.cdn.example", "*.y.cdn.example"], "timeout": "5s"}},
        {"secrets": ["token"]},
    ],
)
def test_a_publish_may_narrow(fields: dict[str, Any]) -> None:
    violations = Violations()
    check_narrowing(capabilities(**fields), WIDE, "c", violations)
    violations.raise_if_any()


@pytest.mark.parametrize(
    "fields",
    [
        {"kv": {"prefixes": ["b/"]}},
        {"kv": {"prefixes": ["a"]}},
        {"kv": {"operations": ["KV_OPERATION_DEL"]}},
        {"codeq": {"publishTopics": ["*"]}},
        {"codeq": {"publishTopics": ["audit.*"]}},
        {"codeq": {"publishTopics": ["order*"]}},
        {"http": {"allowHosts": ["evil.example"]}},
        {"http": {"allowHosts": ["cdn.example"]}},
        {"http": {"allowHosts": ["evilcdn.example"]}},
        {"http": {"allowHosts": [], "timeout": "21s"}},
        {"secrets": ["other"]},
    ],
)
def test_a_publish_may_never_widen(fields: dict[str, Any]) -> None:
    violations = Violations()
    check_narrowing(capabilities(**fields), WIDE, "c", violations)
    assert violations


def test_without_capabilities_in_the_publish_the_manifests_hold() -> None:
    assert effective_config(Manifest(capabilities=WIDE), VersionConfig(), LIMITS).capabilities == WIDE
    narrow = VersionConfig(capabilities=capabilities(secrets=["token"]))
    assert effective_config(Manifest(capabilities=WIDE), narrow, LIMITS).capabilities == narrow.capabilities
