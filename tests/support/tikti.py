"""A stand-in for Tikti: the endpoints that this platform and its command line use, and counts of what was asked.

What it serves and what its tokens hold is as Tikti documents it: identity tokens by HS256 from a sign-in, access tokens
by RS256 from an exchange, the key set, and the lookup. Besides, it answers RFC 7662 and the token endpoint of RFC 6749
as other issuers do.
"""

from __future__ import annotations

import hmac
import json
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

AUDIENCE = "code-sous"
API_KEY = "stand-in-api-key"
SECRET = "stand-in-secret-of-identity-tokens"


@dataclass
class User:
    """Somebody who can sign in."""

    email: str
    password: str
    tenant: str
    role: str = "COMPANY_EMPLOYEE"
    status: str = "ACTIVE"
    # What its roles and the client let it ask for.
    scopes: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


class Tikti:
    """The stand-in, on a port of its own. `asked` counts requests by path; `fail` makes a path answer that status."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.asked: Counter[str] = Counter()
        self.fail: dict[str, int] = {}
        self.answers: dict[str, Any] = {}
        self.delay = 0.0
        self.access_ttl = 900
        self.clients: dict[str, tuple[str, User]] = {}
        self.refresh_tokens: dict[str, User] = {}
        self.revoked: set[str] = set()
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.rotate("tikti-1")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def jwks_url(self) -> str:
        return f"{self.url}/v1/.well-known/jwks.json"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def rotate(self, key_id: str, *, keep: bool = True) -> None:
        """Sign with a new key from now on; without `keep` the old ones are withdrawn."""
        if not keep:
            self.keys.clear()
        self.keys[key_id] = _key(key_id)

    def add(self, user: User) -> User:
        self.users[user.email] = user
        return user

    def key_set(self) -> dict[str, Any]:
        entries = []
        for key_id, key in self.keys.items():
            entry = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
            entries.append(
                {"kty": "RSA", "n": entry["n"], "e": entry["e"], "kid": key_id, "use": "sig", "alg": "RS256"}
            )
        return {"keys": entries}

    def identity_token(self, user: User) -> str:
        now = int(time.time())
        claims = {"sub": user.id, "email": user.email, "role": user.role, "tid": user.tenant, "amr": "pwd"}
        return jwt.encode({**claims, "iss": self.url, "iat": now, "exp": now + 3600}, SECRET, algorithm="HS256")

    def access_token(self, user: User, scopes: tuple[str, ...], *, subject: str = "", **claims: Any) -> str:
        now = int(time.time())
        key_id = list(self.keys)[-1]
        good: dict[str, Any] = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": subject or user.id,
            "email": user.email,
            "tid": user.tenant,
            "ver": 0,
            "iat": now,
            "exp": now + self.access_ttl,
            "jti": str(uuid.uuid4()),
        }
        if scopes:
            good["scope"] = " ".join(scopes)
        merged = {name: value for name, value in {**good, **claims}.items() if value is not None}
        return jwt.encode(merged, self.keys[key_id], algorithm="RS256", headers={"kid": key_id})

    def answer(self, verb: str, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        """Answer a request: a status and a document, or bytes as they are."""
        route = path.removeprefix("/v1")
        if verb == "GET" and route == "/.well-known/jwks.json":
            return 200, self.key_set()
        if verb == "GET" and path == "/healthz":
            return 200, {"status": "ok"}
        if route.startswith("/oauth/"):
            return self._oauth(route, {name: values[0] for name, values in parse_qs(body.decode()).items()}, headers)
        if verb != "POST" or not route.startswith("/accounts/"):
            return 404, {"error": "not found"}
        try:
            asked = json.loads(body)
        except ValueError:
            return 400, {"error": "invalid request"}
        if route == "/accounts/signIn":
            return self._sign_in(asked)
        if not hmac.compare_digest(headers.get("x-api-key") or "", API_KEY):
            return 401, {"error": "invalid api key"}
        match route:
            case "/accounts/signInWithPassword":
                return self._sign_in(asked)
            case "/accounts/lookup":
                return self._lookup(asked)
            case "/accounts/token/exchange":
                return self._exchange(asked)
        return 404, {"error": "not found"}

    def _sign_in(self, asked: Any) -> tuple[int, Any]:
        user = self.users.get(asked.get("email", ""))
        if user is None or user.password != asked.get("password") or user.status == "SUSPENDED":
            return 401, {"error": "invalid credentials"}
        token = self.identity_token(user)
        return 200, {"idToken": token, "email": user.email, "localId": user.id, "expiresIn": 3600}

    def _owner(self, token: Any) -> User | None:
        try:
            claims = jwt.decode(str(token), SECRET, algorithms=["HS256"], issuer=self.url)
        except jwt.PyJWTError:
            return None
        return self.users.get(claims["email"])

    def _lookup(self, asked: Any) -> tuple[int, Any]:
        user = self._owner(asked.get("idToken"))
        if user is None:
            return 401, {"error": "invalid token"}
        told = {"localId": user.id, "email": user.email, "role": user.role, "tenantId": user.tenant}
        return 200, {"users": [{**told, "status": user.status}]}

    def _exchange(self, asked: Any) -> tuple[int, Any]:
        user = self._owner(asked.get("idToken"))
        if user is None or user.status == "SUSPENDED":
            return 401, {"error": "invalid token"}
        if asked.get("audience") != AUDIENCE:
            return 400, {"error": "invalid audience"}
        if asked.get("tenantId", user.tenant) != user.tenant:
            return 400, {"error": "invalid tenant"}
        scopes = tuple(asked.get("scopes") or user.scopes)
        if not set(scopes) <= set(user.scopes):
            return 403, {"error": "unauthorized scope"}
        token = self.access_token(user, scopes, subject=asked.get("subject", ""))
        return 200, {"accessToken": token, "tokenType": "Bearer", "expiresIn": self.access_ttl}

    def _oauth(self, route: str, form: dict[str, str], headers: Any) -> tuple[int, Any]:
        if route == "/oauth/introspect":
            if headers.get("authorization") != f"Bearer {API_KEY}":
                return 401, {"error": "invalid_client"}
            return 200, self._introspect(form.get("token", ""))
        match form.get("grant_type"):
            case "refresh_token":
                user = self.refresh_tokens.pop(form.get("refresh_token", ""), None)
                if user is None:
                    return 400, {"error": "invalid_grant"}
                renewed = f"refresh-{uuid.uuid4()}"
                self.refresh_tokens[renewed] = user
                return 200, {**self._granted(user, user.scopes), "refresh_token": renewed}
            case "client_credentials":
                secret, user = self.clients.get(form.get("client_id", ""), ("", User("", "", "")))
                if not secret or secret != form.get("client_secret"):
                    return 401, {"error": "invalid_client"}
                scopes = tuple(form.get("scope", "").split()) or user.scopes
                if not set(scopes) <= set(user.scopes):
                    return 400, {"error": "invalid_scope"}
                return 200, self._granted(user, scopes)
        return 400, {"error": "unsupported_grant_type"}

    def _granted(self, user: User, scopes: tuple[str, ...]) -> dict[str, Any]:
        token = self.access_token(user, scopes)
        return {"access_token": token, "token_type": "Bearer", "expires_in": self.access_ttl}

    def _introspect(self, token: str) -> dict[str, Any]:
        try:
            key = self.keys[jwt.get_unverified_header(token)["kid"]].public_key()
            claims = jwt.decode(token, key, algorithms=["RS256"], audience=AUDIENCE, issuer=self.url)
        except (jwt.PyJWTError, KeyError):
            return {"active": False}
        return {"active": False} if token in self.revoked else {"active": True, **claims}


@cache
def _key(_key_id: str) -> rsa.RSAPrivateKey:
    """A key for each name, made once for all tests: making one takes longer than most of them."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _handler(tikti: Tikti) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def _serve(self, verb: str) -> None:
            path = urlsplit(self.path).path
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            tikti.asked[path] += 1
            if tikti.delay:
                time.sleep(tikti.delay)
            if path in tikti.answers:
                status, document = 200, tikti.answers[path]
            else:
                status, document = tikti.answer(verb, path, self.headers, body)
            status = tikti.fail.get(path, status)
            data = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
