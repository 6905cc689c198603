"""The control plane over a real store: functions, drafts, versions, aliases, and the mutation of each change."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from codesous.control.v1.function_pb2 import FunctionState
from codesous.control.v1.function_service_pb2 import CreateFunctionRequest
from codesous.control.v1.version_service_pb2 import PublishVersionRequest
from codesous.type.v1.principal_pb2 import Principal

from cs_control.aliases import Aliases
from cs_control.capability_gate import CapabilityGate, Mode
from cs_control.drafts import Drafts
from cs_control.functions import Functions
from cs_control.mutations import Actor
from cs_control.versions import DamagedBundleError, Versions
from cs_core.clock import ManualClock
from cs_core.config import IamSettings, LimitSettings
from cs_core.errors import ConflictError, ExpiredError, NotFoundError, TooLargeError, ValidationError
from cs_core.iam.policy import Policy
from cs_core.store import keys
from cs_core.store.aliases import AliasStore
from cs_core.store.bundles import BundleStore
from cs_core.store.client import KvClient
from cs_core.store.drafts import DraftStore
from cs_core.store.functions import FunctionStore
from cs_core.store.mutations import MutationLog
from cs_core.store.versions import VersionStore
from cs_sandbox import Diagnostic, SandboxError

TENANT, SPACE, NAME = "t_alpha0", "default", "hello"
ACTOR = Actor(Principal(subject="ada", tenant=TENANT, roles=["admin"]), "req_01ARZ3NDEKTSV4RRFFQ69G5FAV")
MANIFEST = json.dumps({"runtime": "cs-js", "config": {"invokeHttpRoles": ["admin"]}}).encode()
FILES = {"manifest.json": MANIFEST, "index.js": b"export default () => 1"}


class NoFaults:
    """Finds nothing, or what it is told."""

    def __init__(self, faults: Sequence[Diagnostic] = (), error: SandboxError | None = None) -> None:
        self.faults, self.error = faults, error

    async def check_syntax(self, files: Mapping[str, bytes]) -> Sequence[Diagnostic]:
        if self.error is not None:
            raise self.error
        return self.faults


class Control:
    """The core of cs-control, put together over a store."""

    def __init__(
        self, client: KvClient, syntax: Any = None, limits: LimitSettings | None = None, mode: Mode = "enforce"
    ) -> None:
        self.client = client
        self.clock = ManualClock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
        limits = limits or LimitSettings()
        functions, aliases = FunctionStore(client), AliasStore(client)
        drafts = DraftStore(client, timedelta(seconds=limits.draft_ttl))
        self.functions = Functions(functions, self.clock)
        self.drafts = Drafts(functions, drafts, syntax or NoFaults(), limits, self.clock)
        versions = VersionStore(client)
        gate = CapabilityGate(versions, Policy(IamSettings().role_actions), mode)
        self.versions = Versions(functions, versions, drafts, aliases, BundleStore(client), gate, limits, self.clock)
        self.aliases = Aliases(functions, aliases, gate, self.clock)
        self.log = MutationLog(client)

    async def create(self, name: str = NAME, **fields: str) -> tuple[Any, bool]:
        request = CreateFunctionRequest(tenant=TENANT, namespace=SPACE, function=name, **fields)
        return await self.functions.create(request, ACTOR)

    async def upload(self, files: Mapping[str, bytes] = FILES, name: str = NAME) -> Any:
        return await self.drafts.upload(TENANT, SPACE, name, files, ACTOR)

    async def publish(self, draft_id: str, alias: str = "", **fields: Any) -> tuple[Any, Any, bool]:
        request = PublishVersionRequest(
            tenant=TENANT, namespace=SPACE, function=NAME, draft_id=draft_id, alias=alias, **fields
        )
        published = await self.versions.publish(request, ACTOR)
        return published.version, published.alias, published.made

    async def version(self, alias: str = "", source: bytes = b"export default () => 1") -> Any:
        draft = await self.upload({**FILES, "index.js": source})
        return (await self.publish(draft.draft_id, alias))[0]

    async def set_alias(self, alias: str, version: int, expected: int | None = None) -> Any:
        return (await self.aliases.set(TENANT, SPACE, NAME, alias, version, expected, ACTOR)).alias

    async def changes(self) -> list[str]:
        found = await self.log.read(TENANT, after="", limit=1000)
        return [mutation.WhichOneof("change") or "" for _, mutation in found]


@pytest.fixture
async def control(kv: KvClient) -> Control:
    control = Control(kv)
    await control.create()
    return control


async def test_create_is_idempotent_on_equal_content_and_a_conflict_otherwise(kv: KvClient) -> None:
    control = Control(kv)
    made, created = await control.create(description="greets")
    assert created
    assert (made.runtime, made.state, made.creator) == ("cs-js", FunctionState.FUNCTION_STATE_ACTIVE, "ada")
    again, created = await control.create(description="greets")
    assert (again, created) == (made, False)
    with pytest.raises(ConflictError) as caught:
        await control.create(description="other")
    assert caught.value.reason == "CS_CONFLICT_EXISTS"
    assert await control.changes() == ["function_created"]


async def test_delete_is_soft_and_can_be_undone(control: Control) -> None:
    await control.version("live")
    deleted = await control.functions.delete(TENANT, SPACE, NAME, ACTOR)
    assert deleted.state == FunctionState.FUNCTION_STATE_DELETED
    assert deleted.HasField("delete_time")
    assert await control.functions.delete(TENANT, SPACE, NAME, ACTOR) == deleted
    with pytest.raises(ConflictError) as caught:
        await control.create()
    assert caught.value.reason == "CS_CONFLICT_STATE"
    for refused in (control.upload(), control.set_alias("live", 1), control.versions.get(TENANT, SPACE, NAME, 1)):
        with pytest.raises(NotFoundError):
            await refused
    back = await control.functions.undelete(TENANT, SPACE, NAME, ACTOR)
    assert (back.state, back.HasField("delete_time"), back.latest_version) == (
        FunctionState.FUNCTION_STATE_ACTIVE,
        False,
        1,
    )
    assert (await control.versions.get(TENANT, SPACE, NAME, 1)).version == 1
    assert (await control.changes())[-2:] == ["function_deleted", "function_undeleted"]


async def test_lists_go_page_by_page_in_order(control: Control) -> None:
    for name in ("zebra", "apple", "mango", "berry"):
        await control.create(name)
    await control.functions.delete(TENANT, SPACE, "mango", ACTOR)
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page, after = await control.functions.list_by_name(TENANT, SPACE, after=after, limit=2, show_deleted=False)
        assert len(page) <= 2
        seen += [function.function for function in page]
    assert seen == ["apple", "berry", "hello", "zebra"]
    everything, _ = await control.functions.list_by_name(TENANT, SPACE, after="", limit=9, show_deleted=True)
    assert [function.function for function in everything] == ["apple", "berry", "hello", "mango", "zebra"]


async def test_a_draft_holds_the_canonical_bundle_for_24_hours(control: Control) -> None:
    draft = await control.upload()
    assert draft.expire_time.seconds - draft.create_time.seconds == 86_400
    stored = await BundleStore(control.client).get(TENANT, draft.bundle_sha256)
    assert stored is not None
    assert hashlib.sha256(stored).hexdigest() == draft.bundle_sha256
    assert len(stored) == draft.bundle_bytes
    again = await control.upload(dict(reversed(FILES.items())))
    assert again.bundle_sha256 == draft.bundle_sha256
    assert again.draft_id != draft.draft_id


async def test_what_looks_wrong_is_a_warning(kv: KvClient) -> None:
    control = Control(kv, NoFaults([Diagnostic("index.js", 2, 11, "unexpected token")]))
    await control.create()
    warning = (await control.upload()).warnings[0]
    assert (warning.file, warning.line, warning.column, warning.message) == ("index.js", 2, 11, "unexpected token")
    blind = Control(kv, NoFaults(error=SandboxError("no cell")))
    assert "could not be looked at" in (await blind.upload()).warnings[0].message


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"index.js": b""},
        {**FILES, "../up.js": b""},
        {**FILES, "/abs.js": b""},
        {**FILES, "a//b.js": b""},
        {**FILES, "index.js/below.js": b""},
        {**FILES, "x" * 257: b""},
        {**FILES, "a\0b": b""},
        {**FILES, **{f"f{n}": b"" for n in range(1000)}},
    ],
    ids=["none", "no manifest", "up", "absolute", "empty part", "below a file", "long", "nul", "too many"],
)
async def test_a_bad_upload_writes_nothing(control: Control, files: dict[str, bytes]) -> None:
    before = await control.client.call("DBSIZE")
    with pytest.raises(ValidationError):
        await control.upload(files)
    assert await control.client.call("DBSIZE") == before


async def test_a_bundle_over_its_limit_is_too_large(kv: KvClient) -> None:
    control = Control(kv, limits=LimitSettings(bundle_bytes=20_000))
    await control.create()
    with pytest.raises(TooLargeError):
        await control.upload({**FILES, "big.txt": b"x" * 20_000})


async def test_publish_numbers_versions_moves_the_alias_and_consumes_the_draft_in_one_step(control: Control) -> None:
    draft = await control.upload()
    version, alias, published = await control.publish(draft.draft_id, "live")
    assert published
    assert (version.version, version.draft_id, version.creator) == (1, draft.draft_id, "ada")
    assert (alias.version, alias.previous_version) == (1, 0)
    second = await control.version("live", b"export default () => 2")
    assert second.version == 2
    found, _ = await control.aliases.list_by_name(TENANT, SPACE, NAME, after="", limit=10)
    assert [(item.alias, item.version, item.previous_version) for item in found] == [("live", 2, 1)]
    # The bundle of a version has no end of life; that of a draft has.
    assert await control.client.call("TTL", keys.bundle(TENANT, version.bundle_sha256)) == -1
    waiting = await control.upload({**FILES, "index.js": b"waiting"})
    assert await control.client.call("TTL", keys.bundle(TENANT, waiting.bundle_sha256)) > 80_000


async def test_the_same_publish_again_answers_the_same_and_another_is_a_conflict(control: Control) -> None:
    draft = await control.upload()
    first, _, _ = await control.publish(draft.draft_id, "live")
    again, alias, published = await control.publish(draft.draft_id, "live")
    assert (again, published, alias.version) == (first, False, 1)
    with pytest.raises(ConflictError) as caught:
        await control.publish(draft.draft_id, "other")
    assert caught.value.reason == "CS_CONFLICT_STATE"
    assert (await control.changes()).count("version_published") == 1


async def test_an_expired_draft_is_told_from_none(control: Control) -> None:
    draft = await control.upload()
    control.clock.advance(timedelta(hours=24))
    with pytest.raises(ExpiredError) as expired:
        await control.publish(draft.draft_id)
    assert expired.value.reason == "CS_EXPIRED_DRAFT"
    with pytest.raises(NotFoundError) as missing:
        await control.publish("drf_01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert missing.value.reason == "CS_NOT_FOUND_DRAFT"


async def test_a_draft_of_another_function_or_tenant_is_not_found(control: Control) -> None:
    await control.create("other")
    foreign = await control.upload(name="other")
    with pytest.raises(NotFoundError) as caught:
        await control.publish(foreign.draft_id)
    assert caught.value.reason == "CS_NOT_FOUND_DRAFT"


async def test_a_damaged_bundle_is_never_published(control: Control) -> None:
    draft = await control.upload()
    await control.client.call("SET", keys.bundle(TENANT, draft.bundle_sha256), b"not the bundle")
    with pytest.raises(DamagedBundleError):
        await control.publish(draft.draft_id)
    assert "version_published" not in await control.changes()


async def test_a_bad_publish_writes_nothing(control: Control) -> None:
    draft = await control.upload()
    before = await control.changes()
    with pytest.raises(ValidationError):
        await control.publish(draft.draft_id, config={"memory_mb": 1})
    with pytest.raises(ValidationError):
        await control.publish(draft.draft_id, "Bad Alias")
    assert await control.changes() == before
    assert (await control.publish(draft.draft_id))[0].version == 1


async def test_many_publishers_at_once_get_a_number_each(control: Control) -> None:
    drafts = [await control.upload({**FILES, "n.txt": str(n).encode()}) for n in range(32)]
    published = await asyncio.gather(*(control.publish(draft.draft_id) for draft in drafts))
    assert sorted(version.version for version, _, _ in published) == list(range(1, 33))
    assert (await control.changes()).count("version_published") == 32


async def test_versions_are_listed_newest_first(control: Control) -> None:
    for number in range(5):
        await control.version(source=f"export default () => {number}".encode())
    page, below = await control.versions.list_newest_first(TENANT, SPACE, NAME, below=None, limit=3)
    assert [version.version for version in page] == [5, 4, 3]
    page, below = await control.versions.list_newest_first(TENANT, SPACE, NAME, below=below, limit=3)
    assert ([version.version for version in page], below) == ([2, 1], None)


async def test_an_alias_is_set_by_compare_and_set(control: Control) -> None:
    await control.version()
    await control.version(source=b"export default () => 2")
    await control.set_alias("live", 1, 0)
    with pytest.raises(ConflictError) as caught:
        await control.set_alias("live", 2, 0)
    assert (caught.value.reason, caught.value.metadata) == ("CS_CONFLICT_ALIAS_VERSION", {"version": "1"})
    moved = await control.set_alias("live", 2, 1)
    assert (moved.version, moved.previous_version) == (2, 1)
    assert await control.set_alias("live", 2) == moved
    with pytest.raises(NotFoundError) as missing:
        await control.set_alias("live", 3)
    assert missing.value.reason == "CS_NOT_FOUND_VERSION"
    with pytest.raises(ValidationError):
        await control.set_alias("live", 0)
    assert (await control.changes()).count("alias_set") == 2


async def test_rollback_goes_back_and_a_second_one_undoes_it(control: Control) -> None:
    await control.version("live")
    with pytest.raises(ConflictError):
        await control.aliases.rollback(TENANT, SPACE, NAME, "live", ACTOR)
    await control.version("live", b"export default () => 2")
    for expected in (1, 2, 1):
        back = await control.aliases.rollback(TENANT, SPACE, NAME, "live", ACTOR)
        assert back.alias.version == expected
    with pytest.raises(NotFoundError) as missing:
        await control.aliases.rollback(TENANT, SPACE, NAME, "other", ACTOR)
    assert missing.value.reason == "CS_NOT_FOUND_ALIAS"


async def test_an_alias_is_deleted_once(control: Control) -> None:
    await control.version("live")
    await control.aliases.delete(TENANT, SPACE, NAME, "live", ACTOR)
    with pytest.raises(NotFoundError):
        await control.aliases.delete(TENANT, SPACE, NAME, "live", ACTOR)
    assert (await control.changes())[-1] == "alias_deleted"


async def test_each_mutation_tells_who_when_and_what_changed(control: Control) -> None:
    await control.version("live")
    entries = [mutation for _, mutation in await control.log.read(TENANT, after="", limit=10)]
    assert [entry.WhichOneof("change") for entry in entries] == [
        "function_created",
        "draft_uploaded",
        "version_published",
    ]
    assert {entry.actor.subject for entry in entries} == {"ada"}
    assert {entry.request_id for entry in entries} == {ACTOR.request_id}
    assert len({entry.mutation_id for entry in entries}) == 3
    assert entries[0].before_sha256 == ""
    assert len(entries[0].after_sha256) == 64
    assert entries[2].version_published.alias.version == 1
