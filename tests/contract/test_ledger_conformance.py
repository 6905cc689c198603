"""What every driver of the ledger promises; the real ledgerdb binary is put through the same in tests/interop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cs_core.audit.contract import NOTHING, Ledger, LedgerDamagedError, LedgerUnavailableError
from cs_core.audit.no_ledger import NoLedger
from tests.support.ledgers import Kept, KeptInFiles, KeptInGit, ids, make_entries, stand_in


@pytest.fixture(params=["file", "small files", "ledgerdb"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    if request.param == "ledgerdb":
        return KeptInGit(stand_in(tmp_path), tmp_path / "ledger.git")
    return KeptInFiles(tmp_path / "ledger", 1024 if request.param == "small files" else 64 * 1024 * 1024)


@pytest.fixture
async def ledger(kept: Kept) -> AsyncIterator[Ledger]:
    ledger = kept.ledger()
    await ledger.open(NOTHING)
    yield ledger
    await ledger.close()


async def test_entries_are_kept_in_order_and_verify(kept: Kept, ledger: Ledger) -> None:
    entries = make_entries(5)
    await ledger.append(entries[:2])
    await ledger.append([])
    head = await ledger.append(entries[2:])
    assert await kept.read() == ids(entries)
    found = await ledger.verify(head)
    assert (found.entries, found.head, found.faults) == (5, head, ())


async def test_what_is_there_is_not_added_again_by_this_opening_or_another(kept: Kept, ledger: Ledger) -> None:
    entries = make_entries(4)
    await ledger.append(entries[:2])
    await ledger.append(entries[:3])
    await ledger.close()
    again = kept.ledger()
    head = await again.open(NOTHING)
    assert head == await again.append(entries[1:3])
    await again.append(entries[2:])
    assert await kept.read() == ids(entries)
    await again.close()


async def test_a_batch_that_names_one_twice_adds_it_once(kept: Kept, ledger: Ledger) -> None:
    (entry,) = make_entries(1)
    await ledger.append([entry, entry])
    assert await kept.read() == ids([entry])


async def test_only_one_has_it_open(kept: Kept, ledger: Ledger) -> None:
    second = kept.ledger()
    with pytest.raises(LedgerUnavailableError):
        await second.open(NOTHING)
    with pytest.raises(LedgerUnavailableError):
        await second.append(make_entries(1))
    await ledger.close()
    await second.open(NOTHING)
    await second.close()


async def test_the_head_goes_on_from_where_it_was(kept: Kept, ledger: Ledger) -> None:
    head = await ledger.append(make_entries(3))
    await ledger.close()
    again = kept.ledger()
    assert await again.open(head) == head
    later = await again.append(make_entries(1))
    assert later != head
    await again.close()
    # A head that was kept before the last append stands for a part of the ledger.
    assert await kept.ledger().open(head) == later
    assert (await kept.ledger().verify(head)).sound


async def test_a_ledger_that_does_not_hold_the_known_head_is_refused(kept: Kept, ledger: Ledger) -> None:
    await ledger.append(make_entries(2))
    await ledger.close()
    foreign = f"9:{'0' * 64}" if isinstance(kept, KeptInFiles) else "0" * 40
    for head in (foreign, "nonsense"):
        again = kept.ledger()
        with pytest.raises(LedgerDamagedError):
            await again.open(head)
        assert not (await again.verify(head)).sound


async def test_a_ledger_that_is_gone_is_not_made_anew(kept: Kept, ledger: Ledger) -> None:
    head = await ledger.append(make_entries(2))
    await ledger.close()
    place = kept.folder if isinstance(kept, KeptInFiles) else kept.repository  # type: ignore[attr-defined]
    place.rename(place.with_name("away"))
    again = kept.ledger()
    with pytest.raises(LedgerUnavailableError):
        await again.open(head)
    with pytest.raises(LedgerUnavailableError):
        await again.verify(head)
    assert not place.exists()
    place.with_name("away").rename(place)
    assert await again.open(head) == head
    await again.close()


async def test_none_keeps_nothing_and_is_always_there() -> None:
    ledger = NoLedger()
    assert await ledger.open("whatever") == NOTHING
    assert await ledger.append(make_entries(1)) == NOTHING
    assert (await ledger.verify(NOTHING)).sound
    await ledger.close()
