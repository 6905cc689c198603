"""The configuration of a version: its rules, its defaults, and how a publish overrides the manifest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, cast

from codesous.runtime.v1.manifest_pb2 import Manifest
from codesous.runtime.v1.version_config_pb2 import IsolationLevel, RetryPolicy, VersionConfig
from codesous.type.v1.error_reason_pb2 import ErrorReason
from google.protobuf.duration_pb2 import Duration

from cs_control.capabilities import MAX_ENTRIES, check_capabilities, check_narrowing, seconds
from cs_core.config import LimitSettings
from cs_core.names import Violations, check_role

_ENV_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_ENV_VALUE_BYTES: Final = 4096
_SHORTEST: Final = 0.001
_HOUR: Final = 3600.0
_RATE_MAX: Final = 1_000_000


def effective_config(manifest: Manifest, override: VersionConfig, limits: LimitSettings) -> VersionConfig:
    """The configuration in force: the manifest's, overridden by the publish, defaults filled in, checked.

    Raises:
        ValidationError: a rule is broken, or capabilities are widened (`CS_VALIDATION_CONFIG`).
    """
    config = VersionConfig()
    config.CopyFrom(manifest.config)
    for field, _ in override.ListFields():
        # A list or a map that is set replaces: merged, a publish could not take a role away.
        cast("Any", config).ClearField(field.name)
    config.MergeFrom(override)
    violations = Violations()
    check_config(config, "config", limits, violations)
    if config.HasField("capabilities"):
        check_narrowing(config.capabilities, manifest.capabilities, "config.capabilities", violations)
    elif manifest.HasField("capabilities"):
        config.capabilities.CopyFrom(manifest.capabilities)
    violations.raise_if_any("CS_VALIDATION_CONFIG")
    _fill_defaults(config, limits)
    return config


def check_config(config: VersionConfig, field: str, limits: LimitSettings, violations: Violations) -> None:
    """Note every rule that `config` breaks; what is not set breaks none."""
    if config.HasField("timeout"):
        _check_length(config.timeout, f"{field}.timeout", _SHORTEST, limits.timeout_max, violations)
    if config.HasField("worker_timeout"):
        _check_length(
            config.worker_timeout, f"{field}.worker_timeout", _SHORTEST, limits.worker_timeout_max, violations
        )
    if config.memory_mb and not limits.memory_mb_min <= config.memory_mb <= limits.memory_mb_max:
        violations.add(f"{field}.memory_mb", f"must be {limits.memory_mb_min} to {limits.memory_mb_max}")
    if config.max_concurrency > limits.max_concurrency:
        violations.add(f"{field}.max_concurrency", f"must be 1 to {limits.max_concurrency}")
    if config.rate_limit_rps > _RATE_MAX:
        violations.add(f"{field}.rate_limit_rps", f"must be at most {_RATE_MAX}")
    for name in ("invoke_http_roles", "invoke_schedule_roles", "invoke_cadence_roles"):
        _check_roles(getattr(config, name), f"{field}.{name}", violations)
    if config.HasField("capabilities"):
        check_capabilities(config.capabilities, f"{field}.capabilities", violations)
    _check_env(config, f"{field}.env", violations)
    if config.isolation not in IsolationLevel.values():
        violations.add(f"{field}.isolation", "must be a known isolation level")
    if config.HasField("retry"):
        _check_retry(config.retry, f"{field}.retry", violations)


def _fill_defaults(config: VersionConfig, limits: LimitSettings) -> None:
    if not config.HasField("timeout"):
        config.timeout.FromTimedelta(timedelta(seconds=limits.timeout_default))
    if not config.HasField("worker_timeout"):
        config.worker_timeout.FromTimedelta(timedelta(seconds=limits.worker_timeout_default))
    config.memory_mb = config.memory_mb or limits.memory_mb_default
    config.max_concurrency = config.max_concurrency or limits.max_concurrency
    config.isolation = config.isolation or IsolationLevel.ISOLATION_LEVEL_ACTIVATION


def _check_length(duration: Duration, field: str, least: float, most: float, violations: Violations) -> None:
    if not least <= seconds(duration) <= most:
        violations.add(field, f"must be {least:g} s to {most:g} s")


def _check_roles(roles: Sequence[str], field: str, violations: Violations) -> None:
    if len(roles) > MAX_ENTRIES:
        violations.add(field, f"must be at most {MAX_ENTRIES}")
    for index, role in enumerate(roles[:MAX_ENTRIES]):
        violations.check(check_role, role, f"{field}[{index}]")


def _check_env(config: VersionConfig, field: str, violations: Violations) -> None:
    if len(config.env) > MAX_ENTRIES:
        violations.add(field, f"must be at most {MAX_ENTRIES}")
    for name in sorted(config.env)[:MAX_ENTRIES]:
        if not _ENV_NAME.fullmatch(name):
            violations.add(f"{field}[{name[:80]}]", f"its name must match {_ENV_NAME.pattern}")
        if len(config.env[name].encode()) > _ENV_VALUE_BYTES:
            violations.add(f"{field}[{name[:80]}]", f"must be at most {_ENV_VALUE_BYTES} bytes")


def _check_retry(retry: RetryPolicy, field: str, violations: Violations) -> None:
    if retry.max_attempts > 10:
        violations.add(f"{field}.max_attempts", "must be 1 to 10")
    if retry.HasField("initial_backoff"):
        _check_length(retry.initial_backoff, f"{field}.initial_backoff", 0.1, _HOUR, violations)
    if retry.HasField("max_backoff"):
        _check_length(retry.max_backoff, f"{field}.max_backoff", 0.1, _HOUR, violations)
    if retry.multiplier and not 1.0 <= retry.multiplier <= 10.0:
        violations.add(f"{field}.multiplier", "must be 1.0 to 10.0")
    if len(retry.reasons) > MAX_ENTRIES:
        violations.add(f"{field}.reasons", f"must be at most {MAX_ENTRIES}")
    for index, reason in enumerate(retry.reasons[:MAX_ENTRIES]):
        if f"ERROR_REASON_{reason}" not in ErrorReason.keys():  # noqa: SIM118 - an enum, not a mapping
            violations.add(f"{field}.reasons[{index}]", "must be a known reason")
