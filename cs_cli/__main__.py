"""The `cs` command. Every failure ends here as a message and an exit code, never as a traceback."""

from __future__ import annotations

import os
import sys

import typer
from typer import rich_utils

from cs_cli import failure
from cs_cli.app import app
from cs_cli.failure import CommandError
from cs_cli.output import OUT


def main() -> None:
    """Run the command line of this process and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    # Known before the command line is understood, for errors in the command line itself.
    OUT.json_asked, OUT.table_asked = "--json" in arguments, False
    try:
        result = app(arguments, prog_name="cs", standalone_mode=False)
    except CommandError as error:
        OUT.error(error)
        return error.exit_code
    except typer.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except typer.TyperException as error:
        return _usage(error)
    except BrokenPipeError:
        # The reader of a pipe went away; what is left in the buffer must not raise once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failure.CALLER
    except Exception as error:
        if os.environ.get("CODE_SOUS_DEBUG"):
            raise
        OUT.error(CommandError("CS_CLI_INTERNAL", f"{type(error).__name__}: {error} (CODE_SOUS_DEBUG=1 tells more)"))
        return failure.SERVER
    return result if isinstance(result, int) else 0


def _usage(error: typer.TyperException) -> int:
    if OUT.json:
        OUT.error(CommandError("CS_CLI_USAGE", str(getattr(error, "message", error))))
    else:
        rich_utils.rich_format_error(error)  # type: ignore[arg-type]  # narrower in its signature than in its use
    return failure.CALLER


if __name__ == "__main__":
    main()
