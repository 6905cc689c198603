"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cs_cli.output import OUT


def _choose_json(asked: bool) -> bool:
    OUT.json_asked = OUT.json_asked or asked
    return asked


def _choose_form(asked: str) -> str:
    if asked not in ("", "table", "json"):
        raise typer.BadParameter("must be table or json")
    OUT.json_asked = OUT.json_asked or asked == "json"
    OUT.table_asked = OUT.table_asked or asked == "table"
    return asked


Json = Annotated[
    bool,
    typer.Option(
        "--json", callback=_choose_json, is_eager=True, help="Print JSON. The default when stdout is no terminal."
    ),
]
Form = Annotated[
    str,
    typer.Option(
        "--output",
        callback=_choose_form,
        is_eager=True,
        help="table or json. Default: json when stdout is no terminal.",
    ),
]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the function.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Data directory of the stack. Default: $CODE_SOUS_DATA_DIR, else the nearest .data here or above.",
    ),
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="Most items to list.")]
Function = Annotated[str, typer.Argument(metavar="NAME", help="Name of the function.")]
SourceDir = Annotated[Path, typer.Option("--path", help="Folder of the function: manifest.json and code.")]
DEFAULT_NAMESPACE = "default"
