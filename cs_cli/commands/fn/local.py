"""`cs fn init` and `cs fn test`: writing and running a function without a server."""

from __future__ import annotations

import asyncio
import json as jsonlib
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from codesous.runtime.v1.manifest_pb2 import Manifest
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from rich.markup import escape

from cs_cli import failure
from cs_cli.failure import CommandError
from cs_cli.local_values import LocalValues, read_local_values
from cs_cli.messages import enum_word, response_data, to_data
from cs_cli.options import Json
from cs_cli.output import OUT, styled
from cs_cli.sources import DEFAULT_ENTRY, MANIFEST, read_event, read_files, read_manifest
from cs_core.config import MIB, LimitSettings
from cs_core.errors import ValidationError
from cs_core.names import check_function

if TYPE_CHECKING:
    from cs_sandbox import Job

_TENANT = "t_local0"
_INDEX = """export default async function handle(event, ctx) {
  console.log("greeting", event?.name);
  return { statusCode: 200, body: `Hello, ${event?.name ?? "world"}!` };
}
"""
_EVENT = {"name": "Ada"}


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the function, and of the folder that is made.")],
    json: Json = False,
) -> None:
    """Make a folder with a function to begin with."""
    try:
        check_function(name, "name")
    except ValidationError as error:
        raise CommandError(error.reason, error.message) from error
    manifest = {"runtime": "cs-js", "config": {"invokeHttpRoles": ["admin"]}}
    files = {
        DEFAULT_ENTRY: _INDEX,
        MANIFEST: jsonlib.dumps(manifest, indent=2) + "\n",
        "event.json": jsonlib.dumps(_EVENT) + "\n",
    }
    folder = Path(name)
    try:
        folder.mkdir()
        for path, text in files.items():
            (folder / path).write_text(text, encoding="utf-8")
    except FileExistsError as error:
        raise CommandError("CS_CONFLICT_EXISTS", f"{folder} is there already") from error
    except OSError as error:
        raise CommandError("CS_CLI_NO_FILE", f"{folder} cannot be written: {error.strerror}") from error
    if OUT.json:
        OUT.data({"path": str(folder), "files": sorted(files)})
    else:
        OUT.line(f"[green]made[/green] {folder}/ [dim]({', '.join(sorted(files))})[/dim]")
        OUT.line(f"[dim]try it:[/dim] cs fn test --path {name} --event {name}/event.json")


def test(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Folder of the function, when --path is not given.")
    ] = "",
    path: Annotated[Path | None, typer.Option("--path", help="Folder of the function.")] = None,
    event: Annotated[str, typer.Option("--event", help="File of the event (JSON), or - for standard input.")] = "",
    json: Json = False,
) -> None:
    """Run a function here, in a cell as the mesh uses them. Exits with 3 when the function fails.

    Keys and messages stay here; fetches are real. Values of cs.env and cs.secrets are in the folder's .cs-test.toml.
    """
    if path is None and not name:
        raise CommandError("CS_CLI_USAGE", "give NAME or --path DIR")
    folder = path or Path(name)
    files = read_files(folder)
    manifest = read_manifest(files)
    data = b"null"
    if event:
        data = read_event(event, iter([sys.stdin.buffer.read()]) if event == "-" else None)
    result = asyncio.run(_run(folder.resolve().name, files, manifest, data, read_local_values(folder)))
    _show(result)
    if result["status"] != "success":
        raise typer.Exit(failure.FUNCTION)


async def _run(
    name: str, files: dict[str, bytes], manifest: Manifest, event: bytes, local: LocalValues
) -> dict[str, Any]:
    from cs_sandbox import CellPool, PoolSettings, SandboxError
    from cs_sandbox.host.fetch import open_fetcher
    from cs_sandbox.local import HostLimits, LocalHostCalls

    limits, config = LimitSettings(), manifest.config
    job = _job(name, files, manifest, event, local)
    fetcher = open_fetcher(**local.egress.model_dump())
    host = LocalHostCalls(
        config.capabilities if config.HasField("capabilities") else manifest.capabilities,
        secrets=local.secrets,
        fetcher=fetcher,
        limits=HostLimits(
            kv_value_bytes=limits.kv_value_bytes,
            kv_tenant_keys=limits.kv_tenant_keys,
            kv_tenant_bytes=limits.kv_tenant_bytes,
            message_bytes=limits.message_bytes,
            heartbeat_bytes=limits.heartbeat_bytes,
        ),
    )
    try:
        async with CellPool(PoolSettings(cells_max=1, spare_cells=0)) as pool:
            outcome = host.redactor.outcome(await pool.run(job, host))
    except SandboxError as error:
        raise CommandError("CS_CLI_SANDBOX", str(error), failure.SERVER) from error
    finally:
        await fetcher.close()
    return {
        "status": enum_word(ActivationStatus.DESCRIPTOR, outcome.status),
        "response": None if outcome.response is None else response_data(outcome.response),
        "error": None if outcome.error is None else to_data(outcome.error),
        "logs": [to_data(line) for line in outcome.logs],
        "published": [{"topic": each.topic, "payload": jsonlib.loads(each.payload)} for each in host.published],
        "duration_ms": round((outcome.end - outcome.start).total_seconds() * 1000, 3),
    }


def _job(name: str, files: dict[str, bytes], manifest: Manifest, event: bytes, local: LocalValues) -> Job:
    from cs_sandbox import Bundle, Job, Limits

    limits, config, entry = LimitSettings(), manifest.config, manifest.entry or DEFAULT_ENTRY
    if entry not in files:
        raise CommandError("CS_VALIDATION_MANIFEST", f"{MANIFEST} names {entry}, and there is no such file")
    wall = config.timeout.ToTimedelta() if config.HasField("timeout") else timedelta(seconds=limits.timeout_default)
    return Job(
        tenant=_TENANT,
        bundle=Bundle.of_files(files, entry),
        event=event,
        context={
            "activation_id": str(uuid.uuid4()),
            "deadline_ms": int((datetime.now(UTC) + wall).timestamp() * 1000),
            "tenant": _TENANT,
            "namespace": "default",
            "function": name,
            "version": 0,
            "ref": "local",
            "trigger": {"kind": "api", "asynchronous": False},
            "principal": {"subject": "local", "tenant": _TENANT, "roles": ["admin"], "scopes": []},
            "attempt": 1,
        },
        limits=Limits(wall=wall, memory_bytes=(config.memory_mb or limits.memory_mb_default) * MIB),
        env={**config.env, **local.env},
    )


def _show(result: dict[str, Any]) -> None:
    if OUT.json:
        OUT.data(result)
        return
    for line in result["logs"]:
        OUT.note(f"{styled(line['level'])} {escape(line['message'])}")
    for message in result["published"]:
        OUT.note(f"[dim]published on[/dim] {escape(message['topic'])} {escape(jsonlib.dumps(message['payload']))}")
    OUT.note(f"{styled(result['status'])} [dim]in {result['duration_ms']:.1f} ms[/dim]")
    if result["response"] is not None:
        OUT.note(f"[dim]status code[/dim] {result['response']['statusCode']}")
        OUT.text(result["response"]["body"])
    if result["error"] is not None:
        error = result["error"]
        kind = f"{error['type']}: " if error["type"] else ""
        OUT.note(f"[red]{error['reason']}[/red] {escape(kind + error['message'])}")
        if error["stack"]:
            OUT.note(f"[dim]{escape(error['stack'])}[/dim]")
