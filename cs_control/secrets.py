"""Secrets: set, list, delete. A value goes in here and comes out only where a function reads it."""

from __future__ import annotations

from typing import Final

from codesous.control.v1.mutation_pb2 import LifecycleMutation, SecretDeleted, SecretSet
from codesous.control.v1.secret_pb2 import Secret
from codesous.storage.v1.records_pb2 import SecretRecord

from cs_control.mutations import Actor, new_mutation
from cs_core.clock import Clock, to_timestamp
from cs_core.errors import ConflictError, NotFoundError, TooLargeError
from cs_core.names import Violations, check_namespace, check_secret
from cs_core.sealing import Sealer
from cs_core.store.secrets import SecretStore

VALUE_MAX: Final = 64 * 1024
SECRETS_MAX: Final = 500


class Secrets:
    """What can be done with secrets.

    Args:
        store: the records.
        sealer: encrypts the values; None when the installation's secrets come from elsewhere.
        clock: tells when.
    """

    def __init__(self, store: SecretStore, sealer: Sealer | None, clock: Clock) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock

    async def set(self, tenant: str, namespace: str, name: str, value: str, actor: Actor) -> Secret:
        """Write a secret.

        Raises:
            ValidationError: a name breaks its rule, or the value is empty (`CS_VALIDATION_FIELD`).
            TooLargeError: the value is over its limit.
            ConflictError: the namespace is full, or secrets are not kept here (`CS_CONFLICT_STATE`).
        """
        sealer = self._require()
        violations = _check(namespace, name)
        data = value.encode()
        if not data:
            violations.add("value", "required")
        violations.raise_if_any()
        if len(data) > VALUE_MAX:
            raise TooLargeError(f"value: must be at most {VALUE_MAX} bytes")
        now = self._clock.now()
        sealed = sealer.seal(data, (tenant, namespace, name))
        secret = Secret(
            tenant=tenant,
            namespace=namespace,
            secret=name,
            update_time=to_timestamp(now),
            updater=actor.principal.subject,
            key_id=sealed.key_id,
        )
        mutation = new_mutation(actor, tenant, namespace, now)
        mutation.secret_set.CopyFrom(SecretSet(secret=secret))

        def change(present: SecretRecord | None, count: int) -> tuple[SecretRecord, LifecycleMutation]:
            if present is None and count >= SECRETS_MAX:
                raise ConflictError("CS_CONFLICT_STATE", f"namespace {namespace} has {SECRETS_MAX} secrets")
            return SecretRecord(secret=secret, nonce=sealed.nonce, sealed_value=sealed.data), mutation

        await self._store.change(tenant, namespace, name, change)
        return secret

    async def list_by_name(
        self, tenant: str, namespace: str, *, after: str, limit: int
    ) -> tuple[list[Secret], str | None]:
        """List secrets by name, and the name to go on after (None: that was all)."""
        self._require()
        check_namespace(namespace)
        found = [one for one in await self._store.list_by_name(tenant, namespace) if one.secret > after]
        return found[:limit], (found[limit - 1].secret if len(found) > limit else None)

    async def delete(self, tenant: str, namespace: str, name: str, actor: Actor) -> None:
        """Delete a secret. Raises NotFoundError when there is none."""
        self._require()
        _check(namespace, name).raise_if_any()
        mutation = new_mutation(actor, tenant, namespace, self._clock.now())
        mutation.secret_deleted.CopyFrom(SecretDeleted(secret=name))

        def change(present: SecretRecord | None, _count: int) -> tuple[None, LifecycleMutation]:
            if present is None:
                raise NotFoundError("secret", f"{namespace}/{name}")
            return None, mutation

        await self._store.change(tenant, namespace, name, change)

    def _require(self) -> Sealer:
        if self._sealer is None:
            raise ConflictError("CS_CONFLICT_STATE", "this installation's secrets are not kept by the platform")
        return self._sealer


def _check(namespace: str, name: str) -> Violations:
    violations = Violations()
    violations.check(check_namespace, namespace, "namespace")
    violations.check(check_secret, name, "secret")
    return violations
