"""The driver of the fuzz tests: mutates inputs, runs a target on each, and reports what it must not do.

A target is a parser of ours. What it does not like, it refuses with an error of its own. Anything else that it raises
is a finding, and so is an input that costs a second of processor time, and memory that grows with the inputs.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.scale import FULL

SEED: Final = int(os.environ.get("CODE_SOUS_TEST_SEED") or random.SystemRandom().randrange(2**32))
"""Printed with every report; the same seed makes the same inputs."""
SLOWEST_SECONDS: Final = 1.0
GROWTH_BYTES: Final = 48 * 1024 * 1024
MOST_FINDINGS: Final = 10
_MUTATIONS: Final = 6
_WARM_UP: Final = 0.2
_NUMBERS: Final = (0, 1, -1, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -(2**63))
_TEXTS: Final = (
    *(
        b"\x00",
        b"\n",
        b"\r\n",
        b"\t",
        b"'",
        b'"',
        b"\\",
        b"{",
        b"}",
        b"{t_other0}",
        b":",
        b"/",
        b"//",
        b"../",
        b"%2e%2e%2f",
    ),
    *(b"%00", b"%", b"*", b"..", b"-1", b"1e999", b"NaN", b"null", b"[[[[[[[[", b"{}", b"\xff\xfe", b"\xed\xa0\x80"),
    *("\u202e".encode(), "\u0130".encode(), "\uff0f".encode(), "\u2028".encode(), "\U0001f600".encode(), b"A" * 300),
)


@dataclass(frozen=True, slots=True)
class Target:
    """A parser: what it is given at best, what it may raise, and words that its inputs are made of."""

    name: str
    seeds: Sequence[bytes]
    parse: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    words: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """An input on which a target did what it must not."""

    data: bytes
    what: str

    def __str__(self) -> str:
        shown = self.data if len(self.data) <= 400 else self.data[:400] + b"..."
        return f"{self.what}\n  on {len(self.data)} bytes: {shown!r}"


@dataclass(slots=True)
class Campaign:
    """What came of many inputs."""

    name: str
    inputs: int = 0
    refused: int = 0
    growth: int = 0
    findings: list[Finding] = field(default_factory=list)
    passed_in: set[str] = field(default_factory=set)
    """The places that let at least one call in."""
    _places: set[str] = field(default_factory=set)

    def add(self, data: bytes, what: str, place: str) -> None:
        """Keep a finding, one for each place in the code."""
        if place not in self._places and len(self.findings) < MOST_FINDINGS:
            self._places.add(place)
            self.findings.append(Finding(data, what))

    def check(self, *, some_pass: bool = True) -> None:
        """Print the figures; fail on a finding, on growth, and when nothing or everything was refused."""
        print(
            f"\nfuzz {self.name}: seed {SEED}, inputs {self.inputs}, refused {self.refused}, "
            f"findings {len(self.findings)}, growth {self.growth / 2**20:.1f} MiB",
            flush=True,
        )
        told = "\n".join(str(finding) for finding in self.findings)
        assert not self.findings, f"seed {SEED}: {told}"
        assert self.growth < GROWTH_BYTES, f"seed {SEED}: memory grew by {self.growth} bytes in {self.inputs} inputs"
        assert self.refused > 0, "nothing was refused: the inputs are too tame"
        assert not some_pass or self.refused < self.inputs, "everything was refused: the inputs never get far"


class Mutator:
    """Makes inputs out of seeds."""

    def __init__(self, name: str, seeds: Sequence[bytes], words: Sequence[bytes] = ()) -> None:
        self.random = random.Random(f"{SEED}/{name}")
        self._seeds = list(seeds)
        self._words = (*_TEXTS, *words)

    def inputs(self, count: int) -> Iterator[bytes]:
        """The seeds as they are, and then what becomes of them."""
        yield from self._seeds[:count]
        for _ in range(count - len(self._seeds)):
            yield self.mutate(self.random.choice(self._seeds))

    def mutate(self, seed: bytes) -> bytes:
        """One to six changes."""
        data = bytearray(seed)
        for _ in range(self.random.randint(1, _MUTATIONS)):
            self._change(data)
        return bytes(data)

    def _change(self, data: bytearray) -> None:
        dice = self.random
        at = dice.randint(0, len(data))
        end = min(len(data), at + dice.choice((1, 1, 2, 4, 8, 64)))
        match dice.randrange(9):
            case 0 if at < len(data):
                data[at] ^= 1 << dice.randrange(8)
            case 1 if at < len(data):
                data[at] = dice.randrange(256)
            case 2:
                data[at:at] = dice.randbytes(dice.choice((1, 2, 8)))
            case 3:
                del data[at:end]
            case 4:
                data[at:at] = data[at:end] * dice.choice((1, 2, 50))
            case 5:
                other = dice.choice(self._seeds)
                begin = dice.randint(0, len(other))
                data[at:end] = other[begin : begin + dice.choice((1, 8, 64, 512))]
            case 6:
                data[at:end] = dice.choice(self._words)
            case 7:
                number = dice.choice(_NUMBERS)
                width, order = dice.choice((1, 2, 4, 8)), dice.choice(("little", "big"))
                data[at:end] = (number % 256**width).to_bytes(width, order)  # type: ignore[arg-type]
            case _:
                del data[at:]


def fuzz(target: Target, count: int) -> Campaign:
    """Run a target on `count` inputs."""
    campaign = Campaign(target.name)
    watch = Memory(count)
    for data in Mutator(target.name, target.seeds, target.words).inputs(count):
        watch.step()
        campaign.inputs += 1
        began = time.process_time()
        try:
            target.parse(data)
        except target.refusals:
            campaign.refused += 1
        except Exception as error:
            campaign.add(data, describe(error), place_of(error))
        if time.process_time() - began > SLOWEST_SECONDS:
            campaign.add(data, f"took {time.process_time() - began:.1f} s of processor time", "slow")
    campaign.growth = watch.growth()
    return campaign


async def fuzz_calls(
    name: str,
    inputs: Iterator[tuple[str, bytes]],
    count: int,
    call: Callable[[str, bytes], Awaitable[tuple[bool, str]]],
) -> Campaign:
    """Make a call of each place and input; it tells whether it was refused, and what was wrong, empty for nothing."""
    campaign = Campaign(name)
    watch = Memory(count)
    for place, data in inputs:
        watch.step()
        campaign.inputs += 1
        refused, wrong = await call(place, data)
        campaign.refused += refused
        campaign.passed_in |= set() if refused else {place}
        if wrong:
            campaign.add(data, f"{place}: {wrong}", f"{place}: {wrong}")
    campaign.growth = watch.growth()
    return campaign


class Memory:
    """How much the process grew once it was warm."""

    def __init__(self, count: int) -> None:
        self._left = max(1, int(count * _WARM_UP))
        self._warm = 0

    def step(self) -> None:
        """One more input."""
        self._left -= 1
        if self._left == 0:
            self._warm = resident_bytes()

    def growth(self) -> int:
        """Bytes since the warm-up ended."""
        return resident_bytes() - self._warm


def resident_bytes() -> int:
    """Memory of this process that nothing can give back any more."""
    gc.collect()
    # What is freed and kept by the allocator is no growth.
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def describe(error: BaseException) -> str:
    """The error, and where it came from."""
    return f"{type(error).__name__}: {str(error)[:200]} at {place_of(error)}"


def place_of(error: BaseException) -> str:
    """The last line of our own code that the error went through, and the one that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/cs_" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} ({Path(frames[-1].filename).name}:{frames[-1].lineno})"


def share(*, short: int, full: int) -> int:
    """How many inputs; all targets together make a million in the full form."""
    return full if FULL else short
