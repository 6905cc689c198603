"""The Helm chart: linted and rendered by helm, its objects valid by Kubernetes' own schemas.

`helm` is taken from the path, or from where `go install` puts it. Where it is not, it is installed and the schemas are
fetched only when `CODE_SOUS_INTEROP=1`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

from cs_core.config import load_settings

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "deploy" / "helm" / "code-sous"
HELM: Final = "helm.sh/helm/v3/cmd/helm@v3.17.3"
REQUIRED: Final = {
    "store.secret": "store",
    "identity.issuer": "https://i.example",
    "identity.jwksUrl": "https://i.example/k",
}
ALL: Final = {**REQUIRED, "cadence.target": "cadence:7833", "autoscaling.enabled": "true"}
# `go install` leaves the version of Kubernetes out that helm was built for.
KUBERNETES: Final = "1.31"

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("interop-helm")]


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = shutil.which("helm") or shutil.which("helm", path=str(Path.home() / "go" / "bin"))
    if found is not None:
        return found
    if os.environ.get("CODE_SOUS_INTEROP") != "1":
        pytest.skip("helm is not installed, and CODE_SOUS_INTEROP is not 1: it would be fetched")
    if shutil.which("go") is None:
        pytest.skip("neither helm nor go is installed")
    binaries = tmp_path_factory.mktemp("go")
    done = subprocess.run(
        ["go", "install", HELM],
        env={**os.environ, "GOBIN": str(binaries)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"go install {HELM}: {' '.join(done.stderr.split())[-300:]}")
    return str(binaries / "helm")


def run(helm: str, command: str, values: dict[str, str]) -> subprocess.CompletedProcess[str]:
    told = [f"--set={key}={value}" for key, value in values.items()]
    place = ["release", str(CHART), f"--kube-version={KUBERNETES}.0"] if command == "template" else [str(CHART)]
    return subprocess.run([helm, command, *place, *told], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def objects(helm: str) -> list[Any]:
    done = run(helm, "template", ALL)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each is not None]


def of_kind(objects: list[Any], kind: str) -> dict[str, Any]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def test_helm_finds_no_fault(helm: str) -> None:
    done = run(helm, "lint", ALL)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("left_out", REQUIRED)
def test_what_must_be_said_is_asked_for(helm: str, left_out: str) -> None:
    done = run(helm, "template", {key: value for key, value in REQUIRED.items() if key != left_out})
    assert done.returncode != 0
    assert f"{left_out} is not set" in done.stderr


def test_every_pod_is_confined_and_can_be_asked_for_its_health(objects: list[Any]) -> None:
    deployments = of_kind(objects, "Deployment")
    assert set(deployments) == {
        f"release-{name}" for name in ("control", "gateway", "scheduler", "poller", "invoker", "proxy")
    }
    for deployment in deployments.values():
        pod = deployment["spec"]["template"]["spec"]
        # The addresses of Services would be variables that begin with CS_, which no process takes.
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "grpc" in container["readinessProbe"]
        assert container["resources"]["limits"]["memory"]


def test_the_settings_of_every_process_are_known(objects: list[Any]) -> None:
    shared = of_kind(objects, "ConfigMap")["release-settings"]["data"]
    assert not [name for name in shared if "URL" in name and "JWKS" not in name], "an address may hold a password"
    for name, deployment in of_kind(objects, "Deployment").items():
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        if name == "release-proxy":
            continue
        own = {each["name"]: each.get("value", "redis://store") for each in container["env"]}
        with pytest.MonkeyPatch.context() as patch:
            for key, value in {**shared, **own}.items():
                patch.setenv(key, value)
            settings = load_settings(None)
        section = getattr(settings, name.removeprefix("release-"))
        assert [port["containerPort"] for port in container["ports"]] == [section.port, section.metrics_port]
        store = next(each for each in container["env"] if each["name"] == "CS_STORE__URL")
        assert store["valueFrom"]["secretKeyRef"] == {"name": "store", "key": "url"}


def test_only_the_proxy_is_reached_by_everyone(objects: list[Any]) -> None:
    policies = of_kind(objects, "NetworkPolicy")
    assert set(policies) == set(of_kind(objects, "Deployment"))
    for name, policy in policies.items():
        open_to_all = [rule for rule in policy["spec"]["ingress"] if "from" not in rule]
        assert bool(open_to_all) == (name == "release-proxy")
    assert len(policies["release-invoker"]["spec"]["ingress"]) == 1


def test_what_is_disrupted_and_what_is_scaled(objects: list[Any]) -> None:
    assert set(of_kind(objects, "PodDisruptionBudget")) == set(of_kind(objects, "Deployment"))
    (scaled,) = of_kind(objects, "ScaledObject").values()
    assert scaled["spec"]["scaleTargetRef"]["name"] == "release-invoker"
    assert scaled["spec"]["triggers"][0]["metadata"]["scalerAddress"] == "release-control.default:7001"
    assert "replicas" not in of_kind(objects, "Deployment")["release-invoker"]["spec"]


def test_kubernetes_takes_every_object(objects: list[Any], tmp_path: Path) -> None:
    if os.environ.get("CODE_SOUS_INTEROP") != "1":
        pytest.skip("CODE_SOUS_INTEROP is not 1: Kubernetes' schemas would be fetched")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--target",
        str(tmp_path),
        "kubernetes-validate",
        "pyyaml",
    ]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"kubernetes-validate cannot be installed: {done.stderr[-300:]}")
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(objects))
    check = (
        "import kubernetes_validate, yaml\n"
        "for each in yaml.safe_load_all(open('objects.yaml')):\n"
        f"    'keda' in each['apiVersion'] or kubernetes_validate.validate(each, '{KUBERNETES}', strict=True)\n"
    )
    command = [sys.executable, "-c", check]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
