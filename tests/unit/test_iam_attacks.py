"""Forged and odd tokens: each is refused as typed, and each gets in, or breaks something, when its guard is off."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cs_core.errors import AuthenticationError
from cs_core.iam import claims, signed, tokens
from tests.support.forging import KEY_ID, TENANT, Forge, b64, unb64

INVALID, EXPIRED = "CS_AUTHN_TOKEN_INVALID", "CS_AUTHN_TOKEN_EXPIRED"
LONG = 10**6


@dataclass(frozen=True)
class Attack:
    """A token, and the guard that stands against it. `off` takes the guard away."""

    name: str
    make: Callable[[Forge], str]
    off: Callable[[pytest.MonkeyPatch, Forge], None]
    reason: str = field(default=INVALID)


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    return Forge(tmp_path_factory.mktemp("forge"))


async def outcome(forge: Forge, token: str) -> str:
    """The reason of the refusal; `accepted`, or the name of what broke."""
    try:
        await forge.verifier().verify(token)
    except AuthenticationError as error:
        return error.reason
    except Exception as error:
        return type(error).__name__
    return "accepted"


def no_header_check(patch: pytest.MonkeyPatch, forge: Forge) -> None:
    patch.setattr(signed, "check_header", lambda header: None)
    patch.setattr(signed, "signed_payload", forge.believing_payload)


def no_signature_check(patch: pytest.MonkeyPatch, forge: Forge) -> None:
    patch.setattr(signed, "signed_payload", lambda token, key: unb64(token.split(".")[1]))


def any_key_id(patch: pytest.MonkeyPatch, forge: Forge) -> None:
    patch.setattr(signed, "key_id_of", lambda header: KEY_ID)
    patch.setattr(signed, "signed_payload", forge.believing_payload)


def lenient_json(patch: pytest.MonkeyPatch, forge: Forge) -> None:
    patch.setattr(signed, "parse_object", json.loads)


def lenient_shape(patch: pytest.MonkeyPatch, forge: Forge) -> None:
    patch.setattr(signed, "_SHAPE", re.compile(r".*"))
    patch.setattr(signed, "signed_payload", forge.believing_payload)


def no_size_limit(patch: pytest.MonkeyPatch, forge: Forge) -> None:
    patch.setattr(tokens, "MAX_TOKEN_BYTES", LONG)


def without(check: str) -> Callable[[pytest.MonkeyPatch, Forge], None]:
    def off(patch: pytest.MonkeyPatch, forge: Forge) -> None:
        patch.setitem(claims.CHECKS, check, lambda *_: None)

    return off


def with_header(name: str, **header: Any) -> Attack:
    return Attack(name, lambda forge: forge.token(header=header), no_header_check)


def with_claims(check: str, reason: str = INVALID, /, **changed: Any) -> Attack:
    shown = " ".join(f"{name}={value!r}"[:40] for name, value in changed.items())
    return Attack(f"{check}: {shown}", lambda forge: forge.token(forge.claims(**changed)), without(check), reason)


def raw(name: str, text: str) -> Attack:
    """Good claims and this text behind them."""

    def make(forge: Forge) -> str:
        good = json.dumps(forge.claims())
        return forge.token(payload=f"{good[:-1]}, {text}}}".encode())

    return Attack(name, make, lenient_json)


ALGORITHMS = [
    with_header(f"alg {algorithm!r}", alg=algorithm)
    for algorithm in ("none", "None", "nOnE", "HS256", "HS384", "HS512", "PS256", "ES256", "RS384", "RS512", " RS256 ")
] + [
    with_header("no alg", alg=...),
    with_header("alg a list", alg=["RS256"]),
    with_header("alg a number", alg=256),
    with_header("alg in lower case", alg="rs256"),
]
EMBEDDED = [
    Attack(
        "jwk of the attacker",
        lambda forge: forge.token(header={"jwk": forge.public_jwk(forge.attacker)}, key=forge.attacker),
        no_header_check,
    ),
    with_header("jku", jku="https://evil.example/jwks.json"),
    with_header("x5u", x5u="https://evil.example/chain.pem"),
    with_header("x5c", x5c=["MIIB"]),
    with_header("crit", crit=["exp"]),
    with_header("crit of nothing", crit=[]),
    with_header("b64", b64=False),
    with_header("zip", zip="DEF"),
    with_header("cty", cty="JWT"),
    with_header("typ of another kind", typ="secevent+jwt"),
    with_header("typ a number", typ=7),
    with_header("something new", new=1),
]
KEY_IDS = [
    Attack(
        f"kid {str(kid)[:30]!r}",
        lambda forge, kid=kid: forge.token(header={"kid": kid}),
        any_key_id,  # type: ignore[misc]
    )
    for kid in (
        "../../../../dev/null",
        "/etc/passwd",
        "file:///dev/null",
        "http://evil.example/key",
        "' OR '1'='1",
        "key-1'; DROP TABLE keys; --",
        "key-1\0",
        "\0",
        "key-1\n",
        "kéy",
        "%00",
        "*",
        "KEY-1",
        "x" * 257,
        "",
        7,
        None,
        True,
        ["key-1"],
        {"$ne": ""},
    )
] + [Attack("no kid", lambda forge: forge.token(header={"kid": ...}), any_key_id)]
SIGNATURES = [
    Attack("another key", lambda forge: forge.token(key=forge.attacker), no_signature_check),
    Attack("no signature", lambda forge: forge.token().rpartition(".")[0] + "." + b64(b"x"), no_signature_check),
    Attack(
        "a claim changed",
        lambda forge: re.sub(
            r"\.[^.]*\.", f".{b64(json.dumps(forge.claims(tid='t_beta00')).encode())}.", forge.token(), count=1
        ),
        no_signature_check,
    ),
]
SHAPES = [
    Attack("padding", lambda forge: forge.token() + "==", lenient_shape),
    Attack("what is no digit", lambda forge: forge.token()[:-4] + "!!!!" + forge.token()[-4:], lenient_shape),
    Attack("too long", lambda forge: forge.token(forge.claims(x="a" * 16_000)), no_size_limit),
]
DOCUMENTS = [
    raw("tid twice", f'"tid": "{TENANT}"'),
    raw("role twice", '"role": "admin"'),
    raw("a key twice, deep", '"x": {"a": 1, "a": 2}'),
    raw("NaN", '"x": NaN'),
    raw("Infinity", '"x": [-Infinity]'),
    raw("nested without end", f'"x": {"[" * 5000}{"]" * 5000}'),
]
CLAIMS = [
    *(
        with_claims("expiry", exp=value)
        for value in (
            ...,
            None,
            True,
            "9999999999",
            "soon",
            9_999_999_999.5,
            1e300,
            -1,
            0,
            10**30,
            253_402_300_800,
            [9_999_999_999],
            {"at": 9_999_999_999},
        )
    ),
    with_claims("expiry", EXPIRED, exp=1_700_000_000),
    *(with_claims("not_before", nbf=value) for value in (9_999_999_999, "0", None, -1, 1.5, True)),
    *(with_claims("issued", iat=value) for value in (9_999_999_999, "0", None, 1e3, False)),
    *(
        with_claims("issuer", iss=value)
        for value in (
            ...,
            None,
            "",
            "https://evil.example",
            "https://dev.code-sous.invalid/",
            ["https://dev.code-sous.invalid"],
        )
    ),
    *(
        with_claims("audience", aud=value)
        for value in (
            ...,
            None,
            "",
            "other",
            [],
            ["other"],
            ["code-sous", "other"],
            [["code-sous"]],
            {"code-sous": 1},
            "Code-Sous",
        )
    ),
    *(with_claims("subject", sub=value) for value in (..., None, "", 7, ["ada"], "x" * 257, "a\nb", "\0")),
    *(
        with_claims("tenant", tid=value)
        for value in (
            ...,
            None,
            "",
            "alpha",
            "T_ALPHA0",
            "t_alpha0\n",
            "t_alpha0 ",
            "t_a:b000",
            "{t_alpha0}",
            [TENANT],
            {"t": 1},
            7,
            True,
        )
    ),
    *(
        with_claims("roles", role=value)
        for value in (
            None,
            7,
            True,
            {"admin": 1},
            [1],
            [["admin"]],
            "",
            "x" * 257,
            "ad\nmin",
            [f"r{n}" for n in range(65)],
        )
    ),
    with_claims("roles", roles="x" * 257),
    with_claims("roles", role=["a"] * 40, roles=[f"r{n}" for n in range(64)]),
    *(with_claims("scope", scope=value) for value in (None, 7, ["cs:*"], {"cs": "*"}, "cs:*\0", "a " * 257)),
]
ATTACKS = [*ALGORITHMS, *EMBEDDED, *KEY_IDS, *SIGNATURES, *SHAPES, *DOCUMENTS, *CLAIMS]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_it_is_refused_as_typed(forge: Forge, attack: Attack) -> None:
    assert await outcome(forge, attack.make(forge)) == attack.reason


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_without_its_guard_it_is_not(forge: Forge, attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the token is a working attack, and it is this guard that stands against it."""
    token = attack.make(forge)
    attack.off(monkeypatch, forge)
    assert await outcome(forge, token) != attack.reason


async def test_a_good_token_gets_in(forge: Forge) -> None:
    """The other control: what the attacks are made from is good, in every form that may be."""
    for changed in (
        {},
        {"aud": ["code-sous"]},
        {"role": "admin"},
        {"role": ..., "roles": ["a"]},
        {"nbf": 1},
        {"x": None},
    ):
        assert await outcome(forge, forge.token(forge.claims(**changed))) == "accepted", changed
    for header in ({"typ": ...}, {"typ": "at+jwt"}, {"x5t": "abc"}):
        assert await outcome(forge, forge.token(header=header)) == "accepted", header


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "a.b.c.d.e",
        ".",
        "..",
        "x" * 20_000,
        "é.é.é",
        "\0",
        "a.b.c\n",
        " a.b.c",
        "e30.e30.e30",
    ],
)
async def test_what_is_no_token_is_refused(forge: Forge, token: str) -> None:
    assert await outcome(forge, token) == INVALID


@pytest.mark.parametrize(
    "header",
    [b"[]", b'"x"', b"7", b"null", b"\xff", b"{", b"[" * 9_000, b'{"a":' * 2_000, b'{"alg":"RS256","alg":"RS256"}'],
    ids=lambda header: str(header[:20]),
)
async def test_a_header_that_is_none_is_refused_before_anything_is_asked(forge: Forge, header: bytes) -> None:
    forged = f"{b64(header)}.{b64(b'{}')}.{b64(b'x')}"
    assert await outcome(forge, forged) == INVALID


@pytest.mark.parametrize("payload", [b"[]", b'"x"', b"7", b"null", b"\xff", b"{", b""], ids=str)
async def test_content_that_is_no_object_is_refused_though_it_is_signed(forge: Forge, payload: bytes) -> None:
    assert await outcome(forge, forge.token(payload=payload)) == INVALID


async def test_a_tenant_of_the_issuer_can_have_another_name_here(forge: Forge) -> None:
    chosen = forge.settings.model_copy(update={"tenants": {"payments": TENANT, "bad": "nope"}})
    principal = await forge.verifier(chosen).verify(forge.token(forge.claims(tid="payments")))
    assert principal.tenant == TENANT
    for tenant in ("bad", "unheard", TENANT):
        with pytest.raises(AuthenticationError):
            await forge.verifier(chosen).verify(forge.token(forge.claims(tid=tenant)))


async def test_scopes_with_the_prefix_are_roles_and_do_not_narrow(forge: Forge) -> None:
    scoped = forge.token(forge.claims(role=..., scope="role:developer cs:function:read role:billing"))
    plain = await forge.verifier().verify(scoped)
    assert (list(plain.roles), len(plain.scopes)) == ([], 3)
    chosen = forge.settings.model_copy(update={"role_scope_prefix": "role:"})
    principal = await forge.verifier(chosen).verify(scoped)
    assert (list(principal.roles), list(principal.scopes)) == (["developer", "billing"], ["cs:function:read"])
    odd = forge.token(forge.claims(role=..., scope="role:"))
    with pytest.raises(AuthenticationError):
        await forge.verifier(chosen).verify(odd)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
CLAIM_NAMES = st.sampled_from(["iss", "aud", "sub", "tid", "role", "roles", "scope", "exp", "nbf", "iat", "jti"])
HEADER_NAMES = st.sampled_from(["alg", "kid", "typ", "jwk", "jku", "crit", "x5c", "b64", "x5t"])
TYPED = {INVALID, EXPIRED, "accepted"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    changed=st.dictionaries(CLAIM_NAMES, ANY_JSON, max_size=4),
    header=st.dictionaries(HEADER_NAMES, ANY_JSON, max_size=2),
)
async def test_whatever_a_signed_token_says_the_answer_is_typed(
    forge: Forge, changed: dict[str, Any], header: dict[str, Any]
) -> None:
    assert await outcome(forge, forge.token(forge.claims(**changed), header)) in TYPED


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(token=st.text() | st.binary().map(b64) | st.lists(st.binary().map(b64), min_size=3, max_size=3).map(".".join))
async def test_whatever_comes_as_a_token_is_refused_as_typed(forge: Forge, token: str) -> None:
    assert await outcome(forge, token) == INVALID


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.floats(0, 0.999), character=st.sampled_from("ABab01_-.=\x00é "))
async def test_a_good_token_with_one_character_changed_is_refused(forge: Forge, place: float, character: str) -> None:
    good = forge.good
    position = int(place * len(good))
    changed = good[:position] + character + good[position + 1 :]
    if changed != good and not same_bits(good, changed):
        assert await outcome(forge, changed) == INVALID


def same_bits(one: str, other: str) -> bool:
    """Whether two texts are the same token: the last digit of each part holds bits that mean nothing."""
    try:
        return [unb64(part) for part in one.split(".")] == [unb64(part) for part in other.split(".")]
    except ValueError:
        return False
