"""The issuer's keys: how often they are fetched, what an outage costs, and what a withdrawn key means."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from cs_core.clock import ManualClock
from cs_core.config import IamSettings
from cs_core.errors import AuthenticationError, UnavailableError
from cs_core.iam import jwks
from cs_core.iam.jwks import KeySet
from cs_core.iam.signed import SignedTokens
from cs_core.iam.tokens import TokenVerifier
from tests.support.tikti import AUDIENCE, Tikti, User

JWKS = "/v1/.well-known/jwks.json"
ADA = User("ada@example.com", "secret", "t_alpha0", "ADMIN")


@pytest.fixture
def tikti() -> Iterator[Tikti]:
    tikti = Tikti()
    yield tikti
    tikti.close()


class Verifying:
    """A verifier of the stand-in's tokens, and a clock that moves when told."""

    def __init__(self, tikti: Tikti, **changed: Any) -> None:
        self.clock = ManualClock(datetime.now(UTC))
        self.settings = IamSettings(
            **{"issuer": tikti.url, "audience": AUDIENCE, "jwks_url": tikti.jwks_url, **changed}
        )
        settings = self.settings
        self.keys = KeySet(settings.jwks_url, settings.jwks_refresh, self.clock, settings.jwks_max_age)
        self.verifier = TokenVerifier(SignedTokens(settings, self.keys, self.clock), self.clock, settings.token_cache)

    async def refused(self, token: str) -> bool:
        try:
            await self.verifier.verify(token)
        except AuthenticationError as error:
            assert error.reason == "CS_AUTHN_TOKEN_INVALID"
            return True
        return False


@pytest.fixture
def verifying(tikti: Tikti) -> Verifying:
    return Verifying(tikti)


def with_key_id(tikti: Tikti, key_id: str) -> str:
    token = tikti.access_token(ADA, ())
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode(claims, tikti.keys["tikti-1"], algorithm="RS256", headers={"kid": key_id})


async def flood(tikti: Tikti, verifying: Verifying) -> None:
    """1,000 callers at once, each with a key id of its own that nobody has heard of."""
    template = with_key_id(tikti, "KEYID")
    tail = template.partition(".")[2]
    heads = [
        jwt.utils.base64url_encode(json.dumps({"alg": "RS256", "kid": str(uuid.uuid4())}).encode()) for _ in range(1000)
    ]
    refusals = await asyncio.gather(*(verifying.refused(f"{head.decode()}.{tail}") for head in heads))
    assert all(refusals)


async def test_a_thousand_unknown_key_ids_cost_one_fetch_per_interval(tikti: Tikti, verifying: Verifying) -> None:
    await flood(tikti, verifying)
    assert tikti.asked[JWKS] == 1
    await flood(tikti, verifying)
    assert tikti.asked[JWKS] == 1
    verifying.clock.advance(timedelta(seconds=61))
    await flood(tikti, verifying)
    assert tikti.asked[JWKS] == 2
    # Nobody with a good token waits for any of it.
    assert not await verifying.refused(tikti.access_token(ADA, ()))
    assert tikti.asked[JWKS] == 2


async def test_without_the_interval_the_flood_reaches_the_issuer(
    tikti: Tikti, verifying: Verifying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    monkeypatch.setattr(KeySet, "_may_try", lambda self, now: True)
    await verifying.verifier.verify(tikti.access_token(ADA, ()))
    for number in range(20):
        assert await verifying.refused(with_key_id(tikti, f"k{number}"))
    assert tikti.asked[JWKS] == 21


async def test_a_new_key_is_found_and_a_withdrawn_one_is_not_believed_any_more(
    tikti: Tikti, verifying: Verifying
) -> None:
    old = tikti.access_token(ADA, ())
    assert not await verifying.refused(old)
    tikti.rotate("tikti-2")
    new = tikti.access_token(ADA, ())
    verifying.clock.advance(timedelta(seconds=61))
    assert not await verifying.refused(new)
    assert not await verifying.refused(old)
    tikti.rotate("tikti-3", keep=False)
    assert verifying.verifier.remembered(old) is not None
    verifying.clock.advance(timedelta(seconds=301))
    # Old enough to be fetched again: what was remembered is not believed without looking.
    assert verifying.verifier.remembered(old) is None
    assert await verifying.refused(old)
    assert await verifying.refused(new)


async def test_an_outage_keeps_the_known_keys_and_does_not_hammer_the_issuer(
    tikti: Tikti, verifying: Verifying
) -> None:
    assert not await verifying.refused(tikti.access_token(ADA, ()))
    tikti.fail[JWKS] = 503
    verifying.clock.advance(timedelta(seconds=301))
    for _ in range(50):
        assert not await verifying.refused(tikti.access_token(ADA, (), jti=str(uuid.uuid4())))
        assert await verifying.refused(with_key_id(tikti, "unheard"))
    assert tikti.asked[JWKS] == 2
    tikti.fail.clear()
    tikti.rotate("tikti-2")
    verifying.clock.advance(timedelta(seconds=61))
    assert not await verifying.refused(tikti.access_token(ADA, ()))
    assert tikti.asked[JWKS] == 3


async def test_while_no_key_is_known_the_issuer_is_asked_once_a_second(tikti: Tikti, verifying: Verifying) -> None:
    tikti.fail[JWKS] = 500
    token = tikti.access_token(ADA, ())

    async def reason() -> str:
        with pytest.raises(UnavailableError) as caught:
            await verifying.verifier.verify(token)
        return caught.value.reason

    assert {await reason() for _ in range(30)} == {"CS_AUTHN_UNAVAILABLE"}
    assert tikti.asked[JWKS] == 1
    verifying.clock.advance(timedelta(seconds=1.5))
    tikti.fail.clear()
    assert not await verifying.refused(token)


async def test_a_source_that_is_none_is_unavailable(tikti: Tikti) -> None:
    for url in ("http://127.0.0.1:1/keys", "file:///nowhere/keys.json", "", "ftp://x/"):
        with pytest.raises(UnavailableError):
            await Verifying(tikti, jwks_url=url).verifier.verify(tikti.access_token(ADA, ()))


def short_key() -> dict[str, Any]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())), "kid": "short"}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [1, null, {}]}',
        b'{"keys": [{"kty": "RSA", "kid": "a", "n": "!", "e": "AQAB"}]}',
        b'{"keys": [{"kty": "oct", "kid": "tikti-1", "k": "c2VjcmV0"}]}',
        b'{"keys": [{"kty": "RSA", "kid": 7, "n": "AQAB", "e": "AQAB"}]}',
        b"[" * 100_000,
        b" " * 300_000,
        b"\xff",
    ],
    ids=lambda document: str(document[:30]),
)
async def test_a_key_set_that_cannot_be_used_keeps_what_is_known(tikti: Tikti, document: bytes) -> None:
    verifying = Verifying(tikti)
    token = tikti.access_token(ADA, ())
    assert not await verifying.refused(token)
    tikti.answers[JWKS] = document
    verifying.clock.advance(timedelta(seconds=400))
    assert not await verifying.refused(token)
    assert tikti.asked[JWKS] == 2


async def test_a_short_key_and_a_broken_one_are_left_out_and_the_others_serve(
    tikti: Tikti, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = short_key()
    tikti.answers[JWKS] = {
        "keys": [short, {"kty": "RSA", "kid": "broken", "n": "?", "e": ""}, *tikti.key_set()["keys"]]
    }
    verifying = Verifying(tikti)
    assert not await verifying.refused(tikti.access_token(ADA, ()))
    assert await verifying.keys.get("short") is None
    assert await verifying.keys.get("broken") is None
    # The control: without the rule about length the short key would serve.
    monkeypatch.setattr(jwks, "_MIN_KEY_BITS", 512)
    assert await Verifying(tikti).keys.get("short") is not None


async def test_a_remembered_token_is_forgotten_when_it_expires(tikti: Tikti, verifying: Verifying) -> None:
    token = tikti.access_token(ADA, ())
    await verifying.verifier.verify(token)
    assert verifying.verifier.remembered(token) is not None
    verifying.clock.advance(timedelta(seconds=tikti.access_ttl + 6))
    assert verifying.verifier.remembered(token) is None


async def test_no_more_tokens_are_remembered_than_may_be(tikti: Tikti) -> None:
    verifying = Verifying(tikti, token_cache=2)
    made = [tikti.access_token(ADA, ()) for _ in range(3)]
    for token in made:
        await verifying.verifier.verify(token)
    assert [verifying.verifier.remembered(token) is None for token in made] == [True, False, False]
