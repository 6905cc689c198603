"""The host API over a real store, queue and cells: what a function asks for happens there, within its limits."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from codesous.gateway.v1.activation_pb2 import Activation
from codesous.queue.v1.envelope_pb2 import Envelope
from codesous.runtime.v1.version_config_pb2 import IsolationLevel
from codesous.type.v1.capabilities_pb2 import Capabilities, HttpCapability, KvCapability, KvOperation, QueueCapability
from codesous.type.v1.trigger_pb2 import CadenceTrigger, Trigger

from cs_core.codeq.contract import user_topic
from cs_core.codeq.kv import KvResultChannel
from cs_core.config import Settings
from cs_core.store import keys
from cs_core.store.client import KvClient
from tests.support.invocations import PARTITIONS, Ingress, status_of
from tests.support.invokers import make_settings, running_invoker
from tests.support.web_server import LOOPBACK, Received, Reply, web_server

SECRET = 'p4ss"wörd/with+odd\\parts'
EVERYTHING = Capabilities(
    kv=KvCapability(prefixes=["k/"], operations=[operation for operation in KvOperation.values() if operation]),
    codeq=QueueCapability(publish_topics=["orders", "audit.*"]),
    http=HttpCapability(allow_hosts=[LOOPBACK]),
    secrets=["db-password", "gone"],
)


@pytest.fixture
def ingress(kv: KvClient) -> Ingress:
    return Ingress(kv)


def settings(url: str, tmp_path: Path, **sections: Any) -> Settings:
    (tmp_path / "secrets.json").write_text(json.dumps({"t_alpha0": {"db-password": SECRET}}))
    tree = make_settings(url).model_dump() | {
        "secrets": {"provider": "file", "path": str(tmp_path / "secrets.json")},
        "egress": {"allow_networks": [f"{LOOPBACK}/32"]},
    }
    return Settings.model_validate(tree | sections)


@pytest.fixture
async def invoker(redis_url: str, tmp_path: Path) -> AsyncIterator[None]:
    async with running_invoker(settings(redis_url, tmp_path)):
        yield


async def run(
    ingress: Ingress, source: str, event: Any = None, *, trigger: Trigger | None = None, **config: Any
) -> Activation:
    # Versions never change, so each source has a name of its own.
    name = f"host-{zlib.crc32(source.encode())}"
    ref = await ingress.put_version(
        name, f"export default async (event) => {{ {source} }}", capabilities=EVERYTHING, **config
    )
    request = ingress.make_request(ref, event, reply_to="poller-1")
    if trigger is not None:
        request.trigger.CopyFrom(trigger)
    return await ingress.ended(await ingress.submit(request))


def body(record: Activation) -> Any:
    assert status_of(record) == "SUCCESS", record.error
    return json.loads(record.response.body)


async def test_keys_of_a_tenant_stay_within_their_quota(ingress: Ingress, redis_url: str, tmp_path: Path) -> None:
    limits = {"limits": {"kv_tenant_keys": 3}}
    source = """
    const got = [];
    for (let n = 0; n < 5; n++) got.push(await cs.kv.set("k/" + n, n, {ttl: 60}).catch((e) => e.reason));
    return [got, await cs.kv.list("k/", {after: "k/0", limit: 5}), await cs.kv.del("k/0")]"""
    async with running_invoker(settings(redis_url, tmp_path, **limits)):
        got = body(await run(ingress, source))
        left = await run(ingress, "await cs.kv.set('k/3', 1); await cs.kv.set('k/4', 1)")
    full = "CS_RUNTIME_QUOTA_EXCEEDED"
    assert got == [[None, None, None, full, full], ["k/1", "k/2"], True]
    assert left.error.reason == full


async def test_a_message_is_on_the_queue_when_its_id_is_told(ingress: Ingress, invoker: None) -> None:
    record = await run(
        ingress,
        """return [await cs.codeq.publish("orders", {n: event}, {key: "a"}), await cs.codeq.publish("audit.x", [1]),
          await cs.codeq.publish("cs.invoke", {}).catch((e) => e.reason),
          await cs.codeq.publish("orders", "x".repeat(300000)).catch((e) => e.reason)]""",
        7,
    )
    first, second, *refused = body(record)
    assert refused == ["CS_RUNTIME_CAPABILITY_DENIED", "CS_VALIDATION_TOO_LARGE"]
    topic = user_topic(ingress.tenant, "orders")
    [delivery] = await ingress.queue.receive(topic, limit=10, wait=timedelta(seconds=5))
    envelope = delivery.envelope()
    assert (envelope.message_id, envelope.topic, envelope.tenant) == (first["messageId"], topic, ingress.tenant)
    message = envelope.user_message
    assert (message.topic, message.body, message.partition_key) == ("orders", b'{"n":7}', "a")
    assert message.activation_id == record.activation_id
    assert delivery.partition in keys.tenant_partitions(ingress.tenant, PARTITIONS)
    [other] = await ingress.queue.receive(user_topic(ingress.tenant, "audit.x"), limit=10, wait=timedelta(seconds=5))
    assert other.envelope().message_id == second["messageId"]


async def test_messages_of_one_key_keep_their_order_and_delayed_ones_wait(ingress: Ingress, invoker: None) -> None:
    await run(
        ingress,
        """await cs.codeq.publish("orders", "late", {delay: 600});
        for (let n = 0; n < 20; n++) await cs.codeq.publish("orders", n, {key: "a"})""",
    )
    topic = user_topic(ingress.tenant, "orders")
    found = await ingress.queue.receive(topic, limit=50, wait=timedelta(seconds=5))
    assert [json.loads(each.envelope().user_message.body) for each in found] == list(range(20))
    assert sum(part.delayed for part in (await ingress.queue.depth(topic)).partitions.values()) == 1


async def test_a_topic_is_full_at_its_limit(ingress: Ingress, redis_url: str, tmp_path: Path) -> None:
    async with running_invoker(settings(redis_url, tmp_path, limits={"topic_messages": 3})):
        record = await run(ingress, "for (let n = 0; n < 5; n++) await cs.codeq.publish('orders', n)")
    assert record.error.reason == "CS_QUEUE_FULL"
    assert (await ingress.queue.depth(user_topic(ingress.tenant, "orders"))).total == 3


async def test_heartbeats_reach_the_poller_and_the_last_details_win(
    ingress: Ingress, invoker: None, kv: KvClient
) -> None:
    pushed: asyncio.Queue[Envelope] = asyncio.Queue()
    ready = asyncio.Event()
    source = """
    for (let n = 0; n <= 20; n++) await cs.cadence.heartbeat({n});
    await new Promise((done) => setTimeout(done, 1200));
    await cs.cadence.heartbeat("last");
    return await cs.cadence.heartbeat("x".repeat(70000)).catch((e) => e.reason)"""
    async with KvResultChannel(kv).listen("poller-1", pushed.put_nowait, ready.set):
        await ready.wait()
        record = await run(ingress, source, trigger=Trigger(cadence=CadenceTrigger(worker="w")))
        assert body(record) == "CS_VALIDATION_TOO_LARGE"
        found = []
        while (envelope := await asyncio.wait_for(pushed.get(), 10)).WhichOneof("body") != "invocation_result":
            found.append(envelope)
    beats = [envelope.activity_heartbeat for envelope in found]
    assert [json.loads(beat.details) for beat in beats] == [{"n": 0}, {"n": 20}, "last"]
    assert {(beat.tenant, beat.activation_id) for beat in beats} == {(ingress.tenant, record.activation_id)}
    assert {envelope.topic for envelope in found} == {"cs.heartbeat"}


async def test_a_heartbeat_of_another_trigger_is_denied(ingress: Ingress, invoker: None) -> None:
    assert (await run(ingress, "await cs.cadence.heartbeat(1)")).error.reason == "CS_RUNTIME_CAPABILITY_DENIED"


async def test_a_secret_that_was_read_is_in_nothing_that_is_kept(ingress: Ingress, invoker: None) -> None:
    source = """
    const secret = await cs.secrets.get("db-password");
    const bytes = new TextEncoder().encode(secret);
    const forms = [secret, JSON.stringify(secret), encodeURIComponent(secret), bytes.toBase64(), bytes.toHex(),
      new TextEncoder().encode("user:" + secret + "!").toBase64(), bytes.toBase64({alphabet: "base64url"})];
    for (const form of forms) console.log("it is", form, {form});
    if (event === "throw") throw new Error("with " + forms.join(" "));
    if (event === "bytes") return {statusCode: 200, isBase64Encoded: true, headers: {"x-a": "is " + bytes.toBase64()},
      body: new TextEncoder().encode("head " + secret + " tail").toBase64()};
    return {forms, length: secret.length, missing: await cs.secrets.get("gone").catch((e) => e.reason)}"""
    for event in ("return", "throw", "bytes"):
        record = await run(ingress, source, event)
        lines = await ingress.activations.logs(ingress.tenant, record.activation_id, 0, 100)
        kept = record.SerializeToString() + b"".join(line.message.encode() for line in lines)
        if event == "bytes":
            assert base64.b64decode(record.response.body) == b"head [redacted] tail"
            kept += base64.b64decode(record.response.body)
        for form in (
            SECRET.encode(),
            json.dumps(SECRET, ensure_ascii=False)[1:-1].encode(),
            base64.b64encode(SECRET.encode())[:-4],
            base64.b64encode(b"user:" + SECRET.encode())[8:-4],
            SECRET.encode().hex().encode(),
        ):
            assert form not in kept, (event, form)
        assert len(lines) == 7
        assert all(line.message.count("[redacted]") == 2 for line in lines), lines
    got = body(await run(ingress, source, "return"))
    assert got["length"] == len(SECRET)
    assert got["missing"] == "CS_NOT_FOUND_SECRET"


async def test_a_secret_that_a_kept_context_remembers_is_redacted_in_its_next_activation(
    ingress: Ingress, invoker: None
) -> None:
    source = """globalThis.known ??= [await cs.secrets.get("db-password"), 0];
    known[1]++;
    console.log("know", known[0]);
    return [known[0], known[1]]"""
    seen = []
    for _ in range(2):
        record = await run(ingress, source, isolation=IsolationLevel.ISOLATION_LEVEL_VERSION)
        [line] = await ingress.activations.logs(ingress.tenant, record.activation_id, 0, 100)
        assert line.message == "know [redacted]"
        seen.append(body(record))
    assert seen == [["[redacted]", 1], ["[redacted]", 2]]


async def test_a_secret_is_another_tenants_or_not_granted_in_vain(
    ingress: Ingress, kv: KvClient, invoker: None
) -> None:
    other = Ingress(kv, "t_beta00")
    assert (await run(other, "return cs.secrets.get('db-password')")).error.reason == "CS_NOT_FOUND_SECRET"
    assert (await run(ingress, "return cs.secrets.get('other')")).error.reason == "CS_RUNTIME_CAPABILITY_DENIED"


async def test_a_function_fetches_through_the_invoker(ingress: Ingress, invoker: None) -> None:
    async def hello(request: Received) -> Reply:
        return 200, [("content-type", "application/json")], json.dumps({"got": request.body.decode()}).encode()

    async with web_server(hello) as web:
        source = """const r = await fetch(event + "/a", {method: "POST", body: "hi"});
        return [r.status, await r.json(), await fetch("http://127.0.0.1/").catch((e) => e.reason)]"""
        got = body(await run(ingress, source, web.url))
    assert got == [200, {"got": "hi"}, "CS_RUNTIME_CAPABILITY_DENIED"]
