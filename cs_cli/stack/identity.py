"""The development issuer of a stack."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from cs_cli.failure import CommandError
from cs_cli.stack.folders import Folders
from cs_core.errors import ValidationError
from cs_core.iam.dev_issuer import DevIssuer


def mint(
    data_dir: Path, tenant: str, roles: Sequence[str], subject: str, ttl: timedelta, scopes: Sequence[str] = ()
) -> str:
    """Sign a token. Raises CommandError when there is no stack, or the tenant or a role breaks its rule."""
    issuer = DevIssuer(Folders(data_dir).identity)
    try:
        return issuer.mint(tenant, roles, subject=subject, ttl=ttl, scopes=scopes)
    except FileNotFoundError as error:
        message = f"{data_dir} holds no development issuer; start the mesh first (`cs up`) or give --data-dir"
        raise CommandError("CS_CLI_NO_STACK", message) from error
    except ValidationError as error:
        raise CommandError(error.reason, error.message) from error
