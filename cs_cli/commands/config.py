"""`cs config`: the settings of the services."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cs_cli.failure import CommandError
from cs_cli.options import DataDir, Json
from cs_cli.output import OUT
from cs_core.config import Settings, SettingsError, load_settings

app = typer.Typer(help="Look at the settings of the services.", no_args_is_help=True)


def read_settings(path: Path | None) -> Settings:
    """Read settings as a service would. Raises CommandError when they cannot be used."""
    try:
        return load_settings(path)
    except SettingsError as error:
        raise CommandError("CS_CLI_SETTINGS", str(error)) from error


@app.command()
def show(
    config: Annotated[Path | None, typer.Option("--config", help="Settings file.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Print the settings in force, secrets hidden: defaults, then the file, then the environment.

    Without --config and with --data-dir: the settings that the stack there was started with.
    """
    if config is None and data_dir is not None:
        from cs_cli.stack.folders import Folders, find_data_dir

        config = Folders(find_data_dir(data_dir)).settings
    tree = read_settings(config).redacted()
    if OUT.json:
        OUT.data(tree)
        return
    for section, values in tree.items():
        OUT.line(rf"[bold]\[{section}][/bold]")
        for key, value in values.items():
            OUT.line(f"{key} = [cyan]{escape(_toml(value))}[/cyan]")
        OUT.line("")


def _toml(value: object) -> str:
    """A value as TOML writes it; JSON writes all that the settings hold the same way, but for tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    return dumps(value)
