"""Asking the issuer about tokens: both kinds of answers, what is remembered, and what an outage means."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cs_core.clock import ManualClock
from cs_core.config import IamSettings, SettingsError, load_settings
from cs_core.errors import AuthenticationError, CodeSousError
from cs_core.iam.open import open_verifier
from cs_core.iam.tokens import TokenVerifier
from tests.support.tikti import API_KEY, AUDIENCE, Tikti, User

INTROSPECT, LOOKUP = "/oauth/introspect", "/v1/accounts/lookup"
INVALID, EXPIRED, AWAY = "CS_AUTHN_TOKEN_INVALID", "CS_AUTHN_TOKEN_EXPIRED", "CS_AUTHN_UNAVAILABLE"


@pytest.fixture
def tikti() -> Iterator[Tikti]:
    tikti = Tikti()
    yield tikti
    tikti.close()


@pytest.fixture
def ada(tikti: Tikti) -> User:
    return tikti.add(User("ada@example.com", "secret", "t_alpha0", "ADMIN", scopes=("cs:function:read",)))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@asynccontextmanager
async def asking(tikti: Tikti, clock: ManualClock, path: str, **changed: Any) -> AsyncIterator[TokenVerifier]:
    settings = IamSettings.model_validate(
        {
            "mode": "introspection",
            "issuer": tikti.url,
            "audience": AUDIENCE,
            "introspection_url": tikti.url + path,
            "introspection_style": "lookup" if path == LOOKUP else "rfc7662",
            "introspection_secret": API_KEY,
            **changed,
        }
    )
    verifier = open_verifier(settings, clock)
    try:
        yield verifier
    finally:
        await verifier.close()


async def reason(verifier: TokenVerifier, token: str) -> str:
    try:
        await verifier.verify(token)
    except CodeSousError as error:
        return error.reason
    return "accepted"


async def test_an_active_token_becomes_a_principal(tikti: Tikti, ada: User, clock: ManualClock) -> None:
    token = tikti.access_token(ada, ("cs:function:read",), role=["admin", "ops"])
    async with asking(tikti, clock, INTROSPECT) as verifier:
        principal = await verifier.verify(token)
    assert (principal.subject, principal.tenant) == (ada.id, "t_alpha0")
    assert (list(principal.roles), list(principal.scopes)) == (["admin", "ops"], ["cs:function:read"])


async def test_a_looked_up_user_becomes_a_principal(tikti: Tikti, ada: User, clock: ManualClock) -> None:
    async with asking(tikti, clock, LOOKUP) as verifier:
        principal = await verifier.verify(tikti.identity_token(ada))
        assert (principal.subject, principal.tenant, list(principal.roles)) == (ada.id, "t_alpha0", ["ADMIN"])
        ada.status = "SUSPENDED"
        assert (
            await reason(verifier, tikti.identity_token(User("ada@example.com", "", "t_alpha0", id=ada.id))) == INVALID
        )


async def test_what_the_issuer_does_not_know_is_refused(tikti: Tikti, ada: User, clock: ManualClock) -> None:
    now = int(time.time())
    revoked = tikti.access_token(ada, ())
    tikti.revoked.add(revoked)
    async with asking(tikti, clock, INTROSPECT) as verifier:
        assert await reason(verifier, "opaque-and-unheard-of") == INVALID
        assert await reason(verifier, revoked) == INVALID
        assert await reason(verifier, tikti.access_token(ada, (), exp=now - 60)) == EXPIRED
        assert await reason(verifier, tikti.access_token(ada, (), tid="nope")) == INVALID
    async with asking(tikti, clock, LOOKUP) as verifier:
        assert await reason(verifier, "opaque-and-unheard-of") == INVALID


@pytest.mark.parametrize("path", [INTROSPECT, LOOKUP])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"active": "true", "sub": "a", "tid": "t_alpha0"}, INVALID),
        ({"active": 1, "sub": "a", "tid": "t_alpha0"}, INVALID),
        ({"active": True}, INVALID),
        ({"active": True, "sub": "a", "tid": "t_alpha0"}, "accepted"),
        ({"active": True, "sub": "a", "tid": "t_alpha0", "role": None, "exp": 9_999_999_999}, "accepted"),
        ({"active": True, "sub": "a", "tid": "t_alpha0", "aud": "other"}, INVALID),
        ({"active": True, "sub": "a", "tid": "t_alpha0", "iss": "https://evil.example"}, INVALID),
        ({"active": True, "sub": "a", "tid": "t_alpha0", "exp": 1}, EXPIRED),
        ({"active": True, "sub": "a", "tid": "t_alpha0", "exp": "soon"}, INVALID),
        ({"active": True, "sub": "a", "tid": ["t_alpha0"]}, INVALID),
        ({"active": True, "sub": "a", "tid": "t_alpha0", "role": {"admin": True}}, INVALID),
        (b'{"active": false, "active": true, "sub": "a", "tid": "t_alpha0"}', AWAY),
        ({"users": [{"localId": "a", "tenantId": "t_alpha0"}]}, "accepted"),
        ({"users": [{"localId": "a", "tenantId": "t_alpha0", "status": "ACTIVE", "role": "ADMIN"}]}, "accepted"),
        ({"users": [{"localId": "a", "tenantId": "t_alpha0", "status": "INACTIVE"}]}, INVALID),
        ({"users": [{"localId": "a"}]}, INVALID),
        ({"users": [{"tenantId": "t_alpha0"}]}, INVALID),
        ({"users": []}, INVALID),
        ({"users": [{"localId": "a", "tenantId": "t_alpha0"}] * 2}, INVALID),
        ({"users": "a"}, INVALID),
        ({"users": [7]}, INVALID),
        ({}, INVALID),
        (b"[]", AWAY),
        (b"not json", AWAY),
        (b"[" * 50_000, AWAY),
        (b" " * 100_000, AWAY),
        (b"", AWAY),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_either_kind_of_answer_is_understood_and_odd_ones_are_refused(
    tikti: Tikti, clock: ManualClock, path: str, answer: Any, expected: str
) -> None:
    tikti.answers[path] = answer
    async with asking(tikti, clock, path) as verifier:
        assert await reason(verifier, "opaque") == expected


async def test_an_answer_is_believed_for_a_while_and_never_past_the_tokens_end(
    tikti: Tikti, ada: User, clock: ManualClock
) -> None:
    long, short = tikti.access_token(ada, ()), tikti.access_token(ada, (), exp=int(time.time()) + 10)
    async with asking(tikti, clock, INTROSPECT, introspection_ttl=60) as verifier:
        for _ in range(3):
            assert await reason(verifier, long) == "accepted"
            assert await reason(verifier, short) == "accepted"
        assert tikti.asked[INTROSPECT] == 2
        tikti.revoked.add(long)
        clock.advance(timedelta(seconds=16))
        assert verifier.remembered(short) is None
        assert await reason(verifier, long) == "accepted"
        clock.advance(timedelta(seconds=45))
        assert await reason(verifier, long) == INVALID
        assert tikti.asked[INTROSPECT] == 3


async def test_a_refusal_is_remembered_for_a_moment(tikti: Tikti, clock: ManualClock) -> None:
    async with asking(tikti, clock, INTROSPECT) as verifier:
        for _ in range(20):
            assert await reason(verifier, "opaque") == INVALID
        assert tikti.asked[INTROSPECT] == 1
        clock.advance(timedelta(seconds=6))
        assert await reason(verifier, "opaque") == INVALID
        assert tikti.asked[INTROSPECT] == 2


async def test_many_callers_with_one_token_ask_once(tikti: Tikti, ada: User, clock: ManualClock) -> None:
    tikti.delay = 0.2
    token = tikti.access_token(ada, ())
    async with asking(tikti, clock, INTROSPECT) as verifier:
        first = asyncio.create_task(verifier.verify(token))
        others = [asyncio.create_task(verifier.verify(token)) for _ in range(50)]
        principals = await asyncio.gather(first, *others)
    assert {principal.subject for principal in principals} == {ada.id}
    assert tikti.asked[INTROSPECT] == 1


async def test_a_caller_that_goes_away_does_not_take_the_others_with_it(
    tikti: Tikti, ada: User, clock: ManualClock
) -> None:
    tikti.delay = 0.2
    token = tikti.access_token(ada, ())
    async with asking(tikti, clock, INTROSPECT) as verifier:
        first = asyncio.create_task(verifier.verify(token))
        other = asyncio.create_task(verifier.verify(token))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        assert (await other).subject == ada.id


@pytest.mark.parametrize(
    ("status", "path", "expected"),
    [
        (401, INTROSPECT, AWAY),
        (403, INTROSPECT, AWAY),
        (500, INTROSPECT, AWAY),
        (429, INTROSPECT, AWAY),
        (302, INTROSPECT, AWAY),
        (401, LOOKUP, INVALID),
        (403, LOOKUP, INVALID),
        (428, LOOKUP, INVALID),
        (503, LOOKUP, AWAY),
        (429, LOOKUP, AWAY),
    ],
)
async def test_statuses_of_the_issuer(
    tikti: Tikti, ada: User, clock: ManualClock, status: int, path: str, expected: str
) -> None:
    """By RFC 7662 a 401 says that our own credentials are wrong: the caller is not to blame."""
    tikti.fail[path] = status
    async with asking(tikti, clock, path) as verifier:
        assert await reason(verifier, tikti.access_token(ada, ())) == expected


async def test_an_outage_refuses_the_unknown_and_keeps_the_known(tikti: Tikti, ada: User, clock: ManualClock) -> None:
    known, unknown = tikti.access_token(ada, ()), tikti.access_token(ada, ())
    async with asking(tikti, clock, INTROSPECT) as verifier:
        assert await reason(verifier, known) == "accepted"
        tikti.fail[INTROSPECT] = 503
        assert await reason(verifier, unknown) == AWAY
        assert await reason(verifier, known) == "accepted"
        tikti.fail.clear()
        assert await reason(verifier, unknown) == "accepted"
    async with asking(tikti, clock, INTROSPECT, introspection_url="http://127.0.0.1:1/") as verifier:
        assert await reason(verifier, unknown) == AWAY


async def test_no_more_questions_are_asked_at_once_than_may_be(tikti: Tikti, clock: ManualClock) -> None:
    tikti.delay = 0.05
    running, most = 0, 0
    answer = tikti.answer

    def counted(*request: Any) -> Any:
        return answer(*request)

    tikti.answer = counted  # type: ignore[method-assign]
    async with asking(tikti, clock, INTROSPECT, introspection_concurrency=2) as verifier:
        source: Any = verifier._source
        post = source._post

        async def watched(token: str) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                return await post(token)
            finally:
                running -= 1

        source._post = watched
        await asyncio.gather(*(reason(verifier, f"opaque-{number}") for number in range(12)))
    assert most == 2


def test_the_mode_needs_an_address_and_hides_its_secret() -> None:
    with pytest.raises(SettingsError, match="introspection_url"):
        load_settings(None, {"CS_IAM__MODE": "introspection"})
    settings = load_settings(
        None,
        {
            "CS_IAM__MODE": "introspection",
            "CS_IAM__INTROSPECTION_URL": "http://127.0.0.1:1/",
            "CS_IAM__INTROSPECTION_SECRET": "very-secret",
        },
    )
    assert "very-secret" not in str(settings.redacted())
    assert "very-secret" not in repr(settings)


async def test_the_issuer_never_sees_what_is_no_token(tikti: Tikti, clock: ManualClock) -> None:
    async with asking(tikti, clock, INTROSPECT) as verifier:
        for token in ("", "two words", "a\nb", "é", "x" * 17_000):
            with pytest.raises(AuthenticationError):
                await verifier.verify(token)
    assert tikti.asked[INTROSPECT] == 0
