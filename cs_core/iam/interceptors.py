"""The interceptors that know who calls and whether they may."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from cs_core.errors import AuthenticationError, AuthorizationError
from cs_core.iam.policy import Policy
from cs_core.iam.tokens import TokenVerifier
from cs_core.names import check_tenant
from cs_core.rpc.context import Passive, RequestContext

_SCHEME = "bearer "
# Whoever reaches a loopback port is an operator of this machine; the proxy never routes such calls there.
_LOCAL_PEERS = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:")


class Authentication(Passive):
    """Fills in the principal from the access token. Installation calls from this machine need none."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    def begin(self, call: RequestContext) -> Awaitable[None] | None:
        """Read and verify the token."""
        if call.rule is None or not call.rule.tenant_scoped:
            return None
        token = _token_of(call)
        call.principal = self._verifier.remembered(token)
        return None if call.principal is not None else self._verify(call, token)

    def during(self, call: RequestContext) -> Awaitable[None] | None:
        """End a stream whose token has ended, or is no longer vouched for."""
        if call.principal is None:
            return None
        token = _token_of(call)
        return None if self._verifier.remembered(token) is not None else self._verify(call, token)

    async def _verify(self, call: RequestContext, token: str) -> None:
        call.principal = await self._verifier.verify(token)


def _token_of(call: RequestContext) -> str:
    values = call.header_values("authorization")
    given = values[0] if values else ""
    if not given:
        raise AuthenticationError("CS_AUTHN_TOKEN_MISSING", "no access token on the request")
    if len(values) > 1 or not isinstance(given, str):
        # Which of two a proxy in front looked at is not known here.
        raise AuthenticationError("CS_AUTHN_TOKEN_INVALID", "there is more than one authorization header")
    if given[: len(_SCHEME)].lower() != _SCHEME:
        raise AuthenticationError("CS_AUTHN_TOKEN_INVALID", "the authorization header is no bearer token")
    return given[len(_SCHEME) :].strip()


class Authorization(Passive):
    """Checks tenant and action of the decoded request, before any servicer sees it."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def check(self, call: RequestContext, request: Any) -> None:
        """Compare the caller with the request and the method's rule."""
        rule = call.rule
        if rule is None:
            return
        if not rule.tenant_scoped:
            # No role of a tenant reaches the installation, `admin` included: it is admin of its own tenant.
            if not call.peer.startswith(_LOCAL_PEERS):
                raise AuthorizationError(
                    "CS_AUTHZ_ACTION_DENIED", f"{rule.action} is served to this machine only", action=rule.action
                )
            return
        tenant = check_tenant(request.tenant)
        if tenant != call.caller.tenant:
            raise AuthorizationError("CS_AUTHZ_TENANT_MISMATCH", "the access token is of another tenant")
        self._policy.check(call.caller, rule.action, rule.resource_of(request, tenant))
        call.tenant = tenant
