"""A token issuer for development: a key pair in a folder, and tokens signed with it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cs_core.config import IamSettings
from cs_core.names import check_role, check_tenant


class DevIssuer:
    """Signs tokens for a machine's own mesh. Never for production: whoever reads the folder is everybody."""

    def __init__(self, directory: Path, issuer: str | None = None, audience: str | None = None) -> None:
        defaults = IamSettings()
        self._directory = directory
        self._issuer = issuer or defaults.issuer
        self._audience = audience or defaults.audience

    @property
    def jwks_path(self) -> Path:
        """The public keys, as the services read them."""
        return self._directory / "jwks.json"

    @property
    def _key_path(self) -> Path:
        return self._directory / "key.pem"

    def ensure(self) -> None:
        """Make the key pair unless it is there. The private key is readable by its owner only."""
        if self._key_path.exists() and self.jwks_path.exists():
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._key_path.unlink(missing_ok=True)
        descriptor = os.open(self._key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        entry = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
        entry.update(kid=_key_id(key), use="sig", alg="RS256")
        self.jwks_path.write_text(json.dumps({"keys": [entry]}), encoding="utf-8")

    def mint(
        self,
        tenant: str,
        roles: Sequence[str],
        *,
        subject: str = "dev",
        ttl: timedelta = timedelta(hours=24),
        scopes: Sequence[str] = (),
    ) -> str:
        """Sign a token. `scopes` narrow it to actions that one of them fits; none: it is not narrowed.

        Raises:
            ValidationError: the tenant or a role breaks its rule.
            FileNotFoundError: `ensure` was never called for this folder.
        """
        check_tenant(tenant)
        for role in roles:
            check_role(role)
        key = serialization.load_pem_private_key(self._key_path.read_bytes(), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("the development key is no RSA key")
        now = datetime.now(UTC)
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": subject,
            "tid": tenant,
            "role": list(roles),
            "iat": now,
            "exp": now + ttl,
            **({"scope": " ".join(scopes)} if scopes else {}),
        }
        return jwt.encode(claims, key, algorithm="RS256", headers={"kid": _key_id(key)})


def _key_id(key: rsa.RSAPrivateKey) -> str:
    numbers = key.public_key().public_numbers()
    return sha256(str(numbers.n).encode()).hexdigest()[:16]
