"""Compare the contracts with those of an earlier commit and fail on a change that breaks clients.

The earlier commit is `$BREAKING_AGAINST`, else where this branch left `origin/main`, else, on main itself, the commit
before. Its `gen/descriptors.binpb` is the other side: it needs no checkout and no network.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DESCRIPTORS = "gen/descriptors.binpb"


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


def main() -> int:
    """Exit 0 when nothing breaks or there is nothing to compare with."""
    base = base_commit()
    if base is None:
        print("breaking: no earlier commit to compare with")
        return 0
    earlier = git("show", f"{base}:{DESCRIPTORS}")
    if earlier.returncode != 0:
        print(f"breaking: {base[:12]} has no {DESCRIPTORS}")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        against = Path(scratch) / "against.binpb"
        against.write_bytes(earlier.stdout)
        buf = Path(sys.executable).parent / "buf"
        result = subprocess.run(
            [buf, "breaking", DESCRIPTORS, "--against", against],
            cwd=ROOT,
            check=False,
        )
    if result.returncode == 0:
        print(f"breaking: nothing, against {base[:12]}")
    return result.returncode


if __name__ == "__main__":
    raise SystemExit(main())
