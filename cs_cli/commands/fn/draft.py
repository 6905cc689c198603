"""`cs fn draft`: code that waits to be published."""

from __future__ import annotations

import typer
from codesous.control.v1.version_pb2 import Draft
from rich.markup import escape

from cs_cli import login
from cs_cli.api import Api
from cs_cli.deploying import upload as upload_files
from cs_cli.messages import to_data
from cs_cli.options import DEFAULT_NAMESPACE, Function, Json, Namespace, SourceDir
from cs_cli.output import OUT, moment, size
from cs_cli.sources import read_files

app = typer.Typer(help="Code that waits to be published.", no_args_is_help=True)


@app.command()
def upload(name: Function, path: SourceDir, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Upload a folder as a draft. It can be published for 24 hours."""
    files = read_files(path)
    with Api(login.load()) as api:
        draft = upload_files(api, namespace, name, files)
    if OUT.json:
        OUT.data(to_data(draft))
        return
    OUT.fields(
        (
            ("draft", draft.draft_id),
            ("sha256", draft.bundle_sha256),
            ("size", size(draft.bundle_bytes)),
            ("expires", moment(draft.expire_time.ToJsonString())),
        )
    )
    show_warnings(draft)


def show_warnings(draft: Draft) -> None:
    """Print what looks wrong in a draft, for people."""
    for warning in draft.warnings:
        place = f"{warning.file}:{warning.line}:{warning.column}" if warning.line else warning.file
        OUT.note(f"[yellow]warning[/yellow] {escape(place)} {escape(warning.message)}")
