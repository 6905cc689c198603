"""Tokens made by hand, since no library writes the ones that must be refused."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from cs_core.clock import ManualClock
from cs_core.config import IamSettings
from cs_core.iam.jwks import KeySet
from cs_core.iam.signed import SignedTokens
from cs_core.iam.tokens import TokenVerifier

TENANT = "t_alpha0"
KEY_ID = "key-1"
_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def b64(data: bytes) -> str:
    """Base64 as tokens have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """Back from it, lenient."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Forge:
    """The issuer's key, an attacker's, and a verifier that knows the issuer's only."""

    def __init__(self, folder: Path) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.attacker = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.curve = ec.generate_private_key(ec.SECP256R1())
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [{**self.public_jwk(self.key), "kid": KEY_ID, "use": "sig"}]}))
        self.settings = IamSettings(jwks_url=self.jwks.as_uri())
        self.good = self.token()

    @property
    def pem(self) -> bytes:
        """The public key as text: what an HMAC is made with in the oldest of these attacks."""
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def public_jwk(self, key: rsa.RSAPrivateKey) -> dict[str, Any]:
        """A public key as a key set has it."""
        made: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
        return {name: made[name] for name in ("kty", "n", "e")}

    def verifier(self, settings: IamSettings | None = None) -> TokenVerifier:
        """A verifier that starts without any memory."""
        chosen = settings or self.settings
        clock = ManualClock(self.now)
        keys = KeySet(chosen.jwks_url, chosen.jwks_refresh, clock)
        return TokenVerifier(SignedTokens(chosen, keys, clock), clock, chosen.token_cache)

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Good claims, changed; `...` takes one away."""
        good = {
            "iss": self.settings.issuer,
            "aud": self.settings.audience,
            "sub": "ada",
            "tid": TENANT,
            "role": ["admin"],
            "iat": int(self.now.timestamp()),
            "exp": int((self.now + timedelta(hours=1)).timestamp()),
        }
        return {name: value for name, value in {**good, **changed}.items() if value is not ...}

    def token(
        self,
        claims: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
        *,
        payload: bytes | None = None,
        key: rsa.RSAPrivateKey | None = None,
    ) -> str:
        """A token whose signature fits its `alg`: RS and PS by `key`, HS by the public one as text, ES by a curve."""
        head = {"alg": "RS256", "typ": "JWT", "kid": KEY_ID, **(header or {})}
        head = {name: value for name, value in head.items() if value is not ...}
        content = json.dumps(self.claims() if claims is None else claims).encode() if payload is None else payload
        signed = f"{b64(json.dumps(head).encode())}.{b64(content)}"
        return f"{signed}.{b64(self._sign(str(head.get('alg')).strip(), signed.encode(), key or self.key))}"

    def _sign(self, algorithm: str, signed: bytes, key: rsa.RSAPrivateKey) -> bytes:
        kind, size = algorithm[:2].upper(), _HASHES.get(algorithm[2:], hashes.SHA256())
        match kind:
            case "HS":
                return hmac.digest(self.pem, signed, size.name)
            case "PS":
                return key.sign(signed, padding.PSS(padding.MGF1(size), padding.PSS.DIGEST_LENGTH), size)
            case "ES":
                return self.curve.sign(signed, ec.ECDSA(size))
            case "NO":
                return b"none"
        return key.sign(signed, padding.PKCS1v15(), size)

    def believing_payload(self, token: str, _key: Any) -> bytes:
        """What a verifier finds signed that believes the algorithm and the key that a token names. Never do this."""
        head, payload, signature = token.split(".")
        header = json.loads(unb64(head))
        algorithm = str(header.get("alg")).strip()
        signed, given = f"{head}.{payload}".encode(), unb64(signature)
        size = _HASHES.get(algorithm[2:], hashes.SHA256())
        match algorithm[:2].upper():
            case "NO":
                return unb64(payload)
            case "HS":
                if not hmac.compare_digest(hmac.digest(self.pem, signed, size.name), given):
                    raise jwt.InvalidSignatureError
                return unb64(payload)
            case "ES":
                self.curve.public_key().verify(given, signed, ec.ECDSA(size))
                return unb64(payload)
        key = jwt.PyJWK(header["jwk"], algorithm="RS256").key if "jwk" in header else self.key.public_key()
        way: Any = padding.PKCS1v15()
        if algorithm.startswith("PS"):
            way = padding.PSS(padding.MGF1(size), padding.PSS.DIGEST_LENGTH)
        try:
            key.verify(given, signed, way, size)
        except InvalidSignature as error:
            raise jwt.InvalidSignatureError from error
        return unb64(payload)
