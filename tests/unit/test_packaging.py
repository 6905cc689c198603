"""The image and the compose file: what they name is there, what they set is known, and nothing runs as root."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

from cs_core.config import load_settings

ROOT: Final = Path(__file__).resolve().parents[2]
DEPLOY: Final = ROOT / "deploy"
BIN: Final = Path(sys.executable).parent
PROCESSES: Final = {
    "control": "cs-control",
    "gateway": "cs-http-gateway",
    "scheduler": "cs-scheduler",
    "poller": "cs-cadence-poller",
    "invoker": "cs-invoker-pool",
}


def pins(lock: Path) -> dict[str, str]:
    """Versions by name; raises AssertionError for a pin without a hash."""
    found = {}
    for entry in re.split(r"\n(?=[a-z0-9])", lock.read_text()):
        match = re.match(r"([a-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", entry)
        if match:
            assert "--hash=sha256:" in entry, entry
            found[match[1]] = match[2]
    return found


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())


def test_the_image_installs_what_the_project_needs_at_the_versions_that_were_tested() -> None:
    tested, shipped = pins(ROOT / "requirements.lock"), pins(DEPLOY / "docker" / "requirements.lock")
    assert {name: tested.get(name) for name in shipped} == shipped
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {re.split(r"[\[<>=~!]", each)[0] for each in project["project"]["dependencies"]}
    assert needed <= set(shipped)
    assert not {"pytest", "ruff", "mypy", "hypothesis", "schemathesis", "grpcio-tools"} & set(shipped)


def test_what_the_image_is_made_of_is_there_and_it_does_not_run_as_root() -> None:
    lines = (DEPLOY / "docker" / "Dockerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), line
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users[-1:] == ["10001:10001"]
    assert all(":" in line.split()[1] for line in lines if line.startswith("FROM "))
    assert "libseccomp2" in "\n".join(lines)


def test_what_the_wheel_takes_along_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for source in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]:
        assert (ROOT / source).exists()


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_of_the_compose_file_is_confined_and_its_settings_are_known(
    name: str, compose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = compose["services"][name]
    assert service["command"] == [PROCESSES[name]]
    assert (service["user"], service["read_only"], service["cap_drop"]) == ("10001:10001", True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "ports" not in service
    for key, value in service["environment"].items():
        assert key.startswith("CS_")
        monkeypatch.setenv(key, re.sub(r"\$\{[^}]*\}", "", value) or "https://issuer.example/keys")
    settings = load_settings(None)
    assert settings.store.url == "redis://store:6666/0"
    assert getattr(settings, name).port
    assert getattr(settings, name).metrics_port


def test_only_the_proxy_and_grafana_are_reached_from_outside(compose: Any) -> None:
    assert {name for name, service in compose["services"].items() if "ports" in service} == {"proxy", "grafana"}
    assert compose["networks"]["inside"]["internal"] is True
    outside = {name for name, service in compose["services"].items() if "outside" in service["networks"]}
    assert outside == {"proxy", "grafana", "invoker"}
    assert all(re.search(r":v?\d", s["image"]) for s in compose["services"].values() if "code-sous" not in s["image"])


def test_files_that_are_mounted_are_there(compose: Any) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / "compose" / source).exists(), volume
            else:
                assert source in compose["volumes"]


def test_prometheus_finds_every_process_under_the_name_that_the_alerts_know(compose: Any) -> None:
    told = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())["scrape_configs"]
    known = yaml.safe_load((DEPLOY / "observability" / "prometheus.yml").read_text())["scrape_configs"]
    assert [job["job_name"] for job in told] == [job["job_name"] for job in known]
    for job in told:
        host, _, port = job["static_configs"][0]["targets"][0].partition(":")
        assert PROCESSES[host] == job["job_name"]
        assert compose["services"][host]["environment"][f"CS_{host.upper()}__METRICS_PORT"] == port


def test_the_proxy_is_told_where_the_services_listen(compose: Any) -> None:
    command = compose["services"]["proxy"]["command"][-1]
    for name, place in re.findall(r"--(control|gateway) (\S+)", command):
        assert place == f"{name}:{compose['services'][name]['environment'][f'CS_{name.upper()}__PORT']}"


def test_envoy_takes_what_cs_proxy_config_writes(tmp_path: Path) -> None:
    out = tmp_path / "envoy.yaml"
    told = ["--control", "127.0.0.1:7001", "--gateway", "[::1]:7002", "--out", str(out)]
    subprocess.run([BIN / "cs", "proxy", "config", *told], check=True)
    subprocess.run([BIN / "envoy", "--mode", "validate", "-c", out, "-l", "error"], check=True, capture_output=True)


@pytest.mark.parametrize("place", ["control", ":7001", "control:", "control:0", "control:65536", "control:x"])
def test_an_address_that_is_none_is_refused(place: str, tmp_path: Path) -> None:
    told = ["--control", place, "--gateway", "gateway:7002", "--out", str(tmp_path / "envoy.yaml")]
    done = subprocess.run([BIN / "cs", "proxy", "config", *told], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not host:port" in done.stderr
    assert not (tmp_path / "envoy.yaml").exists()
