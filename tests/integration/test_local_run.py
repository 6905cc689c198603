"""`cs fn test` has the whole host API: the mesh's checks, values from the file beside the function, real fetches."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from cs_cli.failure import CommandError
from cs_cli.local_values import FILE, read_local_values
from cs_cli.sources import read_files
from tests.support.web_server import LOOPBACK, Received, Reply, web_server

MANIFEST = {
    "runtime": "cs-js",
    "capabilities": {
        "kv": {"prefixes": ["k/"], "operations": ["KV_OPERATION_GET", "KV_OPERATION_SET"]},
        "codeq": {"publishTopics": ["orders"]},
        "http": {"allowHosts": [LOOPBACK]},
        "secrets": ["api-key"],
    },
    "config": {"env": {"MODE": "manifest", "KEPT": "yes"}},
}
SOURCE = """
export default async (event) => {
  const reason = (error) => error.reason;
  await cs.kv.set("k/1", event);
  const secret = await cs.secrets.get("api-key");
  console.log("key", secret);
  await cs.codeq.publish("orders", {n: 1});
  return {
    kept: await cs.kv.get("k/1"), secret, mode: cs.env.get("MODE") + cs.env.get("KEPT"),
    fetched: await fetch(event.url).then((r) => r.text(), reason),
    denied: [await cs.kv.get("other").catch(reason), await cs.kv.del("k/1").catch(reason),
      await cs.codeq.publish("audit", 1).catch(reason), await fetch("http://example.com/").catch(reason),
      await cs.secrets.get("other").catch(reason), await cs.cadence.heartbeat(1).catch(reason)],
  };
}"""


async def run(folder: Path, event: Any) -> dict[str, Any]:
    (folder / "index.js").write_text(SOURCE)
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    (folder / "event.json").write_text(json.dumps(event))
    process = await asyncio.create_subprocess_exec(
        *(
            Path(sys.executable).parent / "cs",
            "fn",
            "test",
            "--path",
            folder,
            "--event",
            folder / "event.json",
            "--json",
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith(("CS_", "CODE_SOUS_"))},
    )
    out, err = await process.communicate()
    assert out, err
    result: dict[str, Any] = json.loads(out)
    return result


async def hello(_request: Received) -> Reply:
    return 200, [], b"hello"


async def test_a_local_run_is_given_what_the_file_beside_the_function_says(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(
        f'[env]\nMODE = "file"\n[secrets]\napi-key = "s3cret-value"\n[egress]\nallow_networks = ["{LOOPBACK}/32"]\n'
    )
    async with web_server(hello) as web:
        event = {"url": web.url}
        result = await run(tmp_path, event)
    assert result["status"] == "success", result
    got = json.loads(result["response"]["body"])
    assert got["denied"] == ["CS_RUNTIME_CAPABILITY_DENIED"] * 6
    assert (got["kept"], got["mode"], got["fetched"]) == (event, "fileyes", "hello")
    assert got["secret"] == "[redacted]"
    assert [line["message"] for line in result["logs"]] == ["key [redacted]"]
    assert result["published"] == [{"topic": "orders", "payload": {"n": 1}}]
    assert FILE not in read_files(tmp_path)


async def test_without_the_file_there_is_no_secret_and_no_way_to_this_machine(tmp_path: Path) -> None:
    async with web_server(hello) as web:
        result = await run(tmp_path, {"url": web.url})
        assert (result["status"], result["error"]["reason"]) == ("error", "CS_NOT_FOUND_SECRET")
        (tmp_path / FILE).write_text('[secrets]\napi-key = "s3cret-value"\n')
        got = json.loads((await run(tmp_path, {"url": web.url}))["response"]["body"])
    assert got["fetched"] == "CS_RUNTIME_CAPABILITY_DENIED"
    assert web.connections == 0


@pytest.mark.parametrize(
    "text",
    ["[env", "[other]\na = 1", "[env]\nA = 1", "secrets = 1", "[egress]\nallow_networks = ['x']", "[egress]\nx = 1"],
)
def test_a_file_that_cannot_be_understood_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CommandError):
        read_local_values(tmp_path)
