"""One entry of `iam.role_actions`: an action pattern, and the resources that it holds for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import quote

# Between the two patterns of an entry.
_ON = " on "
_ENTRY = re.compile(r"(cs:|\*)[a-z*:]*")
_ANY = "*"
# What stands for the caller's own tenant in a pattern.
_TENANT = "{tenant}"
# Parts of a resource: `cs`, tenant, namespace, and what it is.
_PARTS = 4
# What a name may be made of. The rest is written in percent signs, so that no request can pass for another resource.
_SAFE = "-_.~"


@dataclass(frozen=True, slots=True)
class Grant:
    """An action pattern on a resource pattern. `*` stands for any run of characters in either, in a resource for one
    that stays within its part."""

    action: str
    resource: str = _ANY

    def __str__(self) -> str:
        return self.action if self.resource == _ANY else f"{self.action}{_ON}{self.resource}"

    def allows_action(self, action: str) -> bool:
        """Whether the action pattern fits."""
        return matches_action(self.action, action)

    def allows_resource(self, resource: str, tenant: str) -> bool:
        """Whether the resource pattern fits; `tenant` is the caller's."""
        if self.resource == _ANY:
            return True
        patterns = self.resource.replace(_TENANT, tenant).split(":", _PARTS - 1)
        parts = resource.split(":", _PARTS - 1)
        # Part by part, so that a star for a namespace cannot run on into a function's name.
        return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def matches_action(pattern: str, action: str) -> bool:
    """Whether an action pattern, of a role or a token's scope, fits an action."""
    return fnmatchcase(action, pattern)


def parse_grant(text: str) -> Grant:
    """Read an entry: `ACTION` or `ACTION on RESOURCE`.

    Raises:
        ValueError: it is neither; the message says what is wrong.
    """
    action, on, resource = text.partition(_ON)
    if not _ENTRY.fullmatch(action):
        raise ValueError(f"{text!r}: an action pattern is made of cs:, lower-case words, : and *")
    if not on:
        return Grant(action)
    if resource != _ANY and (resource.count(":") < _PARTS - 1 or not resource.startswith("cs:")):
        raise ValueError(f"{text!r}: a resource pattern is cs:TENANT:NAMESPACE:KIND/NAME, each part may hold *")
    return Grant(action, resource)


def resource_part(value: object) -> str:
    """Write a field of a request as part of a resource's name; what is a name already stays as it is."""
    return quote(str(value), safe=_SAFE)
