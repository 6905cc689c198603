"""Sealed values open with their key, in their place, and nowhere else."""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from pathlib import Path

import pytest

from cs_core.config import SettingsError
from cs_core.sealing import Sealer, SealError, load_sealer, make_key_file

PLACE = ("t_alpha0", "default", "token")
OLD, NEW = b"o" * 32, b"n" * 32


def test_a_sealed_value_opens_in_its_place_and_shows_nothing() -> None:
    sealer = Sealer([NEW])
    first, second = sealer.seal(b"hunter2", PLACE), sealer.seal(b"hunter2", PLACE)
    assert sealer.open(first, PLACE) == sealer.open(second, PLACE) == b"hunter2"
    assert first.data != second.data
    assert b"hunter2" not in first.data


@pytest.mark.parametrize(
    "place",
    [("t_beta00", "default", "token"), ("t_alpha0", "other", "token"), ("t_alpha0", "default", "other"),
     ("t_alpha0", "defaul", "ttoken"), ("t_alpha0", "default")],
)  # fmt: skip
def test_a_value_that_is_put_elsewhere_does_not_open(place: tuple[str, ...]) -> None:
    sealer = Sealer([NEW])
    with pytest.raises(SealError):
        sealer.open(sealer.seal(b"hunter2", PLACE), place)


def test_a_value_with_any_bit_changed_does_not_open() -> None:
    sealer = Sealer([NEW])
    sealed = sealer.seal(b"hunter2", PLACE)
    for part in ("nonce", "data"):
        whole = getattr(sealed, part)
        for position in range(len(whole)):
            changed = bytes(byte ^ (index == position) for index, byte in enumerate(whole))
            with pytest.raises(SealError):
                sealer.open(replace(sealed, **{part: changed}), PLACE)


def test_a_new_key_seals_and_the_old_one_opens_until_it_is_taken_away() -> None:
    sealed = Sealer([OLD]).seal(b"hunter2", PLACE)
    both = Sealer([NEW, OLD])
    assert both.open(sealed, PLACE) == b"hunter2"
    assert both.seal(b"hunter2", PLACE).key_id == Sealer([NEW]).key_id != sealed.key_id
    with pytest.raises(SealError, match=sealed.key_id):
        Sealer([NEW]).open(sealed, PLACE)


def test_a_key_file_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret.keys"
    make_key_file(path)
    made = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    make_key_file(path)
    assert path.read_bytes() == made
    sealer = load_sealer(path)
    path.write_text(base64.b64encode(os.urandom(32)).decode() + "\n\n" + made.decode())
    assert load_sealer(path).open(sealer.seal(b"x", PLACE), PLACE) == b"x"


@pytest.mark.parametrize("text", ["", "\n", "not base64!", base64.b64encode(b"short").decode(), "é"])
def test_a_file_that_holds_no_keys_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret.keys"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError):
        load_sealer(path)
    with pytest.raises(SettingsError):
        load_sealer(tmp_path / "none")
