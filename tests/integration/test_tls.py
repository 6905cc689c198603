"""TLS: plain text is refused where TLS is on, and so is whoever shows no certificate of the mesh's authority."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from codesous.admin.v1 import admin_service_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cs_cli.admin import Admin
from cs_cli.failure import CommandError
from cs_cli.stack.envoy import TlsFiles
from cs_core.config import RpcSettings, SettingsError, load_settings
from cs_core.iam.dev_certificates import make_certificates
from cs_core.rpc.tls import server_credentials
from tests.support.edge import HOST, Edge, running_edge
from tests.support.rpc import serving

PATH = "/v1/tenants/t_alpha0/namespaces/default/functions"


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make_certificates(folder, ["localhost", "127.0.0.1"], 1)
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of another authority."""
    folder = tmp_path_factory.mktemp("foreign")
    make_certificates(folder, ["localhost", "127.0.0.1"], 1)
    return folder


def rpc_settings(certs: Path) -> dict[str, str]:
    return {
        "tls_certificate": str(certs / "service.pem"),
        "tls_key": str(certs / "service.key.pem"),
        "tls_client_ca": str(certs / "ca.pem"),
    }


def credentials(authority: Path, shown: Path | None) -> grpc.ChannelCredentials:
    pair = (None, None)
    if shown is not None:
        pair = ((shown / "client.key.pem").read_bytes(), (shown / "client.pem").read_bytes())  # type: ignore[assignment]
    return grpc.ssl_channel_credentials((authority / "ca.pem").read_bytes(), *pair)


async def health(channel: grpc.aio.Channel) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    async with channel:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
    return int(answer.status)


async def test_a_service_speaks_only_to_who_shows_a_certificate_of_its_authority(
    certs: Path, foreign: Path, tmp_path: Path
) -> None:
    settings = {"rpc": {**rpc_settings(certs), "readiness_interval": 0.05}}
    async with serving(tmp_path, [], settings=settings) as served:
        address = f"127.0.0.1:{served.server.port}"
        good = grpc.aio.secure_channel(address, credentials(certs, certs))
        assert await health(good) == health_pb2.HealthCheckResponse.SERVING
        for channel in (
            grpc.aio.insecure_channel(address),
            grpc.aio.secure_channel(address, credentials(certs, None)),
            grpc.aio.secure_channel(address, credentials(certs, foreign)),
            grpc.aio.secure_channel(address, credentials(foreign, certs)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health(channel)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_command_line_administers_a_process_that_wants_a_certificate(
    certs: Path, foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(address: str) -> str:
        with Admin(address) as admin:
            return str(admin.call(admin.service.GetInfo, admin_service_pb2.GetInfoRequest()).info.service)

    async with serving(tmp_path, [], settings={"rpc": rpc_settings(certs)}) as served:
        address = f"127.0.0.1:{served.server.port}"
        monkeypatch.setenv("CODE_SOUS_ADMIN_CERTS", str(certs))
        assert await asyncio.to_thread(ask, address) == "cs-test"
        for folder in (str(foreign), str(tmp_path / "none"), ""):
            monkeypatch.setenv("CODE_SOUS_ADMIN_CERTS", folder)
            with pytest.raises(CommandError):
                await asyncio.to_thread(ask, address)


@pytest.fixture
async def edge(certs: Path) -> AsyncIterator[Edge]:
    async with running_edge(
        server_credentials(RpcSettings(**rpc_settings(certs))),
        public_tls=TlsFiles(certs / "public.pem", certs / "public.key.pem"),
        service_tls=TlsFiles(certs / "client.pem", certs / "client.key.pem", certs / "ca.pem"),
    ) as edge:
        yield edge


async def test_the_public_port_and_the_way_behind_it_are_encrypted(edge: Edge, certs: Path, foreign: Path) -> None:
    url = f"https://{HOST}:{edge.port}{PATH}"
    async with httpx.AsyncClient(verify=_trusting(certs), trust_env=False) as client:
        answer = await client.get(url)
    assert (answer.status_code, answer.json()) == (200, {"functions": [], "next_page_token": ""})
    root = (certs / "ca.pem").read_bytes()
    channel = grpc.aio.secure_channel(f"{HOST}:{edge.port}", grpc.ssl_channel_credentials(root))
    assert await health(channel) == health_pb2.HealthCheckResponse.SERVING
    # Nobody who looks for another authority is served, and nobody in plain text.
    async with httpx.AsyncClient(verify=_trusting(foreign), trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.HTTPError):
            await client.get(url.replace("https", "http"))


async def test_the_proxy_passes_nothing_to_a_service_of_another_authority(certs: Path, foreign: Path) -> None:
    async with running_edge(
        server_credentials(RpcSettings(**{**rpc_settings(foreign), "tls_client_ca": str(certs / "ca.pem")})),
        service_tls=TlsFiles(certs / "client.pem", certs / "client.key.pem", certs / "ca.pem"),
    ) as edge:
        answer = await edge.http("GET", PATH)
        assert (answer.status, answer.reason()) == (503, "CS_SERVICE_UNAVAILABLE")
        assert edge.nothing_seen()


def _trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / "ca.pem"))


def test_half_of_the_settings_or_a_missing_file_is_refused(certs: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="set together"):
        load_settings(None, {"CS_RPC__TLS_CERTIFICATE": str(certs / "service.pem")})
    with pytest.raises(SettingsError, match=r"rpc\.tls_"):
        server_credentials(RpcSettings(**{**rpc_settings(certs), "tls_key": str(tmp_path / "none")}))
    assert server_credentials(RpcSettings()) is None


async def test_a_process_whose_certificate_is_not_there_says_so_and_ends(certs: Path, tmp_path: Path) -> None:
    lines = [f"{name} = {json.dumps(path)}" for name, path in rpc_settings(certs).items()]
    config = tmp_path / "scheduler.toml"
    config.write_text("[rpc]\n" + "\n".join(lines).replace("service.pem", "none.pem"))
    command = [sys.executable, "-m", "cs_scheduler", "--config", str(config)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=40)
    assert done.returncode == 1
    assert "none.pem" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


async def test_the_command_makes_them_and_their_keys_are_their_owners(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "cs"), "certs", "dev", "--out", str(tmp_path / "certs")]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["names"] == ["localhost", "127.0.0.1", "::1"]
    keys = sorted((tmp_path / "certs").glob("*.key.pem"))
    assert [key.name for key in keys] == [f"{part}.key.pem" for part in ("ca", "client", "public", "service")]
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
