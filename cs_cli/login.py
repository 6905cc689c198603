"""Who the caller is and where the mesh is: saved by `cs auth login`, overridden by the environment.

The file is `$XDG_CONFIG_HOME/code-sous/login.json`, readable by its owner only. `CODE_SOUS_TENANT`, `CODE_SOUS_TOKEN`
and `CODE_SOUS_API_URL` win over it; they do not begin with `CS_`, which is for settings of the services. A login that
knows where its next token comes from renews it before it ends; two commands at once renew it once.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cs_cli import renewal as renewals
from cs_cli.failure import CommandError
from cs_cli.output import OUT
from cs_cli.renewal import Renewal
from cs_core.errors import ValidationError
from cs_core.names import check_tenant

DEFAULT_API_URL: Final = "http://127.0.0.1:8080"
_TOKEN_MAX: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Login:
    """A tenant, a token of it, and where to use them; and where the next token comes from, if anywhere."""

    tenant: str
    token: str
    api_url: str
    renewal: Renewal | None = None


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
    data = {name: value for name, value in asdict(login).items() if value is not None}
    # Made with its final mode: at no time can another user read it.
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(data, file)
    draft.replace(path)
    return path


def forget() -> bool:
    """Remove the login; tells whether there was one."""
    try:
        login_file().unlink()
    except FileNotFoundError:
        return False
    return True


def load() -> Login:
    """Read the login, and renew its token when that is about to end. Raises CommandError when there is none."""
    login = _read()
    if login.renewal is None or os.environ.get("CODE_SOUS_TOKEN") or not _is_due(login.token):
        return login
    with _locked():
        # Another command may have renewed it meanwhile, and a refresh token often serves once only.
        login = _read()
        return _renewed(login, login.renewal) if login.renewal is not None and _is_due(login.token) else login


def saved_tenant() -> str:
    """The tenant of the login; empty when there is none."""
    return os.environ.get("CODE_SOUS_TENANT") or str(_saved().get("tenant", ""))


def _read() -> Login:
    saved = _saved()
    login = Login(
        os.environ.get("CODE_SOUS_TENANT") or saved.get("tenant", ""),
        os.environ.get("CODE_SOUS_TOKEN") or saved.get("token", ""),
        os.environ.get("CODE_SOUS_API_URL") or saved.get("api_url", DEFAULT_API_URL),
        saved.get("renewal"),
    )
    if not login.tenant or not login.token:
        raise CommandError(
            "CS_CLI_NO_LOGIN", "not logged in: use `cs auth login --tenant T --token TOKEN --api-url URL` first"
        )
    _check(login)
    return login


def _renewed(login: Login, by: Renewal) -> Login:
    try:
        token, renewal = renewals.renew(by, login.tenant)
    except CommandError as error:
        ends = renewals.ends_at(login.token)
        if ends is not None and ends <= time.time():
            message = f"the access token has ended and there is no new one; log in again ({error.message})"
            raise CommandError("CS_CLI_LOGIN_ENDED", message, error.exit_code) from error
        OUT.note(f"[yellow]the access token could not be renewed yet[/yellow] [dim]{error.message}[/dim]")
        return login
    renewed = replace(login, token=token, renewal=renewal)
    # What the environment says is for this command only.
    saved = _saved()
    save(replace(renewed, tenant=saved.get("tenant", login.tenant), api_url=saved.get("api_url", login.api_url)))
    return renewed


def _is_due(token: str) -> bool:
    ends = renewals.ends_at(token)
    return ends is not None and ends - renewals.AHEAD <= time.time()


@contextmanager
def _locked() -> Iterator[None]:
    path = login_file().with_suffix(".lock")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _saved() -> dict[str, Any]:
    path = login_file()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CommandError("CS_CLI_BAD_LOGIN", f"{path} cannot be read: log in again ({error})") from error
    bad = CommandError("CS_CLI_BAD_LOGIN", f"{path} is not a login: log in again")
    if not isinstance(found, dict):
        raise bad
    renewal = found.pop("renewal", None)
    if not all(isinstance(value, str) for value in found.values()):
        raise bad
    if renewal is None:
        return found
    try:
        if not all(isinstance(value, str) for value in renewal.values()):
            raise bad
        return {**found, "renewal": Renewal(**renewal)}
    except (AttributeError, TypeError) as error:
        raise bad from error


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
    if login.renewal is not None:
        renewals.check_renewal_url(login.renewal.url)


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
