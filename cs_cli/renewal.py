"""Getting the next access token before the last one ends: from a refresh token, a service's secret, or Tikti.

Everything here goes into the login file, which is its owner's alone. No secret of it is an argument of a command: every
process of the machine sees those.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from cs_cli.failure import SERVER, CommandError

Kind = Literal["refresh_token", "client_credentials", "tikti"]
AHEAD: Final = 60.0
"""How long before its end a token is renewed, in seconds."""
_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Renewal:
    """Where the next token comes from. Fields that a kind does not use are empty.

    `refresh_token`: the token endpoint of RFC 6749 and a refresh token, which the endpoint may replace at each use.
    `client_credentials`: the same endpoint, and a service's own id and secret.
    `tikti`: Tikti's base address, an API key, and the identity token of a sign-in, which is exchanged while it lasts.
    """

    kind: Kind
    url: str
    client_id: str = ""
    client_secret: str = ""
    refresh_token: str = ""
    id_token: str = ""
    api_key: str = ""
    audience: str = ""
    scope: str = ""


def check_renewal_url(url: str) -> None:
    """Raise CommandError unless `url` is https://, or http:// on this machine: secrets are sent there."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme == "https" or (parts.scheme == "http" and _is_here(parts.hostname or ""))
        fine = fine and bool(parts.hostname) and not parts.username and not parts.query and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine:
        raise CommandError("CS_VALIDATION_FIELD", f"must be https://HOST..., or http:// on this machine: {url}")


def renew(renewal: Renewal, tenant: str) -> tuple[str, Renewal]:
    """Get the next access token, and what the one after it comes from.

    Raises:
        CommandError: the issuer does not answer, or refuses (`CS_CLI_RENEWAL`).
    """
    if renewal.kind == "tikti":
        return _exchange(renewal, tenant), renewal
    form: dict[str, str] = {"grant_type": renewal.kind}
    form |= {name: getattr(renewal, name) for name in ("client_id", "client_secret", "scope") if getattr(renewal, name)}
    if renewal.kind == "refresh_token":
        form["refresh_token"] = renewal.refresh_token
    answer = _post(renewal.url, data=form)
    given = answer.get("refresh_token", renewal.refresh_token)
    return _token(answer, "access_token"), replace(renewal, refresh_token=given if isinstance(given, str) else "")


def sign_in(url: str, api_key: str, email: str, password: str) -> str:
    """Sign in at Tikti; returns the identity token. Raises CommandError as `renew` does."""
    asked = {"email": email, "password": password, "returnSecureToken": True}
    return _token(_post(f"{url}/v1/accounts/signInWithPassword", api_key=api_key, document=asked), "idToken")


def ends_at(token: str) -> float | None:
    """When a token says that it ends, in seconds since 1970; None when it does not say."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    ends = claims.get("exp") if isinstance(claims, dict) else None
    return float(ends) if isinstance(ends, int | float) and not isinstance(ends, bool) else None


def _exchange(renewal: Renewal, tenant: str) -> str:
    asked: dict[str, Any] = {"idToken": renewal.id_token, "audience": renewal.audience, "tenantId": tenant}
    if renewal.scope:
        asked["scopes"] = renewal.scope.split()
    answer = _post(f"{renewal.url}/v1/accounts/token/exchange", api_key=renewal.api_key, document=asked)
    return _token(answer, "accessToken")


def _post(url: str, *, api_key: str = "", document: Any = None, data: dict[str, str] | None = None) -> dict[str, Any]:
    import httpx

    headers = {"x-api-key": api_key} if api_key else {}
    try:
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=False) as client:
            answer = client.post(url, json=document, data=data, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CommandError("CS_CLI_RENEWAL", f"{url} does not answer", SERVER) from error
    try:
        found = answer.json()
    except ValueError:
        found = None
    if answer.status_code != httpx.codes.OK or not isinstance(found, dict):
        why = found.get("error", "") if isinstance(found, dict) else ""
        raise CommandError("CS_CLI_RENEWAL", f"{url} gives no token: {answer.status_code} {why}".rstrip())
    return found


def _token(answer: dict[str, Any], name: str) -> str:
    token = answer.get(name)
    if not isinstance(token, str) or not token:
        raise CommandError("CS_CLI_RENEWAL", f"the issuer's answer holds no {name}", SERVER)
    return token


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
