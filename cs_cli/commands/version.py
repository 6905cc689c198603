"""`cs version`."""

from __future__ import annotations

import platform
from importlib import metadata

from cs_cli.options import Json
from cs_cli.output import OUT


def version(json: Json = False) -> None:
    """Print the release."""
    release = metadata.version("code-sous")
    if OUT.json:
        OUT.data({"version": release, "python": platform.python_version()})
    else:
        OUT.line(f"code-sous {release} [dim](Python {platform.python_version()})[/dim]")
