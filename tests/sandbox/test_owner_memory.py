"""The process that owns the pool holds no more after ten thousand hostile runs than after the first ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWNER = ROOT / "tests" / "support" / "hostile_owner.py"
FULL = os.environ.get("CODE_SOUS_TEST_SCALE") == "full"
RUNS = 10_000 if FULL else 240

pytestmark = pytest.mark.timeout(3600 if FULL else 180)


def growth(runs, *options):
    """What the owner held at the end beyond what it held after a fifth of its runs: the least against the most."""
    command = [sys.executable, str(OWNER), str(runs), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3500, check=False)
    assert ran.returncode == 0, ran.stderr
    samples = [json.loads(line) for line in ran.stdout.splitlines()]
    early, late = samples[len(samples) // 10 : len(samples) // 5], samples[-len(samples) // 10 :]
    grown = {name: min(s[name] for s in late) - max(s[name] for s in early) for name in samples[0]}
    print(json.dumps({"early": early[-1], "late": late[-1], "grown": grown}))
    return grown


def test_the_owner_of_the_pool_does_not_grow():
    grown = growth(RUNS)
    assert grown["runs"] > RUNS / 2
    assert grown["objects"] < grown["runs"]
    assert grown["resident"] < 16 << 20
    assert grown["descriptors"] <= 4
    assert grown["tasks"] <= 2


def test_an_owner_that_keeps_what_it_was_given_is_seen_to_grow():
    # The control: the same runs, by an owner that holds on to their outcomes.
    grown = growth(240, "--keep")
    assert grown["objects"] > 4 * grown["runs"]
