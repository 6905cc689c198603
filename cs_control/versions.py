"""Publishing drafts as versions, and reading versions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from codesous.control.v1.alias_pb2 import Alias
from codesous.control.v1.capability_diff_pb2 import CapabilityDiff
from codesous.control.v1.mutation_pb2 import VersionPublished
from codesous.control.v1.version_pb2 import Version
from codesous.control.v1.version_service_pb2 import PublishVersionRequest
from codesous.storage.v1.records_pb2 import DraftRecord

from cs_control.capability_diff import diff_versions
from cs_control.capability_gate import CapabilityGate
from cs_control.functions import check_names, require_active
from cs_control.mutations import Actor, new_mutation
from cs_control.version_config import effective_config
from cs_core.clock import Clock, from_timestamp, to_timestamp
from cs_core.config import LimitSettings
from cs_core.errors import ConflictError, ExpiredError, NotFoundError, ValidationError
from cs_core.names import MAX_VERSION, Violations, check_alias, check_draft_id, check_function, check_namespace
from cs_core.store.aliases import AliasStore
from cs_core.store.bundles import BundleStore
from cs_core.store.drafts import DraftStore
from cs_core.store.functions import FunctionStore
from cs_core.store.versions import Present, Publication, VersionStore


class DamagedBundleError(Exception):
    """A stored bundle is not the one that its draft names: a fault of the platform, not of the caller."""


@dataclass(frozen=True, slots=True)
class Published:
    """A version, the alias that was asked for, and how what that one may reach has changed (None: it has not).

    `made` tells whether it was published now; it was not when the request is a repeat.
    """

    version: Version
    alias: Alias | None
    made: bool
    diff: CapabilityDiff | None = None


class Versions:
    """What can be done with versions."""

    def __init__(
        self,
        functions: FunctionStore,
        versions: VersionStore,
        drafts: DraftStore,
        aliases: AliasStore,
        bundles: BundleStore,
        gate: CapabilityGate,
        limits: LimitSettings,
        clock: Clock,
    ) -> None:
        self._functions = functions
        self._versions = versions
        self._drafts = drafts
        self._aliases = aliases
        self._bundles = bundles
        self._gate = gate
        self._limits = limits
        self._clock = clock

    async def publish(self, request: PublishVersionRequest, actor: Actor) -> Published:
        """Publish a draft as the next version.

        Raises:
            ValidationError: a name or the configuration breaks a rule.
            NotFoundError: no such function, or no such draft of it.
            ExpiredError: the draft is past its time.
            ConflictError: another request consumed the draft.
            AuthorizationError: the alias would newly reach something that the actor may not grant.
        """
        _check_publish(request)
        await self._check_bundle(request)
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
        repeated = 0

        async def compute(present: Present) -> Publication | None:
            nonlocal repeated
            record = _draft_of(request, present)
            if record.published_version:
                if record.publish_digest != digest:
                    raise ConflictError(
                        "CS_CONFLICT_STATE", f"draft {request.draft_id} is version {record.published_version} already"
                    )
                repeated = record.published_version
                return None
            return await self._publication(request, present, record, digest, actor)

        publication = await self._versions.publish(
            request.tenant, request.namespace, request.function, request.draft_id, request.alias, compute
        )
        if publication is not None:
            told = publication.mutation.version_published
            diff = told.capability_diff if told.HasField("capability_diff") else None
            return Published(publication.version, publication.alias, True, diff)
        version = await self._versions.get(request.tenant, request.namespace, request.function, repeated)
        if version is None:
            raise NotFoundError("version", f"{request.namespace}/{request.function}@{repeated}")
        alias = None
        if request.alias:
            alias = await self._aliases.get(request.tenant, request.namespace, request.function, request.alias)
        return Published(version, alias, False)

    async def get(self, tenant: str, namespace: str, name: str, number: int) -> Version:
        """Read a version. Raises ValidationError or NotFoundError."""
        check_names(namespace, name)
        if number == 0:
            raise ValidationError.field("version", "required")
        require_active(await self._functions.get(tenant, namespace, name), namespace, name)
        version = await self._versions.get(tenant, namespace, name, number)
        if version is None:
            raise NotFoundError("version", f"{namespace}/{name}@{number}")
        return version

    async def diff(
        self, tenant: str, namespace: str, name: str, from_number: int, to_number: int
    ) -> tuple[CapabilityDiff, bool]:
        """Compare what two versions may reach (from 0: nothing); also tells whether their files are the same.

        Raises:
            ValidationError: a name breaks its rule.
            NotFoundError: no such function or version.
        """
        after = await self.get(tenant, namespace, name, to_number)
        before = await self._gate.read(tenant, namespace, name, from_number)
        same = before is not None and before.bundle_sha256 == after.bundle_sha256
        return diff_versions(before, after), same

    async def list_newest_first(
        self, tenant: str, namespace: str, name: str, *, below: int | None, limit: int
    ) -> tuple[list[Version], int | None]:
        """List versions, newest first, and the number to go on below (None: that was all)."""
        check_names(namespace, name)
        function = require_active(await self._functions.get(tenant, namespace, name), namespace, name)
        ceiling = function.latest_version + 1 if below is None else below
        found = await self._versions.list_newest_first(tenant, namespace, name, below=ceiling, limit=limit)
        lowest = ceiling - limit
        return found, (lowest if lowest > 1 else None)

    async def _check_bundle(self, request: PublishVersionRequest) -> None:
        """Read the bundle again and compare it with what was uploaded, before anything points at it."""
        record = await self._drafts.get(request.tenant, request.draft_id)
        if record is None or record.published_version or self._expired(record):
            return  # the step that publishes tells why
        data = await self._bundles.get(request.tenant, record.draft.bundle_sha256)
        if data is None or hashlib.sha256(data).hexdigest() != record.draft.bundle_sha256:
            raise DamagedBundleError(f"bundle of {request.draft_id} is {'gone' if data is None else 'damaged'}")

    def _expired(self, record: DraftRecord) -> bool:
        return from_timestamp(record.draft.expire_time) <= self._clock.now()

    async def _publication(
        self, request: PublishVersionRequest, present: Present, record: DraftRecord, digest: bytes, actor: Actor
    ) -> Publication:
        if self._expired(record):
            raise ExpiredError("CS_EXPIRED_DRAFT", f"draft {request.draft_id} is past its time; upload it again")
        now = self._clock.now()
        function = require_active(present.function, request.namespace, request.function)
        if function.latest_version >= MAX_VERSION:
            raise ConflictError("CS_CONFLICT_STATE", "the function has used up its version numbers")
        function.latest_version += 1
        function.update_time.CopyFrom(to_timestamp(now))
        draft = record.draft
        version = Version(
            tenant=request.tenant,
            namespace=request.namespace,
            function=request.function,
            version=function.latest_version,
            bundle_sha256=draft.bundle_sha256,
            bundle_bytes=draft.bundle_bytes,
            manifest=draft.manifest,
            config=effective_config(draft.manifest, request.config, self._limits),
            create_time=to_timestamp(now),
            creator=actor.principal.subject,
            draft_id=draft.draft_id,
        )
        self._gate.check_report_only(version, actor)
        alias, diff = None, None
        if request.alias:
            diff = await self._gate.pass_through(
                request.alias, present.alias.version if present.alias else 0, version, actor
            )
            alias = Alias(
                tenant=request.tenant,
                namespace=request.namespace,
                function=request.function,
                alias=request.alias,
                version=version.version,
                previous_version=present.alias.version if present.alias else 0,
                update_time=to_timestamp(now),
                updater=actor.principal.subject,
            )
        mutation = new_mutation(actor, request.tenant, request.namespace, now)
        mutation.version_published.CopyFrom(
            VersionPublished(
                function=request.function,
                version=version.version,
                draft_id=draft.draft_id,
                bundle_sha256=draft.bundle_sha256,
                alias=alias,
                capability_diff=diff,
            )
        )
        consumed = DraftRecord(draft=draft, published_version=version.version, publish_digest=digest)
        return Publication(function, version, consumed, alias, mutation)


def _check_publish(request: PublishVersionRequest) -> None:
    violations = Violations()
    violations.check(check_namespace, request.namespace, "namespace")
    violations.check(check_function, request.function, "function")
    violations.check(check_draft_id, request.draft_id, "draft_id")
    if request.alias:
        violations.check(check_alias, request.alias, "alias")
    violations.raise_if_any()


def _draft_of(request: PublishVersionRequest, present: Present) -> DraftRecord:
    require_active(present.function, request.namespace, request.function)
    record = present.draft
    if record is None or (record.draft.namespace, record.draft.function) != (request.namespace, request.function):
        raise NotFoundError("draft", request.draft_id)
    return record
