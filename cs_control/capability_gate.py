"""Widening what an alias may reach takes an action of its own: `cs:function:grant`.

Whoever may publish code decides what it does; what it may reach beyond that is for others to grant. So a move of an
alias is compared with the version that the alias points at now, in the step that moves it.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

import structlog
from codesous.control.v1.capability_diff_pb2 import CapabilityDiff
from codesous.control.v1.version_pb2 import Version

from cs_control.capability_diff import diff_versions, listed
from cs_control.mutations import Actor
from cs_core.errors import AuthorizationError, NotFoundError
from cs_core.iam.policy import Policy

ACTION: Final = "cs:function:grant"
Mode = Literal["enforce", "report"]
_log = structlog.get_logger(__name__)


class ReadsVersions(Protocol):
    """Reads versions of functions."""

    async def get(self, tenant: str, namespace: str, name: str, number: int) -> Version | None:
        """Read a version; None when there is none."""
        ...


class CapabilityGate:
    """Compares versions and decides whether an alias may move from one to the other."""

    def __init__(self, versions: ReadsVersions, policy: Policy, mode: Mode) -> None:
        self._versions = versions
        self._policy = policy
        self._mode = mode

    async def read(self, tenant: str, namespace: str, name: str, number: int) -> Version | None:
        """Read a version; None for number 0. Raises NotFoundError when there is no such version."""
        if number == 0:
            return None
        version = await self._versions.get(tenant, namespace, name, number)
        if version is None:
            raise NotFoundError("version", f"{namespace}/{name}@{number}")
        return version

    async def pass_through(self, alias: str, present: int, target: Version, actor: Actor) -> CapabilityDiff | None:
        """Let an alias move from version `present` (0: it is not there) to `target`, or refuse.

        Returns what changes in what the alias may reach; None when nothing does.

        Raises:
            AuthorizationError: something is new and the actor may not grant it (`CS_AUTHZ_ACTION_DENIED`).
        """
        before = await self.read(target.tenant, target.namespace, target.function, present)
        diff = diff_versions(before, target)
        if diff.HasField("added"):
            self._check(f"alias {alias}", diff, target, actor)
        return diff if diff.HasField("added") or diff.HasField("removed") else None

    def check_report_only(self, version: Version, actor: Actor) -> None:
        """Raise AuthorizationError when a version's egress is only reported and the actor may not grant that.

        It does so whether or not an alias will point there: a version can be called by its number.
        """
        if version.config.egress_report_only:
            self._check(f"version {version.version}", diff_versions(None, version), version, actor)

    def _check(self, what: str, diff: CapabilityDiff, target: Version, actor: Actor) -> None:
        resource = f"cs:{target.tenant}:{target.namespace}:function/{target.function}"
        try:
            self._policy.check(actor.principal, ACTION, resource)
        except AuthorizationError as error:
            added = listed(diff.added)
            if self._mode == "enforce":
                told = "; ".join(f"{kind.replace('_', ' ')} {values}" for kind, values in added.items())
                message = f"{ACTION} on {resource} is needed: {what} would newly reach {told}"
                raise AuthorizationError(error.reason, message, action=ACTION, metadata=added) from error
            _log.warning(
                "something newly reaches what nobody granted",
                what=what,
                tenant=target.tenant,
                resource=resource,
                version=target.version,
                subject=actor.principal.subject,
                added=added,
            )
