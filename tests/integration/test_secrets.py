"""Secrets that the platform keeps: written through the control plane, sealed in the store, read by functions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from codesous.type.v1.function_ref_pb2 import FunctionRef
from codesous.type.v1.principal_pb2 import Principal

from cs_control.mutations import Actor
from cs_control.secrets import SECRETS_MAX, VALUE_MAX, Secrets
from cs_core.clock import ManualClock
from cs_core.config import SecretSettings
from cs_core.errors import ConflictError, NotFoundError, TooLargeError, ValidationError
from cs_core.sealing import load_sealer, make_key_file
from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.mutations import MutationLog
from cs_core.store.secrets import SecretStore
from cs_invoker.host_secrets import open_secrets
from cs_sandbox.job import HostCallError

TENANT, SPACE = "t_alpha0", "default"
ACTOR = Actor(Principal(subject="ada", tenant=TENANT, roles=["admin"]), "req_01ARZ3NDEKTSV4RRFFQ69G5FAV")
FUNCTION = FunctionRef(tenant=TENANT, namespace=SPACE, function="hello")


class Desk:
    """Both ends of a secret: where it is written, and where a function reads it."""

    def __init__(self, client: KvClient, key_file: Path) -> None:
        make_key_file(key_file)
        self.client, self.key_file = client, key_file
        self.store = SecretStore(client)

    @property
    def written(self) -> Secrets:
        return Secrets(self.store, load_sealer(self.key_file), ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))

    async def set(self, name: str, value: str) -> None:
        await self.written.set(TENANT, SPACE, name, value, ACTOR)

    async def read(self, name: str, function: FunctionRef = FUNCTION) -> str | None:
        source = open_secrets(SecretSettings(provider="store", key_file=str(self.key_file)), self.store)
        return await source.find(function, name)


@pytest.fixture
def desk(kv: KvClient, tmp_path: Path) -> Desk:
    return Desk(kv, tmp_path / "secret.keys")


async def test_a_function_reads_what_was_written_last_and_none_after_the_end(desk: Desk) -> None:
    assert await desk.read("token") is None
    await desk.set("token", "hunter2")
    await desk.set("token", "hunter3 \u00e9")
    assert await desk.read("token") == "hunter3 \u00e9"
    await desk.written.delete(TENANT, SPACE, "token", ACTOR)
    assert await desk.read("token") is None
    with pytest.raises(NotFoundError):
        await desk.written.delete(TENANT, SPACE, "token", ACTOR)


async def test_nobody_else_reads_it(desk: Desk) -> None:
    await desk.set("token", "hunter2")
    for tenant, namespace in (("t_beta00", SPACE), (TENANT, "other")):
        other = FunctionRef(tenant=tenant, namespace=namespace, function="hello")
        assert await desk.read("token", other) is None
        # Nor by a record that somebody with the store in hand puts into his own place.
        stored = await desk.client.call("HGET", keys.secrets(TENANT, SPACE), "token")
        await desk.client.call("HSET", keys.secrets(tenant, namespace), "token", stored)
        with pytest.raises(HostCallError) as refused:
            await desk.read("token", other)
        assert refused.value.reason == "CS_SECRETS_UNAVAILABLE"


async def test_neither_store_nor_log_nor_list_holds_the_value(desk: Desk) -> None:
    await desk.set("token", "hunter2")
    listed, more = await desk.written.list_by_name(TENANT, SPACE, after="", limit=10)
    assert ([one.secret for one in listed], more) == (["token"], None)
    (entry,) = await MutationLog(desk.client).read(TENANT, after="", limit=10)
    assert entry[1].secret_set.secret == listed[0]
    stored = await desk.client.call("HGET", keys.secrets(TENANT, SPACE), "token")
    for text in (stored, entry[1].SerializeToString(), listed[0].SerializeToString()):
        assert b"hunter2" not in text


async def test_a_key_that_is_not_there_is_told_and_gives_nothing(desk: Desk) -> None:
    await desk.set("token", "hunter2")
    desk.key_file.unlink()
    make_key_file(desk.key_file)
    with pytest.raises(HostCallError) as refused:
        await desk.read("token")
    assert refused.value.reason == "CS_SECRETS_UNAVAILABLE"


async def test_bad_input_writes_nothing(desk: Desk) -> None:
    for namespace, name, value, field in (
        (SPACE, "a/b", "x", "secret"),
        (SPACE, "", "x", "secret"),
        (SPACE, ".hidden", "x", "secret"),
        (SPACE, "a" * 129, "x", "secret"),
        ("No", "name", "x", "namespace"),
        (SPACE, "name", "", "value"),
    ):
        with pytest.raises(ValidationError) as refused:
            await desk.written.set(TENANT, namespace, name, value, ACTOR)
        assert [violation.field for violation in refused.value.violations] == [field]
    with pytest.raises(TooLargeError):
        await desk.written.set(TENANT, SPACE, "name", "x" * (VALUE_MAX + 1), ACTOR)
    assert await desk.client.call("EXISTS", keys.secrets(TENANT, SPACE)) == 0


async def test_a_namespace_holds_so_many_and_a_present_one_can_still_be_written(desk: Desk) -> None:
    written = desk.written
    for number in range(SECRETS_MAX):
        await written.set(TENANT, SPACE, f"s{number:03}", "x", ACTOR)
    with pytest.raises(ConflictError):
        await written.set(TENANT, SPACE, "more", "x", ACTOR)
    await written.set(TENANT, SPACE, "s000", "y", ACTOR)
    page, more = await written.list_by_name(TENANT, SPACE, after="", limit=2)
    assert ([one.secret for one in page], more) == (["s000", "s001"], "s001")


async def test_where_secrets_come_from_files_the_calls_say_so(desk: Desk) -> None:
    closed = Secrets(desk.store, None, ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))
    with pytest.raises(ConflictError) as refused:
        await closed.set(TENANT, SPACE, "token", "hunter2", ACTOR)
    assert refused.value.reason == "CS_CONFLICT_STATE"
    with pytest.raises(ConflictError):
        await closed.list_by_name(TENANT, SPACE, after="", limit=10)
    with pytest.raises(ConflictError):
        await closed.delete(TENANT, SPACE, "token", ACTOR)
