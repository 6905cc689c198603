"""`cs fn init` and `cs fn test`: writing and running a function without a server."""

from __future__ import annotations

import asyncio
import json as jsonlib
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from codesous.runtime.v1.manifest_pb2 import Manifest
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from rich.markup import escape

from cs_cli import failure
from cs_cli.failure import CommandError
from cs_cli.messages import enum_word, response_data, to_data
from cs_cli.options import Json
from cs_cli.output import OUT, styled
from cs_cli.sources import DEFAULT_ENTRY, MANIFEST, read_event, read_files, read_manifest
from cs_core.config import MIB, LimitSettings
from cs_core.errors import ValidationError
from cs_core.names import check_function

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
    """Run a function here, in a cell as the mesh uses them. Exits with 3 when the function fails."""
    if path is None and not name:
        raise CommandError("CS_CLI_USAGE", "give NAME or --path DIR")
    folder = path or Path(name)
    files = read_files(folder)
    manifest = read_manifest(files)
    data = b"null"
    if event:
        data = read_event(event, iter([sys.stdin.buffer.read()]) if event == "-" else None)
    result = asyncio.run(_run(folder.resolve().name, files, manifest, data))
    _show(result)
    if result["status"] != "success":
        raise typer.Exit(failure.FUNCTION)


async def _run(name: str, files: dict[str, bytes], manifest: Manifest, event: bytes) -> dict[str, Any]:
    from cs_sandbox import Bundle, CellPool, Job, Limits, PoolSettings, SandboxError
    from cs_sandbox.local import LocalHostCalls

    limits, config, entry = LimitSettings(), manifest.config, manifest.entry or DEFAULT_ENTRY
    if entry not in files:
        raise CommandError("CS_VALIDATION_MANIFEST", f"{MANIFEST} names {entry}, and there is no such file")
    wall = config.timeout.ToTimedelta() if config.HasField("timeout") else None
    started = datetime.now(UTC)
    memory = (config.memory_mb or limits.memory_mb_default) * MIB
    job = Job(
        tenant=_TENANT,
        bundle=Bundle.of_files(files, entry),
        event=event,
        context={
            "activation_id": str(uuid.uuid4()),
            "deadline_ms": int(
                (started.timestamp() + (wall.total_seconds() if wall else limits.timeout_default)) * 1000
            ),
            "tenant": _TENANT,
            "namespace": "default",
            "function": name,
            "version": 0,
            "ref": "local",
            "trigger": {"kind": "api", "asynchronous": False},
            "principal": {"subject": "local", "tenant": _TENANT, "roles": ["admin"], "scopes": []},
            "attempt": 1,
        },
        limits=Limits(memory_bytes=memory) if wall is None else Limits(wall=wall, memory_bytes=memory),
        env=dict(config.env),
    )
    try:
        async with CellPool(PoolSettings(cells_max=1, spare_cells=0)) as pool:
            outcome = await pool.run(job, LocalHostCalls())
    except SandboxError as error:
        raise CommandError("CS_CLI_SANDBOX", str(error), failure.SERVER) from error
    return {
        "status": enum_word(ActivationStatus.DESCRIPTOR, outcome.status),
        "response": None if outcome.response is None else response_data(outcome.response),
        "error": None if outcome.error is None else to_data(outcome.error),
        "logs": [to_data(line) for line in outcome.logs],
        "duration_ms": round((outcome.end - outcome.start).total_seconds() * 1000, 3),
    }


def _show(result: dict[str, Any]) -> None:
    if OUT.json:
        OUT.data(result)
        return
    for line in result["logs"]:
        OUT.note(f"{styled(line['level'])} {escape(line['message'])}")
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
