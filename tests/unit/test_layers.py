"""The layers: gen <- cs_sandbox, cs_core <- services <- cs_cli, and nothing against them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ("cs_control", "cs_gateway", "cs_scheduler", "cs_poller", "cs_invoker")
OURS = ("cs_core", "cs_sandbox", *SERVICES, "cs_cli")
ALLOWED: dict[str, set[str]] = {
    "cs_core": {"cs_core"},
    "cs_sandbox": {"cs_sandbox"},
    **{service: {service, "cs_core", "cs_sandbox"} for service in SERVICES},
    # The command line starts services as processes; it imports none of them.
    "cs_cli": {"cs_cli", "cs_core", "cs_sandbox"},
}
# cs_core knows gRPC only where the edge of a process is.
GRPC_HOMES = ("cs_core/rpc/", "cs_core/iam/interceptors.py")


def modules(package: str) -> Iterator[Path]:
    yield from sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield node.module or ""
            else:
                yield ".".join((*package[: len(package) - node.level + 1], node.module or ""))


@pytest.mark.parametrize("package", OURS)
def test_a_package_imports_only_the_layers_below_it(package: str) -> None:
    found = list(modules(package))
    assert found
    against = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in found
        for name in imported(path)
        if name.split(".")[0] in OURS and name.split(".")[0] not in ALLOWED[package]
    ]
    assert against == []


def test_the_kernel_imports_grpc_only_at_the_edge() -> None:
    against = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("cs_core")
        if not path.relative_to(ROOT).as_posix().startswith(GRPC_HOMES)
        for name in imported(path)
        if name.split(".")[0].startswith("grpc") or name.startswith("cs_core.rpc")
    ]
    assert against == []


@pytest.mark.parametrize("package", ["cs_core", "cs_sandbox"])
def test_below_the_services_only_messages_of_the_contracts_are_used_not_their_services(package: str) -> None:
    against = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        if not path.relative_to(ROOT).as_posix().startswith("cs_core/rpc/")
        for name in imported(path)
        if name.endswith("_pb2_grpc")
    ]
    assert against == []


@pytest.mark.parametrize("service", SERVICES)
def test_only_main_wires(service: str) -> None:
    """What opens connections and servers stands in `__main__`; everything else takes what it needs."""
    opened = {"KvClient", "RpcServer"}
    against = [
        f"{path.relative_to(ROOT)}:{node.lineno} opens {node.func.id}"
        for path in modules(service)
        if path.name != "__main__.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in opened
    ]
    assert against == []


@pytest.mark.parametrize("service", [service for service in SERVICES if service != "cs_control"])
def test_only_the_control_plane_writes_the_ledger(service: str) -> None:
    against = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(service)
        for name in imported(path)
        if name.startswith("cs_core.audit")
    ]
    assert against == []
