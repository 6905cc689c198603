"""`cs http`: the web endpoint, as a web client sees it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cs_cli import failure, login
from cs_cli.api import LONG_DEADLINE
from cs_cli.failure import CommandError
from cs_cli.options import Json
from cs_cli.output import OUT

app = typer.Typer(help="Call functions as web pages.", no_args_is_help=True)
_WEB = "/v1/web/"


@app.command()
def invoke(
    path: Annotated[str, typer.Argument(metavar="PATH", help="NAMESPACE/FUNCTION/REF[/REST][?QUERY], or /v1/web/...")],
    method: Annotated[str, typer.Option("-X", "--method", help="Verb. Default: GET, with -d POST.")] = "",
    data: Annotated[str | None, typer.Option("-d", "--data", help="Body, or @FILE, or @- for standard input.")] = None,
    header: Annotated[list[str] | None, typer.Option("-H", "--header", help="NAME: VALUE; may be repeated.")] = None,
    json: Json = False,
) -> None:
    """Call a function by HTTP; print `status=CODE`, then the body. A 4xx exits with 1, a 5xx with 2."""
    import httpx

    saved = login.load()
    body = _body(data)
    headers = [("authorization", f"Bearer {saved.token}"), *(_header(text) for text in header or [])]
    verb = (method or ("GET" if body is None else "POST")).upper()
    try:
        with httpx.Client(timeout=LONG_DEADLINE, follow_redirects=False, trust_env=False) as client:
            answer = client.request(verb, saved.api_url + _path(path, saved.tenant), content=body, headers=headers)
    except (httpx.InvalidURL, UnicodeEncodeError, ValueError) as error:
        raise CommandError("CS_VALIDATION_FIELD", f"path or header: {error}") from error
    except httpx.TimeoutException as error:
        raise CommandError("CS_CLI_DEADLINE", f"{saved.api_url} did not answer in time", failure.SERVER) from error
    except httpx.HTTPError as error:
        message = f"{saved.api_url} does not answer; is the mesh up? (`cs status`, `cs up`)"
        raise CommandError("CS_CLI_UNREACHABLE", message, failure.SERVER) from error
    if OUT.json_asked:
        OUT.data({"status": answer.status_code, "headers": dict(answer.headers), "body": answer.text})
    else:
        sys.stdout.write(f"status={answer.status_code}\n")
        sys.stdout.flush()
        sys.stdout.buffer.write(answer.content)
        if answer.content and not answer.content.endswith(b"\n"):
            sys.stdout.buffer.write(b"\n")
    if answer.status_code >= 400:
        raise typer.Exit(failure.SERVER if answer.status_code >= 500 else failure.CALLER)


def _path(path: str, tenant: str) -> str:
    if path.startswith(_WEB):
        return path
    return f"{_WEB}{tenant}/{path.lstrip('/')}"


def _body(data: str | None) -> bytes | None:
    if data is None or not data.startswith("@"):
        return None if data is None else data.encode()
    if data == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise CommandError("CS_CLI_NO_FILE", f"{data[1:]} cannot be read: {error.strerror}") from error


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise CommandError("CS_VALIDATION_FIELD", f"header: must be NAME: VALUE, not {text!r}")
    return name.strip(), value.strip()
