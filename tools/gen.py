"""Regenerate gen/ from proto/, offline: Python, stubs, and the descriptor set that Envoy reads.

Run by `make gen` and, with `--check`, by `make check`: it then writes to a scratch folder and fails on any difference.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import google.api.http_pb2 as google_api
import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
THIRD_PARTY = ROOT / "third_party"
IMPORTS = ROOT / ".build" / "googleapis"
GOOGLE_PROTOS = (
    "google/api/annotations.proto",
    "google/api/http.proto",
    "google/api/httpbody.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
)


def copy_google_protos() -> None:
    """Put the google/api and google/rpc imports where protoc and buf find them."""
    site = Path(google_api.__file__).parents[2]
    for name in GOOGLE_PROTOS:
        target = IMPORTS / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(site / name, target)


def _protos() -> list[str]:
    return sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))


def _protoc() -> list[str]:
    include = [f"-I{PROTO}", f"-I{IMPORTS}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    return [sys.executable, "-m", "grpc_tools.protoc", *include]


def described() -> FileDescriptorSet:
    """The contracts and what they import, with the comments of their sources."""
    copy_google_protos()
    with tempfile.NamedTemporaryFile() as out:
        command = [*_protoc(), "--include_imports", "--include_source_info", f"--descriptor_set_out={out.name}"]
        subprocess.run([*command, *_protos()], check=True, cwd=PROTO)
        return FileDescriptorSet.FromString(out.read())


def generate(out: Path) -> None:
    """Write the generated tree of every proto into `out`."""
    protos, run_protoc = _protos(), _protoc()
    bin_dir = Path(sys.executable).parent
    subprocess.run(
        [
            *run_protoc,
            f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *protos,
        ],
        check=True,
        cwd=PROTO,
    )
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{THIRD_PARTY}",
            f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *(str(path.relative_to(THIRD_PARTY)) for path in sorted(THIRD_PARTY.rglob("*.proto"))),
        ],
        check=True,
        cwd=THIRD_PARTY,
    )
    for stub in (out / "codesous").rglob("*_pb2_grpc.py*"):
        # Files without a service would only add empty modules.
        proto = PROTO / str(stub.relative_to(out)).split("_pb2_grpc.py")[0]
        if "\nservice " not in proto.with_suffix(".proto").read_text(encoding="utf-8"):
            stub.unlink()
    subprocess.run(
        [
            *run_protoc,
            "--include_imports",
            f"--descriptor_set_out={out / 'descriptors.binpb'}",
            *protos,
            # Not imported by any contract: Envoy needs them to show error details as JSON.
            "google/rpc/error_details.proto",
            "google/rpc/status.proto",
        ],
        check=True,
        cwd=PROTO,
    )


def differences(left: Path, right: Path) -> list[str]:
    """Name every file that is not the same in both trees, bytecode aside."""

    def listing(top: Path) -> set[str]:
        return {
            str(path.relative_to(top)) for path in top.rglob("*") if path.is_file() and "__pycache__" not in path.parts
        }

    names = listing(left) | listing(right)
    return sorted(
        name
        for name in names
        if not ((left / name).is_file() and (right / name).is_file())
        or not filecmp.cmp(left / name, right / name, shallow=False)
    )


def main() -> int:
    """Generate, or check that what is committed is what would be generated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when gen/ is out of date")
    options = parser.parse_args()
    copy_google_protos()
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        stale = differences(fresh, ROOT / "gen")
        if options.check:
            for name in stale:
                print(f"out of date: gen/{name} (run `make gen`)")
            return 1 if stale else 0
        shutil.rmtree(ROOT / "gen", ignore_errors=True)
        shutil.copytree(fresh, ROOT / "gen")
        print(f"gen/: {len(stale)} files changed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
