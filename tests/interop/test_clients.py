"""The example clients of docs/howto/generate-clients.md: generated, built, and run against the mesh.

They fetch packages from their languages' registries, so they run only when `CODE_SOUS_INTEROP=1`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import BIN, GREET, TENANT, Mesh

ROOT = Path(__file__).parents[2]
EVENT = '{"name":"Ada"}'
pytestmark = [
    pytest.mark.skipif(
        os.environ.get("CODE_SOUS_INTEROP") != "1", reason="CODE_SOUS_INTEROP is not 1: clients fetch packages"
    ),
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("interop"),
]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A mesh with a function that greets."""
    made = Mesh(tmp_path_factory.mktemp("interop"))
    made.url = made.cs("up", "--detach", "--port", "0").json["api_url"]
    try:
        made.cs("auth", "login", "--tenant", TENANT, "--token", made.admin, "--api-url", made.url)
        made.deploy("greet", GREET)
        yield made
    finally:
        made.cs("down")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a client is made from: nothing is generated into the source tree."""
    copy = tmp_path_factory.mktemp("clients")
    _run(ROOT, f"{shlex.quote(sys.executable)} tools/gen.py --check")
    for name in ("proto", "examples", "buf.yaml", ".build/googleapis"):
        source = ROOT / name
        ignore = shutil.ignore_patterns("gen", "node_modules", "target", "build")
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignore)
        else:
            shutil.copy(source, copy / name)
    return copy


def _need(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")


def _run(folder: Path, command: str, mesh: Mesh | None = None, *, fails: bool = False, path: str = "") -> str:
    """Run a command line of the how-to; returns both of its outputs."""
    environment = {**os.environ, "PATH": f"{BIN}:{path}:{os.environ['PATH']}"}
    if mesh is not None:
        environment |= {"CS_URL": mesh.url, "CS_URL_HOST": mesh.address, "CS_CLIENT_TOKEN": mesh.admin}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    output = done.stdout + done.stderr
    assert (done.returncode != 0) is fails, output
    return output


def _check(folder: Path, mesh: Mesh, call: str, *, apart: bool = False, path: str = "") -> None:
    """The client prints what the function answered, and the reason of a refusal."""
    words = ("default", "greet", "live") if apart else ("default/greet@live",)
    gone = ("default", "nothing", "live") if apart else ("default/nothing@live",)
    good = call.format(shlex.join([TENANT, *words, EVENT]))
    bad = call.format(shlex.join([TENANT, *gone, EVENT]))
    answer = _run(folder, good, mesh, path=path)
    assert "SUCCESS Hello, Ada!" in answer
    assert "CS_NOT_FOUND_FUNCTION no such function" in _run(folder, bad, mesh, fails=True, path=path)


def test_go(mesh: Mesh, tree: Path) -> None:
    _need("go")
    path = _run(tree, "go env GOPATH").strip() + "/bin"
    for plugin in ("google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc"):
        _run(tree, f"go install {plugin}@latest")
    _run(tree, "buf generate --template examples/clients/go/buf.gen.yaml", path=path)
    _check(tree / "examples/clients/go", mesh, "go run . {}")


def test_typescript(mesh: Mesh, tree: Path) -> None:
    _need("node", "npm")
    folder = tree / "examples/clients/typescript"
    _run(folder, "npm install")
    _run(tree, "buf generate --template examples/clients/typescript/buf.gen.yaml")
    _run(folder, "npm run check")
    _check(folder, mesh, "npm start -- {}")


def test_java(mesh: Mesh, tree: Path) -> None:
    _need("java", "mvn")
    folder = tree / "examples/clients/java"
    _run(folder, "mvn -q compile")
    for name, fails, words in (("greet", False, "SUCCESS Hello, Ada!"), ("nothing", True, "CS_NOT_FOUND_FUNCTION")):
        arguments = shlex.quote(f"{TENANT} default/{name}@live '{EVENT}'")
        assert words in _run(folder, f"mvn -q compile exec:java -Dexec.args={arguments}", mesh, fails=fails)


def test_cpp(mesh: Mesh, tree: Path) -> None:
    _need("g++", "cmake", "protoc", "grpc_cpp_plugin")
    folder = tree / "examples/clients/cpp"
    _run(folder, "cmake -S . -B build && make -C build")
    _check(folder, mesh, "./build/client {}", apart=True)
