"""Who the caller is and where the mesh is: saved by `cs auth login`, overridden by the environment.

The file is `$XDG_CONFIG_HOME/code-sous/login.json`, readable by its owner only. `CODE_SOUS_TENANT`, `CODE_SOUS_TOKEN`
and `CODE_SOUS_API_URL` win over it; they do not begin with `CS_`, which is for settings of the services.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cs_cli.failure import CommandError
from cs_core.errors import ValidationError
from cs_core.names import check_tenant

DEFAULT_API_URL: Final = "http://127.0.0.1:8080"
_TOKEN_MAX: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Login:
    """A tenant, a token of it, and where to use them."""

    tenant: str
    token: str
    api_url: str


def login_file() -> Path:
    """Where the login is saved."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "code-sous" / "login.json"


def save(login: Login) -> Path:
    """Check and save a login. Raises CommandError when a part of it breaks its rule."""
    _check(login)
    path = login_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    # Made with its final mode: at no time can another user read it.
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"tenant": login.tenant, "token": login.token, "api_url": login.api_url}, file)
    draft.replace(path)
    return path


def load() -> Login:
    """Read the login. Raises CommandError when there is none."""
    saved = _saved()
    login = Login(
        os.environ.get("CODE_SOUS_TENANT") or saved.get("tenant", ""),
        os.environ.get("CODE_SOUS_TOKEN") or saved.get("token", ""),
        os.environ.get("CODE_SOUS_API_URL") or saved.get("api_url", DEFAULT_API_URL),
    )
    if not login.tenant or not login.token:
        raise CommandError(
            "CS_CLI_NO_LOGIN", "not logged in: use `cs auth login --tenant T --token TOKEN --api-url URL` first"
        )
    _check(login)
    return login


def _saved() -> dict[str, str]:
    path = login_file()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CommandError("CS_CLI_BAD_LOGIN", f"{path} cannot be read: log in again ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CommandError("CS_CLI_BAD_LOGIN", f"{path} is not a login: log in again")
    return found


def _check(login: Login) -> None:
    try:
        check_tenant(login.tenant)
    except ValidationError as error:
        raise CommandError(error.reason, error.message) from error
    if not login.token.isascii() or not login.token.isprintable() or " " in login.token or not login.token:
        raise CommandError("CS_VALIDATION_FIELD", "token: must be printable ASCII without spaces")
    if len(login.token) > _TOKEN_MAX:
        raise CommandError("CS_VALIDATION_FIELD", f"token: must be at most {_TOKEN_MAX} characters")
    check_api_url(login.api_url)


def check_api_url(url: str) -> None:
    """Raise CommandError unless `url` is `http[s]://host[:port]` and nothing more."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.path in ("", "/")
        fine = fine and not parts.query and not parts.username and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine:
        raise CommandError("CS_VALIDATION_FIELD", f"api-url: must be http://HOST[:PORT] or https://HOST[:PORT]: {url}")
