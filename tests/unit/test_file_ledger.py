"""The files of the ledger: what tampering shows, what a crash leaves, and how files follow each other."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from codesous.control.v1.mutation_pb2 import LifecycleMutation

from cs_core.audit import chain, file_ledger
from cs_core.audit.contract import NOTHING, LedgerDamagedError, LedgerEntry, LedgerUnavailableError
from tests.support.ledgers import TENANTS, KeptInFiles, ids, make_entries


@pytest.fixture
def kept(tmp_path: Path) -> KeptInFiles:
    return KeptInFiles(tmp_path / "ledger")


async def fill(kept: KeptInFiles, count: int = 6) -> str:
    """Append, and return the head."""
    ledger = kept.ledger()
    await ledger.open(NOTHING)
    head = await ledger.append(make_entries(count))
    await ledger.close()
    return head


def files(kept: KeptInFiles) -> list[Path]:
    return [segment.path for segment in chain.segments(kept.folder)]


async def faults(kept: KeptInFiles, head: str = NOTHING) -> list[str]:
    return list((await kept.ledger().verify(head)).faults)


async def test_any_flipped_bit_is_found(kept: KeptInFiles) -> None:
    head = await fill(kept, 3)
    (path,) = files(kept)
    whole = path.read_bytes()
    chooser = random.Random(7)
    # Every place of the last line, and some of the others.
    last = whole.rindex(b"\n", 0, len(whole) - 1) + 1
    for place in [*range(last, len(whole)), *chooser.sample(range(last), 200)]:
        changed = bytearray(whole)
        changed[place] ^= 1 << chooser.randrange(8)
        path.write_bytes(changed)
        assert await faults(kept, head), f"the byte at {place}"
    path.write_bytes(whole)
    assert await faults(kept, head) == []


@pytest.mark.parametrize("gone", range(5))
async def test_a_removed_line_is_found_without_a_head(kept: KeptInFiles, gone: int) -> None:
    await fill(kept)
    (path,) = files(kept)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:gone] + lines[gone + 1 :]))
    assert await faults(kept)


async def test_reordered_doubled_and_forged_lines_are_found(kept: KeptInFiles) -> None:
    await fill(kept)
    (path,) = files(kept)
    lines = path.read_bytes().splitlines(keepends=True)
    forged, _ = chain.encode(make_entries(1)[0], 3, "f" * 64)
    for wrong in (
        [*lines[:2], lines[3], lines[2], *lines[4:]],
        [*lines[:3], *lines[2:]],
        [*lines[:2], forged, *lines[3:]],
        [*lines, b"{}\n"],
    ):
        path.write_bytes(b"".join(wrong))
        assert await faults(kept)


async def test_a_rewritten_end_is_told_by_the_head_alone(kept: KeptInFiles) -> None:
    head = await fill(kept)
    (path,) = files(kept)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))
    assert await faults(kept) == []
    assert len(await faults(kept, head)) == 1
    # Whoever can write a line can write a chain; only the head that was kept elsewhere gives it away.
    last = chain.decode(lines[3].removesuffix(b"\n"))
    other, link = chain.encode(make_entries(1)[0], 5, last.hash)
    another, _ = chain.encode(make_entries(1)[0], 6, link.hash)
    path.write_bytes(b"".join([*lines[:4], other, another]))
    assert await faults(kept) == []
    assert len(await faults(kept, head)) == 1
    with pytest.raises(LedgerDamagedError):
        await kept.ledger().open(head)


async def test_a_mutation_that_is_there_twice_is_found(kept: KeptInFiles) -> None:
    entry = make_entries(1)[0]
    first, link = chain.encode(entry, 1, chain.ZERO)
    second, _ = chain.encode(entry, 2, link.hash)
    kept.folder.mkdir()
    chain.Segment.starting_at(kept.folder, 1).path.write_bytes(first + second)
    assert [fault.split(": ")[1] for fault in await faults(kept)] == [
        f"mutation {entry.mutation.mutation_id} is there twice"
    ]


@pytest.mark.parametrize("torn", [1, 20, 200, -1])
async def test_a_torn_last_line_is_cut_off_and_its_mutation_can_be_added_again(kept: KeptInFiles, torn: int) -> None:
    entries = make_entries(4)
    ledger = kept.ledger()
    await ledger.open(NOTHING)
    head = await ledger.append(entries[:3])
    sequence, digest = chain.parse_head(head)
    await ledger.close()
    line, _ = chain.encode(entries[3], sequence + 1, digest)
    (path,) = files(kept)
    with path.open("ab") as file:
        file.write(line[:torn])
    assert await faults(kept, head) == []
    again = kept.ledger()
    assert await again.open(head) == head
    head = await again.append(entries)
    assert await kept.read() == ids(entries)
    assert await faults(kept, head) == []
    await again.close()


async def test_a_broken_line_before_the_end_is_not_taken_for_a_crash(kept: KeptInFiles) -> None:
    head = await fill(kept)
    (path,) = files(kept)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"sequence":4', b'"sequence":5'))
    for known in (head, NOTHING):
        with pytest.raises(LedgerDamagedError):
            await kept.ledger().open(known)


async def test_files_follow_each_other_and_duplicates_are_known_across_them(tmp_path: Path) -> None:
    kept = KeptInFiles(tmp_path / "ledger", 2048)
    entries = make_entries(20)
    ledger = kept.ledger()
    head = await ledger.open(NOTHING)
    for entry in entries:
        head = await ledger.append([entry])
    await ledger.close()
    names = files(kept)
    assert len(names) > 3
    assert all(path.stat().st_size < 2048 + 1024 for path in names)
    assert await kept.read() == ids(entries)
    assert await faults(kept, head) == []
    again = kept.ledger()
    await again.open(head)
    assert await again.append(entries[-3:]) == head
    await again.close()
    names[1].unlink()
    assert await faults(kept, head)


async def test_a_file_that_was_touched_while_it_is_open_takes_nothing_more(kept: KeptInFiles) -> None:
    ledger = kept.ledger()
    await ledger.open(NOTHING)
    await ledger.append(make_entries(2))
    (path,) = files(kept)
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(LedgerDamagedError):
        await ledger.append(make_entries(1))


async def test_a_file_that_is_not_found_any_more_takes_nothing_more(kept: KeptInFiles) -> None:
    ledger = kept.ledger()
    await ledger.open(NOTHING)
    head = await ledger.append(make_entries(2))
    (path,) = files(kept)
    path.rename(path.with_suffix(".gone"))
    with pytest.raises(LedgerUnavailableError):
        await ledger.append(make_entries(1))
    path.with_suffix(".gone").rename(path)
    assert await ledger.open(head) == head
    await ledger.close()


async def test_a_full_disk_loses_nothing(kept: KeptInFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = make_entries(4)
    ledger = kept.ledger()
    await ledger.open(NOTHING)
    head = await ledger.append(entries[:1])
    write = os.write

    def write_half(file: int, data: bytes) -> int:
        return write(file, data[: len(data) // 2])

    monkeypatch.setattr(file_ledger.os, "write", write_half)
    with pytest.raises(LedgerUnavailableError):
        await ledger.append(entries[1:])
    monkeypatch.undo()
    await ledger.open(head)
    await ledger.append(entries[1:])
    assert await kept.read() == ids(entries)
    await ledger.close()


async def test_nothing_is_acknowledged_before_it_is_on_disk(kept: KeptInFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = kept.ledger()
    await ledger.open(NOTHING)

    def refuse(_file: int) -> None:
        raise OSError("the disk says no")

    monkeypatch.setattr(file_ledger.os, "fdatasync", refuse)
    with pytest.raises(LedgerUnavailableError, match="the disk says no"):
        await ledger.append(make_entries(1))
    await ledger.close()


async def test_a_mutation_of_a_later_release_is_kept_whole(kept: KeptInFiles) -> None:
    # Field 99 is unknown here: 99 << 3 | 2, length 3.
    later = LifecycleMutation.FromString(
        LifecycleMutation(mutation_id="mut_x", tenant=TENANTS[0]).SerializeToString() + b"\x9a\x06\x03abc"
    )
    ledger = kept.ledger()
    await ledger.open(NOTHING)
    await ledger.append([LedgerEntry("1-0", later), *make_entries(1)])
    await ledger.close()
    first, second = kept.entries()
    assert first.mutation.SerializeToString() == later.SerializeToString()
    assert second.mutation.function_created.function.description == "ä\n\u2028"
    (path,) = files(kept)
    documents = [json.loads(line) for line in path.read_text().split("\n")[:2]]
    assert ["raw" in document["entry"] for document in documents] == [True, False]


async def test_the_folder_and_its_files_are_their_owners(kept: KeptInFiles) -> None:
    await fill(kept)
    assert kept.folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in kept.folder.iterdir())
