"""Secrets that were read are taken out of texts, in the forms that code gives them."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cs_sandbox.host.redaction import MARK, VALUES_MAX, Redactor, Redactors


def knowing(*values: str) -> Redactor:
    redactor = Redactor()
    for value in values:
        redactor.learn(value)
    return redactor


@pytest.mark.parametrize("value", ["s3cret-value", 'qu"o\\te\n', "päss/wörd+ =&", "四文字長い"])
def test_every_form_of_a_value_is_found(value: str) -> None:
    redactor, raw = knowing(value), value.encode()
    for form in (value, json.dumps(value), json.dumps(json.dumps(value)), quote(value, safe=""), raw.hex()):
        clean = redactor.text(f"before {form} after")
        assert MARK in clean
        assert form.strip('"') not in clean
        assert clean.startswith("before ")
        assert clean.endswith(" after")


@given(st.binary(max_size=9), st.text(st.characters(codec="utf-8"), min_size=6, max_size=30), st.binary(max_size=9))
def test_a_value_is_found_within_base64_wherever_it_begins(lead: bytes, value: str, tail: bytes) -> None:
    whole = lead + value.encode() + tail
    for text in (base64.b64encode(whole).decode(), base64.urlsafe_b64encode(whole).decode()):
        assert MARK in knowing(value).text(text)


def test_a_value_within_another_leaves_nothing_of_it() -> None:
    assert knowing("token", "token-and-more").text("a token-and-more b token") == f"a {MARK} b {MARK}"


def test_values_too_short_to_be_secret_are_left() -> None:
    assert knowing("", "a", "abc").text("a abc") == "a abc"


def test_a_version_has_one_redactor_for_all_its_activations() -> None:
    redactors = Redactors(most=2)
    redactors.of("a").learn("s3cret-value")
    assert redactors.of("a").text("s3cret-value") == MARK
    assert redactors.of("b").text("s3cret-value") == "s3cret-value"
    redactors.of("c")
    assert redactors.of("a").text("s3cret-value") == "s3cret-value"


def test_only_so_many_values_are_remembered_the_newest_of_them() -> None:
    redactor = knowing(*(f"value-{number:04}" for number in range(VALUES_MAX + 1)))
    assert redactor.text(f"value-0000 value-{VALUES_MAX:04}") == f"value-0000 {MARK}"


def test_without_a_secret_nothing_is_touched() -> None:
    assert Redactor().text("anything") == "anything"
