"""Uploading drafts: files become a canonical bundle, its manifest is checked, its syntax looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Protocol

import structlog
from codesous.control.v1.mutation_pb2 import DraftUploaded
from codesous.control.v1.version_pb2 import Diagnostic, Draft

from cs_control.functions import check_names, require_active
from cs_control.manifest import read_manifest
from cs_control.mutations import Actor, new_mutation
from cs_core import ids
from cs_core.bundle import pack
from cs_core.clock import Clock, to_timestamp
from cs_core.config import LimitSettings
from cs_core.store.drafts import DraftStore
from cs_core.store.functions import FunctionStore
from cs_core.store.transaction import retry_when_stale
from cs_sandbox import Diagnostic as Fault
from cs_sandbox import SandboxError

_log = structlog.get_logger(__name__)
_MAX_WARNINGS = 20
_NOT_CHECKED = "the code could not be looked at for syntax errors"


class SyntaxCheck(Protocol):
    """Looks for syntax errors in the modules of a bundle, in a jailed process."""

    async def check_syntax(self, files: Mapping[str, bytes]) -> Sequence[Fault]:
        """List what is wrong. Raises SandboxError when it could not look."""
        ...


class Drafts:
    """What can be done with drafts."""

    def __init__(
        self, functions: FunctionStore, drafts: DraftStore, syntax: SyntaxCheck, limits: LimitSettings, clock: Clock
    ) -> None:
        self._functions = functions
        self._drafts = drafts
        self._syntax = syntax
        self._limits = limits
        self._clock = clock

    async def upload(self, tenant: str, namespace: str, name: str, files: Mapping[str, bytes], actor: Actor) -> Draft:
        """Store files as a draft.

        Raises:
            ValidationError: a name, a path or the manifest breaks its rule.
            TooLargeError: the bundle is over its limit.
            NotFoundError: no such function, or it is deleted.
        """
        check_names(namespace, name)
        require_active(await self._functions.get(tenant, namespace, name), namespace, name)
        limits = self._limits
        # Tens of milliseconds for the largest bundles: not on the event loop.
        bundle = await asyncio.to_thread(pack, files, max_bytes=limits.bundle_bytes, max_files=limits.bundle_files)
        manifest = read_manifest(files, limits)
        warnings = await self._look(files)
        now = self._clock.now()
        draft = Draft(
            draft_id=ids.draft_id(),
            tenant=tenant,
            namespace=namespace,
            function=name,
            bundle_sha256=bundle.sha256,
            bundle_bytes=len(bundle.data),
            manifest=manifest,
            create_time=to_timestamp(now),
            expire_time=to_timestamp(now + timedelta(seconds=limits.draft_ttl)),
            creator=actor.principal.subject,
            warnings=warnings,
        )
        mutation = new_mutation(actor, tenant, namespace, now)
        mutation.draft_uploaded.CopyFrom(
            DraftUploaded(function=name, draft_id=draft.draft_id, bundle_sha256=bundle.sha256)
        )

        async def step() -> None:
            found = await self._functions.read(tenant, namespace, name)
            require_active(found[0] if found else None, namespace, name)
            await self._drafts.put(draft, bundle.data, found[1] if found else b"", mutation)

        await retry_when_stale(step, f"function {name}")
        return draft

    async def _look(self, files: Mapping[str, bytes]) -> list[Diagnostic]:
        try:
            faults = await self._syntax.check_syntax(files)
        except SandboxError as error:
            _log.warning("a draft was not looked at for syntax errors", error=str(error))
            return [Diagnostic(message=_NOT_CHECKED)]
        return [
            Diagnostic(file=fault.file, line=fault.line, column=fault.column, message=fault.message)
            for fault in faults[:_MAX_WARNINGS]
        ]
