"""The rules of names, each checked in one place."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

from cs_core.errors import FieldViolation, ValidationError

_TENANT = re.compile(r"t_[a-z0-9]{6,32}")
_NAME = re.compile(r"[a-z][a-z0-9_-]{2,63}")
_SECRET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{1,31}")
_DRAFT = re.compile(r"drf_[0-7][0-9A-HJKMNP-TV-Z]{25}")
_VERSION = re.compile(r"[1-9][0-9]{0,9}")
PATTERNS = {
    "tenant": _TENANT.pattern,
    **dict.fromkeys(("namespace", "function", "schedule", "worker"), _NAME.pattern),
    "secret": _SECRET.pattern,
    "alias": _ALIAS.pattern,
}
"""The rules by field, for those who describe them."""
MAX_VERSION = 2**32 - 1
MAX_ROLE_CHARS = 256


def _match(pattern: re.Pattern[str], value: str, field: str) -> str:
    if not pattern.fullmatch(value):
        raise ValidationError.field(field, "required" if not value else f"must match {pattern.pattern}")
    return value


def check_tenant(value: str, field: str = "tenant") -> str:
    """Return `value` when it is a tenant name; raise ValidationError otherwise."""
    return _match(_TENANT, value, field)


def check_namespace(value: str, field: str = "namespace") -> str:
    """Return `value` when it is a namespace name; raise ValidationError otherwise."""
    return _match(_NAME, value, field)


def check_function(value: str, field: str = "function") -> str:
    """Return `value` when it is a function name; raise ValidationError otherwise."""
    return _match(_NAME, value, field)


def check_schedule(value: str, field: str = "schedule") -> str:
    """Return `value` when it is a schedule name; raise ValidationError otherwise."""
    return _match(_NAME, value, field)


def check_worker(value: str, field: str = "worker") -> str:
    """Return `value` when it is a worker binding name; raise ValidationError otherwise."""
    return _match(_NAME, value, field)


def check_secret(value: str, field: str = "secret") -> str:
    """Return `value` when it is the name of a secret; raise ValidationError otherwise."""
    return _match(_SECRET, value, field)


def check_alias(value: str, field: str = "alias") -> str:
    """Return `value` when it is an alias name; raise ValidationError otherwise."""
    return _match(_ALIAS, value, field)


def check_draft_id(value: str, field: str = "draft_id") -> str:
    """Return `value` when it is a draft id; raise ValidationError otherwise."""
    return _match(_DRAFT, value, field)


def check_activation_id(value: str, field: str = "activation_id") -> str:
    """Return `value` when it is a UUID in its canonical form; raise ValidationError otherwise."""
    try:
        canonical = str(uuid.UUID(value))
    except ValueError:
        canonical = ""
    if canonical != value or not value:
        raise ValidationError.field(field, "required" if not value else "must be a UUID in lower-case canonical form")
    return value


def check_role(value: str, field: str = "role") -> str:
    """Return `value` when it is 1 to 256 printable characters; raise ValidationError otherwise."""
    if not 1 <= len(value) <= MAX_ROLE_CHARS or not value.isprintable():
        raise ValidationError.field(field, f"must be 1 to {MAX_ROLE_CHARS} printable characters")
    return value


def parse_ref(value: str, field: str = "ref") -> int | str:
    """Read a ref: a version number as int, an alias as str; raise ValidationError otherwise."""
    if _VERSION.fullmatch(value) and int(value) <= MAX_VERSION:
        return int(value)
    if not _ALIAS.fullmatch(value):
        rule = f"must be a version number or an alias ({_ALIAS.pattern})"
        raise ValidationError.field(field, "required" if not value else rule)
    return value


class Violations:
    """Collects what is wrong with a request, so that one answer names all of it."""

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    def check(self, rule: Callable[[str, str], object], value: str, field: str) -> None:
        """Run a check of this module and keep its violations instead of raising."""
        try:
            rule(value, field)
        except ValidationError as error:
            self._found.extend(error.violations)

    def add(self, field: str, rule: str) -> None:
        """Note that `field` breaks `rule`."""
        self._found.append(FieldViolation(field, rule))

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_if_any(self, reason: str = "CS_VALIDATION_FIELD") -> None:
        """Raise one ValidationError with everything that was found, if anything was."""
        if self._found:
            message = "; ".join(f"{found.field}: {found.description}" for found in self._found[:3])
            more = len(self._found) - 3
            raise ValidationError(
                reason, message + (f"; and {more} more" if more > 0 else ""), violations=tuple(self._found)
            )
