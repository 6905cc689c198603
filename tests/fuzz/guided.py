"""The same targets under coverage guidance, for whoever has hours: `python -m tests.fuzz.guided TARGET [RUNS]`.

Needs `atheris` (https://pypi.org/project/atheris), which is no dependency of the project. It ends with the error and
the input of the first finding.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["cs_core", "cs_control", "cs_gateway", "cs_sandbox", "tarfile", "cronsim"]):
    from tests.fuzz.targets import TARGETS
    from tests.support.fuzzing import Target

LONGEST_INPUT = 65_536


def run(target: Target, runs: int) -> None:
    """Fuzz one target; ends the process."""

    def one_input(data: bytes) -> None:
        with suppress(*target.refusals):
            target.parse(data)

    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(target.seeds):
            (Path(folder) / str(number)).write_bytes(seed[:LONGEST_INPUT])
        options: list[Any] = [sys.argv[0], f"-runs={runs}", f"-max_len={LONGEST_INPUT}", "-rss_limit_mb=1024", folder]
        atheris.Setup(options, one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    known = {target.name.replace(" ", "-"): target for target in TARGETS}
    if len(sys.argv) < 2 or sys.argv[1] not in known:
        sys.exit(f"usage: python -m tests.fuzz.guided TARGET [RUNS]; targets: {', '.join(known)}")
    run(known[sys.argv[1]], int(sys.argv[2]) if len(sys.argv) > 2 else 100_000)
