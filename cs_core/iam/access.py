"""The authorisation rule of an RPC, read from its method option."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from codesous.type.v1 import options_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from cs_core.iam.grants import resource_part

_PLACE = re.compile(r"\{([a-z_]+)\}")


class AccessRuleError(Exception):
    """A service cannot be served: one of its RPCs has no usable access rule."""


@dataclass(frozen=True, slots=True)
class MethodRule:
    """Who may call one RPC."""

    path: str
    service: str
    name: str
    tenant_scoped: bool
    action: str
    resource: str

    def resource_of(self, request: Message, tenant: str) -> str:
        """Name what a request acts on: `cs:{tenant}:` and the filled-in template."""
        if not self.resource:
            return f"cs:{tenant}:*:*"
        filled = _PLACE.sub(lambda place: resource_part(getattr(request, place[1])), self.resource)
        return f"cs:{tenant}:{filled}"


def rules_of(services: Iterable[str]) -> dict[str, MethodRule]:
    """Read the rules of all RPCs of the named services, by gRPC path.

    Raises:
        AccessRuleError: a service is unknown, or an RPC has no rule, or its rule does not fit its request.
    """
    pool = descriptor_pool.Default()
    found: dict[str, MethodRule] = {}
    for name in services:
        try:
            service: ServiceDescriptor = pool.FindServiceByName(name)
        except KeyError as error:
            raise AccessRuleError(f"{name}: no such service in the contracts") from error
        for method in service.methods:
            rule = rule_of(method)
            found[rule.path] = rule
    return found


def rule_of(method: MethodDescriptor) -> MethodRule:
    """Read the rule of one RPC. Raises AccessRuleError as `rules_of` does."""
    access = method.GetOptions().Extensions[options_pb2.access]
    if access.scope == options_pb2.ACCESS_SCOPE_UNSPECIFIED or not access.action:
        raise AccessRuleError(f"{method.full_name}: the method option codesous.type.v1.access is not set")
    tenant_scoped = access.scope == options_pb2.ACCESS_SCOPE_TENANT
    fields = method.input_type.fields_by_name
    needed = [*(["tenant"] if tenant_scoped else []), *_PLACE.findall(access.resource)]
    missing = [field for field in needed if field not in fields]
    if missing:
        raise AccessRuleError(f"{method.full_name}: its request has no field {', '.join(missing)}")
    if method.client_streaming:
        raise AccessRuleError(f"{method.full_name}: a stream of requests cannot be authorised by its first")
    service = method.containing_service.full_name
    return MethodRule(
        path=f"/{service}/{method.name}",
        service=service,
        name=method.name,
        tenant_scoped=tenant_scoped,
        action=access.action,
        resource=access.resource,
    )
