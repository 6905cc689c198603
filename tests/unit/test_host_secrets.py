"""Where secrets come from: a folder, or one file, by tenant and namespace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from codesous.type.v1.function_ref_pb2 import FunctionRef

from cs_core.config import SecretSettings
from cs_invoker.host_secrets import Secrets, open_secrets
from cs_sandbox.job import HostCallError

OURS = FunctionRef(tenant="t_alpha0", namespace="default", function="f")
OTHERS = FunctionRef(tenant="t_beta00", namespace="default", function="f")
ELSEWHERE = FunctionRef(tenant="t_alpha0", namespace="other", function="f")
VALUES = {"t_alpha0": {"key": "tenant's", "only": "o", "default": {"key": "namespace's"}}, "t_beta00": {"key": "b"}}


@pytest.fixture(params=["folder", "toml", "json"])
def secrets(request: pytest.FixtureRequest, tmp_path: Path) -> Secrets:
    path = tmp_path / f"secrets.{request.param}"
    match request.param:
        case "json":
            path.write_text(json.dumps(VALUES))
        case "toml":
            path.write_text(
                "[t_alpha0]\nkey = \"tenant's\"\nonly = 'o'\n[t_alpha0.default]\nkey = \"namespace's\"\n"
                "[t_beta00]\nkey = 'b'\n"
            )
        case _:
            path = tmp_path / "secrets"
            for tenant, names in VALUES.items():
                for name, value in names.items():
                    for place, text in ({f"{tenant}/{name}": value} if isinstance(value, str) else {
                        f"{tenant}/{name}/{inner}": each for inner, each in value.items()
                    }).items():  # fmt: skip
                        (path / place).parent.mkdir(parents=True, exist_ok=True)
                        (path / place).write_text(f"{text}\n")
    return open_secrets(SecretSettings(provider="file", path=str(path)))


async def test_a_namespaces_own_value_goes_before_its_tenants(secrets: Secrets) -> None:
    assert await secrets.find(OURS, "key") == "namespace's"
    assert await secrets.find(ELSEWHERE, "key") == "tenant's"
    assert await secrets.find(OURS, "only") == "o"
    assert await secrets.find(OTHERS, "key") == "b"


@pytest.mark.parametrize(
    "name", ["gone", "default", "default/key", "../t_beta00/key", "..", ".", "/etc/passwd", "", "a\0b", "only/.."]
)
async def test_what_is_no_secret_of_the_tenant_is_not_found(secrets: Secrets, name: str) -> None:
    assert await secrets.find(OURS, name) is None
    assert await secrets.find(OTHERS, "only") is None


async def test_a_file_is_read_anew_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(json.dumps(VALUES))
    secrets = open_secrets(SecretSettings(provider="file", path=str(path)))
    assert await secrets.find(OTHERS, "key") == "b"
    replaced = tmp_path / "new"
    replaced.write_text(json.dumps({"t_beta00": {"key": "c"}}))
    replaced.rename(path)
    assert await secrets.find(OTHERS, "key") == "c"


@pytest.mark.parametrize("text", ["{", "[1]", '{"t_alpha0": {"key": 1}}', '{"t_alpha0": 1}'])
async def test_a_file_of_another_shape_holds_nothing_or_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(text)
    secrets = open_secrets(SecretSettings(provider="file", path=str(path)))
    if text != "{":
        assert await secrets.find(OURS, "key") is None
        return
    with pytest.raises(HostCallError) as caught:
        await secrets.find(OURS, "key")
    assert caught.value.reason == "CS_SECRETS_UNAVAILABLE"


async def test_a_secret_that_is_too_large_or_no_text_is_not_given(tmp_path: Path) -> None:
    folder = tmp_path / "t_alpha0"
    folder.mkdir()
    (folder / "large").write_bytes(b"x" * 70_000)
    (folder / "bytes").write_bytes(b"\xff\xfe")
    secrets = open_secrets(SecretSettings(provider="file", path=str(tmp_path)))
    for name in ("large", "bytes"):
        with pytest.raises(HostCallError) as caught:
            await secrets.find(OURS, name)
        assert caught.value.reason == "CS_SECRETS_UNAVAILABLE"


async def test_without_a_provider_there_is_no_secret() -> None:
    assert await open_secrets(SecretSettings()).find(OURS, "key") is None
