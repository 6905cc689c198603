"""The lines of the file ledger: each carries the hash of the one before it.

A line is `{"hash":"<64 hex>","entry":<JSON>}` and a newline. The hash is the sha256 of the entry's bytes as they stand
there, so a line can be checked without any rule of how JSON is written. An entry is an object of `sequence` (from 1, by
one), `previous` (the hash of the line before, 64 zeros for the first), `tenant`, `position` in the tenant's mutation
log, `mutation` (the proto3 JSON of a LifecycleMutation), and `raw` (its base64) where that JSON does not hold all of
it: a mutation of a later release.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from codesous.control.v1.mutation_pb2 import LifecycleMutation
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from cs_core.audit.contract import NOTHING, LedgerEntry

ZERO: Final = "0" * 64
SUFFIX: Final = ".jsonl"
_LINE: Final = re.compile(rb'\{"hash":"([0-9a-f]{64})","entry":(\{.*\})\}', re.DOTALL)
_HEAD: Final = re.compile(r"([1-9][0-9]{0,18}):([0-9a-f]{64})", re.ASCII)


class BrokenLineError(Exception):
    """A line is not what it was when it was written; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Link:
    """A line as it was read: where it stands in the chain, and whose it is."""

    sequence: int
    previous: str
    hash: str
    mutation_id: str

    @property
    def head(self) -> str:
        """The head of a ledger that ends here."""
        return f"{self.sequence}:{self.hash}"


def parse_head(head: str) -> tuple[int, str]:
    """The sequence and the hash of a head. Raises ValueError when the text is none."""
    found = _HEAD.fullmatch(head)
    if found is None:
        raise ValueError(f"not the head of a file ledger: {head!r}")
    return int(found[1]), found[2]


def encode(entry: LedgerEntry, sequence: int, previous: str) -> tuple[bytes, Link]:
    """Write a line, its newline included."""
    mutation = entry.mutation
    fields: dict[str, Any] = {
        "sequence": sequence,
        "previous": previous,
        "tenant": mutation.tenant,
        "position": entry.position,
        "mutation": MessageToDict(mutation, preserving_proto_field_name=True),
    }
    # What this release does not know is in the message, and not in its JSON.
    if ParseDict(fields["mutation"], LifecycleMutation()).SerializeToString(
        deterministic=True
    ) != mutation.SerializeToString(deterministic=True):
        fields["raw"] = base64.b64encode(mutation.SerializeToString()).decode()
    # Newlines within a line are escaped by JSON.
    body = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    digest = hashlib.sha256(body).hexdigest()
    line = b'{"hash":"%s","entry":%s}\n' % (digest.encode(), body)
    return line, Link(sequence, previous, digest, mutation.mutation_id)


def decode(line: bytes) -> Link:
    """Read a line without its newline. Raises BrokenLineError."""
    link, _ = _read(line)
    return link


def decode_entry(line: bytes) -> LedgerEntry:
    """Read the mutation of a line without its newline. Raises BrokenLineError."""
    _, fields = _read(line)
    try:
        if "raw" in fields:
            mutation = LifecycleMutation.FromString(base64.b64decode(fields["raw"]))
        else:
            mutation = ParseDict(fields["mutation"], LifecycleMutation())
    except (ValueError, ParseError) as error:
        raise BrokenLineError("its mutation cannot be read") from error
    return LedgerEntry(fields["position"], mutation)


def _read(line: bytes) -> tuple[Link, dict[str, Any]]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise BrokenLineError("it does not have the form of a line")
    stated, body = found[1].decode(), found[2]
    if hashlib.sha256(body).hexdigest() != stated:
        raise BrokenLineError("its bytes do not have the hash that it states")
    try:
        fields = json.loads(body)
        link = Link(int(fields["sequence"]), fields["previous"], stated, fields["mutation"].get("mutation_id", ""))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenLineError("it is not an entry") from error
    return link, fields


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of the ledger; its name tells the sequence of its first line."""

    path: Path
    first: int

    @classmethod
    def starting_at(cls, folder: Path, sequence: int) -> Segment:
        """The file that begins with a sequence."""
        return cls(folder / f"{sequence:019}{SUFFIX}", sequence)


def segments(folder: Path) -> list[Segment]:
    """The files of a ledger in order. Raises OSError."""
    found = [path for path in folder.iterdir() if path.suffix == SUFFIX and path.stem.isdecimal()]
    return [Segment(path, int(path.stem)) for path in sorted(found)]


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, each with its newline; the last may lack it. Raises OSError."""
    with path.open("rb") as file:
        yield from file


def verify_chain(folder: Path, head: str) -> tuple[int, str, list[str]]:
    """Look at every line of a ledger. A last line without its newline is being written, or was when a process died.

    Returns the number of lines that hold, the head, and what is wrong. Raises OSError.
    """
    found = segments(folder)
    held, last, faults = 0, Link(0, "", ZERO, ""), []
    seen: set[str] = set()
    anchor = parse_head(head) if head != NOTHING else None
    anchored = anchor is None
    for segment in found:
        for number, line in enumerate(lines(segment.path), 1):
            place = f"{segment.path.name} line {number}"
            if not line.endswith(b"\n") and segment is found[-1]:
                break
            try:
                link = decode(line.removesuffix(b"\n"))
            except BrokenLineError as error:
                faults.append(f"{place}: {error}")
                # What follows is checked against what this line states of itself as far as it can be known.
                last = Link(last.sequence + 1, last.hash, "", "")
                continue
            if link.sequence != last.sequence + 1:
                faults.append(f"{place}: it has sequence {link.sequence} where {last.sequence + 1} was due")
            elif last.hash and link.previous != last.hash:
                faults.append(f"{place}: it does not follow from the line before it")
            elif link.mutation_id in seen:
                faults.append(f"{place}: mutation {link.mutation_id} is there twice")
            else:
                held += 1
            seen.add(link.mutation_id)
            anchored = anchored or (link.sequence, link.hash) == anchor
            last = link
    if not anchored and anchor is not None:
        faults.append(
            f"the ledger was known to reach entry {anchor[0]} with hash {anchor[1]}, and does not: "
            "its end was cut off, or it is another ledger"
        )
    return held, last.head if last.sequence else NOTHING, faults
