"""Compare the contracts with earlier ones and fail on a change that breaks clients.

They are compared with those of the last release, which are in the tree (`proto/released.binpb`; `--release` makes them
today's), so that a clone without history is checked too; and with those of an earlier commit, where there is one:
`$BREAKING_AGAINST`, else where this branch left `origin/main`, else, on main itself, the commit before. Only
`gen/descriptors.binpb` is looked at: it needs no checkout and no network.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DESCRIPTORS = "gen/descriptors.binpb"
RELEASED = ROOT / "proto" / "released.binpb"


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in this repository; the caller looks at the exit code."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)


def base_commit() -> str | None:
    """Name the commit to compare with, or None where there is none yet."""
    if chosen := os.environ.get("BREAKING_AGAINST"):
        return chosen
    head = git("rev-parse", "HEAD").stdout.decode().strip()
    fork = git("merge-base", "HEAD", "origin/main").stdout.decode().strip()
    if fork and fork != head:
        return fork
    previous = git("rev-parse", "--verify", "--quiet", "HEAD~1").stdout.decode().strip()
    return previous or None


def breaks(now: Path, earlier: bytes) -> bool:
    """Whether the contracts `now` break clients of earlier ones; what breaks them is printed."""
    with tempfile.TemporaryDirectory() as scratch:
        against = Path(scratch) / "against.binpb"
        against.write_bytes(earlier)
        buf = Path(sys.executable).parent / "buf"
        return subprocess.run([buf, "breaking", now, "--against", against], cwd=ROOT, check=False).returncode != 0


def earlier_contracts() -> Iterator[tuple[str, bytes]]:
    """What to compare with, and what it is called. Raises FileNotFoundError without a released one."""
    yield "the last release", RELEASED.read_bytes()
    base = base_commit()
    if base is not None:
        earlier = git("show", f"{base}:{DESCRIPTORS}")
        if earlier.returncode == 0:
            yield base[:12], earlier.stdout


def main() -> int:
    """Exit 0 when nothing breaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", action="store_true", help="today's contracts are those of a release")
    if parser.parse_args().release:
        RELEASED.write_bytes((ROOT / DESCRIPTORS).read_bytes())
        return 0
    compared = []
    for name, earlier in earlier_contracts():
        if breaks(ROOT / DESCRIPTORS, earlier):
            print(f"breaking: clients of {name}")
            return 1
        compared.append(name)
    print(f"breaking: nothing, against {' and '.join(compared)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
