"""Names, ids, settings, bundles, pages."""

from __future__ import annotations

import base64
import io
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cs_core import ids, names
from cs_core.bundle import pack, unpack
from cs_core.config import SettingsError, load_settings
from cs_core.errors import TooLargeError, ValidationError
from cs_core.rpc.paging import Page

BOUNDS = {"max_bytes": 100_000, "max_files": 10}


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            names.check_tenant,
            ["t_abc123", "t_" + "a" * 32],
            ["", "t_abc12", "t_" + "a" * 33, "x_abc123", "t_ABC123", "t_abc-12", "t_abc123\n", "t_abcé12"],
        ),
        (
            names.check_function,
            ["abc", "a1-_", "a" * 64],
            ["", "ab", "a" * 65, "1abc", "Abc", "a.b", "a/b", "a{b}", "abc\n", "ab c", "abç"],
        ),
        (names.check_namespace, ["default"], ["de", "-default", "default:"]),
        (names.check_schedule, ["nightly"], ["ni"]),
        (names.check_worker, ["w-1"], ["w"]),
        (names.check_alias, ["ab", "live", "a" * 32], ["", "a", "a" * 33, "1a", "LIVE", "li ve"]),
        (
            names.check_draft_id,
            ["drf_01ARZ3NDEKTSV4RRFFQ69G5FAV"],
            ["", "drf_", "drf_81ARZ3NDEKTSV4RRFFQ69G5FAV", "drf_01arz3ndektsv4rrffq69g5fav", "drf_" + "I" * 26],
        ),
        (
            names.check_activation_id,
            ["12345678-1234-4234-8234-123456789abc"],
            ["", "12345678123442348234123456789abc", "12345678-1234-4234-8234-123456789ABC", "{x}", "x"],
        ),
        (names.check_role, ["r", "any text: é", "x" * 256], ["", "x" * 257, "a\nb", "\0"]),
    ],
)
def test_rules_of_names(check: Callable[[str, str], object], good: list[str], bad: list[str]) -> None:
    for value in good:
        assert check(value, "field") == value
    for value in bad:
        with pytest.raises(ValidationError) as caught:
            check(value, "field")
        assert caught.value.violations[0].field == "field"


@pytest.mark.parametrize(("ref", "meaning"), [("1", 1), ("4294967295", 4294967295), ("live", "live")])
def test_a_ref_is_a_version_or_an_alias(ref: str, meaning: int | str) -> None:
    assert names.parse_ref(ref) == meaning


@pytest.mark.parametrize("ref", ["", "0", "01", "-1", "+1", "1.0", "4294967296", "99999999999", "x", "٣", "1\n"])
def test_anything_else_is_no_ref(ref: str) -> None:
    with pytest.raises(ValidationError):
        names.parse_ref(ref)


def test_derived_ids_are_the_same_for_the_same_parts_only() -> None:
    made = ids.activation_id_from("t_alpha0", "a", "bc")
    assert made == ids.activation_id_from("t_alpha0", "a", "bc")
    assert uuid.UUID(made).version == 5
    others = [("t_alpha0", "ab", "c"), ("t_alpha0", "abc"), ("t_beta00", "a", "bc"), ("t_alpha0", "a", "bc", "")]
    assert len({made, *(ids.activation_id_from(*parts) for parts in others)}) == 5


def test_ids_are_what_their_rules_say() -> None:
    names.check_draft_id(ids.draft_id())
    names.check_activation_id(ids.activation_id())
    assert ids.request_id().startswith("req_")


def settings(tmp_path: Path, text: str, **environment: str) -> Any:
    path = tmp_path / "cs.toml"
    path.write_text(text)
    return load_settings(path, environment)


def test_the_environment_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        '[store]\nurl = "redis://file"\npartitions = 8\n',
        CS_STORE__URL="redis://environment",
        CS_INVOKER__CONCURRENCY="7",
        CS_SANDBOX__REQUIRE_JAIL="false",
        UNRELATED="x",
    )
    assert (found.store.url, found.store.partitions) == ("redis://environment", 8)
    assert (found.invoker.concurrency, found.sandbox.require_jail, found.codeq.lease) == (7, False, 15.0)


@pytest.mark.parametrize(
    ("text", "environment", "named"),
    [
        ("[store]\nurll = 1", {}, "urll"),
        ("[nope]\na = 1", {}, "nope"),
        ("[store]\npartitions = 0", {}, "partitions"),
        ('[store]\npartitions = "many"', {}, "partitions"),
        ("not toml", {}, "cs.toml"),
        ("", {"CS_STORE__URLL": "x"}, "CS_STORE__URLL"),
        ("", {"CS_NOPE__A": "x"}, "CS_NOPE__A"),
        ("", {"CS_STORE": "x"}, "CS_STORE"),
        ("", {"CS_CODEQ__LEASE": "-1"}, "lease"),
    ],
)
def test_what_is_no_setting_is_refused_by_name(
    tmp_path: Path, text: str, environment: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        settings(tmp_path, text, **environment)


def test_passwords_are_hidden(tmp_path: Path) -> None:
    shown = settings(tmp_path, '[store]\nurl = "rediss://user:hunter2@store:6380/1"').redacted()
    assert shown["store"]["url"] == "rediss://user:***@store:6380/1"
    assert "hunter2" not in str(shown)


def test_the_same_files_make_the_same_bundle() -> None:
    files = {"b.js": b"2", "a/c.js": b"3", "a.js": b"1"}
    first, second = pack(files, **BOUNDS), pack(dict(reversed(files.items())), **BOUNDS)
    assert first == second
    assert unpack(first.data, **BOUNDS) == files
    with tarfile.open(fileobj=io.BytesIO(first.data)) as archive:
        assert [(entry.name, entry.mtime, entry.uid, entry.uname) for entry in archive] == [
            ("a.js", 0, 0, ""),
            ("a/c.js", 0, 0, ""),
            ("b.js", 0, 0, ""),
        ]


@given(
    st.dictionaries(st.from_regex(r"[a-zé]{1,8}\.js", fullmatch=True), st.binary(max_size=50), min_size=1, max_size=8)
)
def test_files_survive_a_bundle(files: dict[str, bytes]) -> None:
    assert unpack(pack(files, **BOUNDS).data, **BOUNDS) == files


def hostile(**fields: Any) -> bytes:
    entry = tarfile.TarInfo("a.js")
    for name, value in fields.items():
        setattr(entry, name, value)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(entry, io.BytesIO(b"x" * entry.size))
    return buffer.getvalue()


def headers_about_headers() -> bytes:
    """Long names of long names: the library reads each within the one before."""
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 5
    return (entry.tobuf(tarfile.GNU_FORMAT) + b"a.js\0".ljust(tarfile.BLOCKSIZE, b"\0")) * 2000


def with_size_field(size: bytes) -> bytes:
    """An entry whose size is written so, under a right checksum."""
    header = bytearray(tarfile.TarInfo("a.js").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"x" * 1024


@pytest.mark.parametrize(
    "data",
    [
        b"not a tar" * 100,
        hostile(name="../a.js"),
        hostile(name="/a.js"),
        hostile(type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        hostile(type=tarfile.LNKTYPE, linkname="b.js"),
        hostile(type=tarfile.CHRTYPE),
        hostile(type=tarfile.DIRTYPE),
        hostile(name="\udcff.js"),
        headers_about_headers(),
        with_size_field(b"\x80" + b"\x00" * 3 + b"\x7f" + b"\xff" * 7),
        with_size_field(b"\xff" * 12),
    ],
    ids=[
        "text",
        "up",
        "absolute",
        "symlink",
        "hard link",
        "device",
        "folder",
        "not UTF-8",
        "headers about headers",
        "size past all",
        "size below 0",
    ],
)
def test_hostile_bundles_are_refused(data: bytes) -> None:
    with pytest.raises(ValidationError):
        unpack(data, **BOUNDS)


def test_a_lawful_bundle_made_by_others_is_read() -> None:
    assert unpack(hostile(size=3), **BOUNDS) == {"a.js": b"xxx"}


def test_a_bundle_that_claims_or_holds_too_much_is_too_large() -> None:
    with pytest.raises(TooLargeError):
        pack({"a.js": b"x" * 200_000}, **BOUNDS)
    with pytest.raises(TooLargeError):
        unpack(pack({"a.js": b"x" * 50_000}, **BOUNDS).data, max_bytes=10_000, max_files=10)


def test_pages_have_sizes_and_tokens_of_their_own_list() -> None:
    first = Page("functions", ("t_alpha0", "default"), 0, "")
    assert (first.size, first.after_name(), first.number()) == (50, "", None)
    assert Page("functions", (), 9999, "").size == 500
    token = first.next_token("hello")
    assert Page("functions", ("t_alpha0", "default"), 0, token).after_name() == "hello"
    assert first.next_token(None) == ""
    for other in (("functions", ("t_beta00", "default")), ("versions", ("t_alpha0", "default"))):
        with pytest.raises(ValidationError) as caught:
            Page(*other, 0, token)
        assert caught.value.reason == "CS_VALIDATION_PAGE_TOKEN"
    with pytest.raises(ValidationError):
        Page("functions", (), -1, "")


@given(st.text(max_size=60))
def test_what_is_no_token_is_refused(text: str) -> None:
    if text:
        with pytest.raises(ValidationError):
            Page("functions", ("t_alpha0",), 0, text)


def token_of(page: Page, position: str) -> str:
    """A token that carries the check of its list, as anyone can make it, and any position."""
    check = base64.urlsafe_b64decode(page.next_token(0) + "==")[:8]
    return base64.urlsafe_b64encode(check + position.encode()).decode().rstrip("=")


@pytest.mark.parametrize("read", [Page.after_name, Page.number, Page.after_pair])
@pytest.mark.parametrize(
    "position",
    [
        "{}",
        "[]",
        "true",
        "1.5",
        "-1",
        str(2**60),
        "[1]",
        '["x","y"]',
        "[1,2]",
        '[true,"y"]',
        '"\\n"',
        "[" * 700,
        "NaN",
        "1" * 900,
        f'"{"x" * 300}"',
        "[" * 5000,
    ],
)
def test_a_position_that_a_list_never_gave_out_is_refused(read: Callable[[Page], object], position: str) -> None:
    token = token_of(Page("functions", (), 0, ""), position)
    with pytest.raises(ValidationError) as caught:
        read(Page("functions", (), 0, token))
    assert caught.value.reason == "CS_VALIDATION_PAGE_TOKEN"


def test_a_position_comes_back_as_it_was_given_out() -> None:
    first = Page("functions", (), 0, "")
    assert Page("functions", (), 0, first.next_token(7)).number() == 7
    assert Page("functions", (), 0, first.next_token((7, "id"))).after_pair() == (7, "id")
    assert (first.after_name(), first.number(), first.after_pair()) == ("", None, None)
