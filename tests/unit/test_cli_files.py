"""What `cs` reads and writes on disk: the login, the files of a function, events, settings."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cs_cli.__main__ import run
from cs_cli.failure import CommandError
from cs_cli.login import Login, load, login_file, save
from cs_cli.sources import read_event, read_files, read_manifest

BIN = Path(sys.executable).parent
LOGIN = Login("t_alpha0", "abcdefghijklmnop", "http://127.0.0.1:8080")


def test_the_login_is_its_owners_alone(home: Path) -> None:
    os.umask(0)
    path = save(LOGIN)
    save(LOGIN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["login.json"]
    assert load() == LOGIN


def test_the_environment_wins_over_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(LOGIN)
    monkeypatch.setenv("CODE_SOUS_TENANT", "t_beta00")
    assert load() == Login("t_beta00", LOGIN.token, LOGIN.api_url)


def test_whoami_tells_eight_characters_of_the_token(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(LOGIN)
    assert run(["auth", "whoami"]) == 0
    told = capsys.readouterr().out
    assert "abcdefgh" in told
    assert "abcdefghi" not in told


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tenant": 1}', "\x00"])
def test_a_login_file_that_is_none_says_so(home: Path, text: str) -> None:
    save(LOGIN)
    login_file().write_text(text)
    with pytest.raises(CommandError) as error:
        load()
    assert error.value.reason == "CS_CLI_BAD_LOGIN"


@pytest.mark.parametrize(
    "login",
    [
        Login("T", "x", LOGIN.api_url),
        Login("t_alpha0", "two words", LOGIN.api_url),
        Login("t_alpha0", "", LOGIN.api_url),
        Login("t_alpha0", "x" * 16_385, LOGIN.api_url),
        Login("t_alpha0", "x", "ftp://host"),
        Login("t_alpha0", "x", "http://host/path"),
        Login("t_alpha0", "x", "http://user@host"),
        Login("t_alpha0", "x", "http://host:99999"),
        Login("t_alpha0", "x", "http://[::1"),
    ],
)
def test_a_bad_login_is_refused_and_nothing_is_written(home: Path, login: Login) -> None:
    with pytest.raises(CommandError):
        save(login)
    assert not login_file().exists()


def _function(folder: Path) -> Path:
    folder.mkdir()
    (folder / "manifest.json").write_text('{"runtime": "cs-js"}')
    (folder / "index.js").write_text("export default () => 1;")
    return folder


def test_hidden_files_and_packages_stay_at_home(tmp_path: Path) -> None:
    folder = _function(tmp_path / "f")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    (folder / ".env").write_text("SECRET=1")
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "x.js").write_text("x")
    (folder / "lib").mkdir()
    (folder / "lib" / "a.js").write_text("x")
    assert sorted(read_files(folder)) == ["index.js", "lib/a.js", "manifest.json"]


def _link_out(folder: Path) -> None:
    (folder / "passwd").symlink_to("/etc/passwd")


def _link_to_nothing(folder: Path) -> None:
    (folder / "gone.js").symlink_to(folder / "nothing.js")


def _no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _too_many(folder: Path) -> None:
    for number in range(1000):
        (folder / f"{number}.js").touch()


def _too_large(folder: Path) -> None:
    with (folder / "big.bin").open("wb") as file:
        file.truncate(17 * 1024 * 1024)


@pytest.mark.parametrize("spoil", [_link_out, _link_to_nothing, _no_manifest, _too_many, _too_large])
def test_a_folder_that_is_no_function_is_refused(tmp_path: Path, spoil: object) -> None:
    folder = _function(tmp_path / "f")
    spoil(folder)  # type: ignore[operator]
    with pytest.raises((CommandError, FileNotFoundError)) as error:
        read_files(folder)
    assert isinstance(error.value, CommandError)


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b'{"unknown": 1}', b"\xff", b'{"runtime": 7}'])
def test_a_manifest_that_is_none_is_refused(manifest: bytes) -> None:
    with pytest.raises(CommandError) as error:
        read_manifest({"manifest.json": manifest})
    assert error.value.reason == "CS_VALIDATION_MANIFEST"


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"nope"])
def test_an_event_that_is_no_json_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "event.json"
    path.write_bytes(data)
    with pytest.raises(CommandError) as error:
        read_event(str(path))
    assert error.value.reason == "CS_VALIDATION_MALFORMED"


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_an_event_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError) as error:
        read_event(str(tmp_path / name))
    assert error.value.reason == "CS_CLI_NO_FILE"


def test_config_show_hides_passwords_and_refuses_unknown_keys(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "services.toml"
    path.write_text('[store]\nurl = "redis://user:hunter2@127.0.0.1:1/0"\n')
    assert run(["config", "show", "--config", str(path), "--json"]) == 0
    shown = capsys.readouterr().out
    assert "hunter2" not in shown
    assert json.loads(shown)["store"]["url"] == "redis://user:***@127.0.0.1:1/0"
    path.write_text("[store]\ncolour = 1\n")
    assert run(["config", "show", "--config", str(path), "--json"]) == 1
    assert "store.colour" in capsys.readouterr().err


def test_options_stand_before_or_after_the_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fn", "init", "--path", "a", "one", "--json"]) in (0, 1)
    first = capsys.readouterr()
    assert run(["fn", "init", "two", "--path", "b", "--json"]) in (0, 1)
    assert ("CS_CLI_USAGE" in first.err) == ("CS_CLI_USAGE" in capsys.readouterr().err)


def test_a_reader_that_goes_away_is_no_traceback(home: Path) -> None:
    command = f"'{BIN / 'cs'}' config show | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.returncode in (0, 1)
