"""`cs store`: the form of the store's data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from google.protobuf.json_format import MessageToDict

from cs_cli.commands.config import read_settings
from cs_cli.failure import CALLER, SERVER, CommandError
from cs_cli.options import DataDir, Form, Json
from cs_cli.output import OUT, moment
from cs_core.clock import SystemClock
from cs_core.config import StoreSettings
from cs_core.errors import CodeSousError, StoreSchemaError
from cs_core.store.client import KvClient
from cs_core.store.migrations.migrator import Migrator, StepOutcome
from cs_core.store.schema import VERSION, SchemaStore

app = typer.Typer(help="Look at the schema of the store, and migrate it.", no_args_is_help=True)
Config = Annotated[
    Path | None, typer.Option("--config", help="Settings file of the services, which says where the store is.")
]
_T = TypeVar("_T")


@app.command()
def show(config: Config = None, data_dir: DataDir = None, json: Json = False, output: Form = "") -> None:
    """Print the schema of the store, and the one that this release needs."""
    record = _with_store(_settings(config, data_dir), lambda client: SchemaStore(client, SystemClock()).read())
    found: dict[str, Any] = {"needed": VERSION, "empty": record is None}
    if record is not None:
        found |= MessageToDict(record, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    if OUT.json:
        OUT.data(found)
        return
    if record is None:
        OUT.line("the store is empty")
    OUT.fields(
        (
            ("schema", "" if record is None else str(record.version)),
            ("readable from", "" if record is None else str(record.readable_from)),
            ("since", moment(found.get("update_time"))),
            ("by release", found.get("release", "")),
            ("needed", str(VERSION)),
        )
    )


@app.command()
def migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done; change nothing.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
    output: Form = "",
) -> None:
    """Bring the store to the schema of this release. May be run again, and while processes work."""
    settings = _settings(config, data_dir)
    done: list[dict[str, Any]] = []

    def tell(outcome: StepOutcome) -> None:
        step = outcome.step
        done.append({"to": step.version, "title": step.title, "changed": outcome.changed, "keys": outcome.keys})
        if not OUT.json:
            would = "would change" if dry_run else "changed"
            OUT.line(f"[bold]{step.version}[/bold] {step.title}: {would} {outcome.changed} of {outcome.keys}")

    async def work(client: KvClient) -> int:
        migrator = Migrator(client, SystemClock())
        before = await migrator.version()
        await (migrator.plan(tell) if dry_run else migrator.migrate(tell))
        return before

    before = _with_store(settings, work)
    if OUT.json:
        OUT.data({"from": before, "to": VERSION, "dry_run": dry_run, "steps": done})
    elif not done:
        OUT.line(f"the store has schema {before}: nothing to do")
    elif not dry_run:
        OUT.line(f"[green]migrated[/green] from schema {before} to {VERSION}")


def _settings(config: Path | None, data_dir: Path | None) -> StoreSettings:
    from cs_cli.stack.folders import Folders, find_data_dir

    stack = Folders(find_data_dir(data_dir)).settings
    return read_settings(config or (stack if stack.exists() else None)).store


def _with_store(settings: StoreSettings, work: Callable[[KvClient], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        client = KvClient(settings.url, settings.timeout)
        try:
            return await work(client)
        finally:
            await client.close()

    try:
        return asyncio.run(run())
    except CodeSousError as error:
        code = CALLER if isinstance(error, StoreSchemaError) else SERVER
        raise CommandError(error.reason, error.message, code) from error
