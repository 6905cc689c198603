"""The way of verifying tokens that the settings choose."""

from __future__ import annotations

from cs_core.clock import Clock
from cs_core.config import IamSettings
from cs_core.iam.introspection import Introspection
from cs_core.iam.jwks import KeySet
from cs_core.iam.signed import SignedTokens
from cs_core.iam.tokens import TokenSource, TokenVerifier


def open_verifier(settings: IamSettings, clock: Clock) -> TokenVerifier:
    """Make the verifier; nothing is fetched yet. Its `close` lets go of connections."""
    return TokenVerifier(_source(settings, clock), clock, settings.token_cache)


def _source(settings: IamSettings, clock: Clock) -> TokenSource:
    if settings.mode == "introspection":
        return Introspection(settings, clock)
    keys = KeySet(settings.jwks_url, settings.jwks_refresh, clock, settings.jwks_max_age)
    return SignedTokens(settings, keys, clock)
