"""One mesh, brought up by `cs up` as a user would, and the ways into it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from codesous.control.v1 import alias_service_pb2_grpc, function_service_pb2_grpc, version_service_pb2_grpc
from codesous.gateway.v1 import activation_service_pb2_grpc, invocation_service_pb2_grpc, web_service_pb2_grpc

from tests.support.collector import Collector, running_collector

BIN = Path(sys.executable).parent
TENANT = "t_accept1"
OTHER_TENANT = "t_accept2"
GREET = """
export default async function handle(event, ctx) {
  console.log("greeting", event?.name);
  return { statusCode: 200, headers: { "x-version": String(ctx.version) }, body: `Hello, ${event?.name ?? "world"}!` };
}
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these share one mesh, so one worker runs them."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("acceptance"))


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


@dataclass
class Mesh:
    """The mesh as its users see it."""

    home: Path
    url: str = ""
    ports: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def data_dir(self) -> Path:
        return self.home / "data"

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CS_", "CODE_SOUS_"))}
        return {**kept, "XDG_CONFIG_HOME": str(self.home / "config"), "CODE_SOUS_DATA_DIR": str(self.data_dir)}

    def cs(self, *arguments: str, stdin: str = "", expect: int | None = 0, **environment: str) -> Done:
        """Run the command line; fails unless it exits with `expect` (None: whatever it does)."""
        done = subprocess.run(
            [BIN / "cs", *arguments],
            input=stdin,
            check=False,
            capture_output=True,
            text=True,
            timeout=90,
            cwd=self.home,
            env={**self.environment, **environment},
        )
        result = Done(done.returncode, done.stdout, done.stderr)
        assert expect is None or result.code == expect, f"{arguments}: {result}"
        assert "Traceback" not in result.err
        return result

    def token(self, tenant: str, *roles: str) -> str:
        """A token of the development issuer."""
        key = f"{tenant} {roles}"
        if key not in self.tokens:
            arguments = [part for role in roles for part in ("--role", role)]
            self.tokens[key] = self.cs("auth", "dev-token", "--tenant", tenant, *arguments).out.strip()
        return self.tokens[key]

    @property
    def admin(self) -> str:
        """The token of the tenant's admin."""
        return self.token(TENANT, "admin")

    def rest(self, method: str, path: str, *, token: str | None = None, **more: Any) -> httpx.Response:
        """Call a REST path of the tenant, or a full path that begins with /v1/."""
        full = path if path.startswith("/v1/") else f"/v1/tenants/{TENANT}{path}"
        bearer = self.admin if token is None else token
        headers = {"authorization": f"Bearer {bearer}", **more.pop("headers", {})}
        return httpx.request(method, self.url + full, headers=headers, timeout=40, trust_env=False, **more)

    def deploy(self, name: str, source: str, **config: Any) -> None:
        """Write a function and deploy it behind the alias `live`."""
        folder = self.home / name
        folder.mkdir(exist_ok=True)
        manifest = {"runtime": "cs-js", "config": {"invokeHttpRoles": ["admin"], **config}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "index.js").write_text(source)
        self.cs("fn", "deploy", "--path", str(folder), "--alias", "live")

    def deploy_bundle(self, name: str, source: str, manifest: dict[str, Any]) -> None:
        """Deploy with a whole manifest."""
        folder = self.home / name
        folder.mkdir(exist_ok=True)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "index.js").write_text(source)
        self.cs("fn", "deploy", "--path", str(folder), "--alias", "live")


@dataclass(frozen=True)
class Stubs:
    """gRPC stubs on the public port."""

    functions: Any
    versions: Any
    aliases: Any
    invocations: Any
    activations: Any
    web: Any
    metadata: tuple[tuple[str, str], ...]


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the mesh sends its spans."""
    with running_collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Mesh]:
    """A mesh on free ports; everyone is logged in as the admin of the tenant. Only callers' traces are recorded."""
    mesh = Mesh(tmp_path_factory.mktemp("mesh"))
    telemetry = {
        "CS_TELEMETRY__OTLP_ENDPOINT": collector.endpoint,
        "CS_TELEMETRY__SAMPLE_RATIO": "0.0",
        "CS_TELEMETRY__EXPORT_INTERVAL": "0.2",
    }
    up = mesh.cs("up", "--detach", "--with-cadence", "--port", "0", **telemetry).json
    mesh.url = up["api_url"]
    try:
        mesh.ports = {part["name"]: part["port"] for part in mesh.cs("status").json["parts"]}
        mesh.cs("auth", "login", "--tenant", TENANT, "--token", mesh.admin, "--api-url", mesh.url)
        yield mesh
    finally:
        mesh.cs("down")


@pytest.fixture(scope="session")
def greet(mesh: Mesh) -> str:
    """A function that greets, behind the alias `live`."""
    mesh.deploy("greet", GREET)
    return "greet"


@pytest.fixture
def stubs(mesh: Mesh) -> Iterator[Stubs]:
    """Stubs that call as the tenant's admin."""
    with grpc.insecure_channel(mesh.address) as channel:
        yield Stubs(
            function_service_pb2_grpc.FunctionServiceStub(channel),
            version_service_pb2_grpc.VersionServiceStub(channel),
            alias_service_pb2_grpc.AliasServiceStub(channel),
            invocation_service_pb2_grpc.InvocationServiceStub(channel),
            activation_service_pb2_grpc.ActivationServiceStub(channel),
            web_service_pb2_grpc.WebServiceStub(channel),
            (("authorization", f"Bearer {mesh.admin}"),),
        )
