"""What one version may reach that another may not: which pattern covers which."""

from __future__ import annotations

from typing import Any

import pytest
from codesous.control.v1.version_pb2 import Version
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from cs_control.capabilities import covers_host, covers_prefix, covers_topic
from cs_control.capability_diff import beyond, diff_versions, listed, reach_of


def version(number: int, **capabilities: Any) -> Version:
    return ParseDict({"version": number, "config": {"capabilities": capabilities}}, Version())


def hosts(*allowed: str) -> dict[str, Any]:
    return {"http": {"allowHosts": list(allowed)}}


def topics(*allowed: str) -> dict[str, Any]:
    return {"codeq": {"publishTopics": list(allowed)}}


def keys(prefixes: list[str], *operations: str) -> dict[str, Any]:
    return {"kv": {"prefixes": prefixes, "operations": [f"KV_OPERATION_{name}" for name in operations]}}


@pytest.mark.parametrize(
    ("before", "after", "added"),
    [
        (hosts("a.example.com"), hosts("a.example.com"), {}),
        (hosts("*.example.com"), hosts("a.example.com", "b.c.example.com", "*.c.example.com"), {}),
        (hosts("a.example.com"), hosts("*.example.com"), {"hosts": "*.example.com"}),
        (hosts("*.example.com"), hosts("example.com"), {"hosts": "example.com"}),
        (hosts("*.example.com"), hosts("evilexample.com"), {"hosts": "evilexample.com"}),
        (hosts("*.example.com"), hosts("a.example.com.evil.com"), {"hosts": "a.example.com.evil.com"}),
        (hosts("a.com", "b.com"), hosts("b.com", "c.com", "a.com"), {"hosts": "c.com"}),
        ({}, hosts("a.com"), {"hosts": "a.com"}),
        (hosts("a.com"), {}, {}),
        (topics("orders"), topics("orders"), {}),
        (topics("orders*"), topics("orders", "orders.eu", "orders.*"), {}),
        (topics("orders"), topics("orders*"), {"topics": "orders*"}),
        (topics("orders.*"), topics("order*"), {"topics": "order*"}),
        (topics("*"), topics("any*", "thing"), {}),
        (topics("any*"), topics("*"), {"topics": "*"}),
        (keys(["a/"], "GET"), keys(["a/b/"], "GET"), {}),
        (keys(["a/b/"], "GET"), keys(["a/"], "GET"), {"key_prefixes": "a/"}),
        (keys(["a/"], "GET"), keys(["a/"], "GET", "SET"), {"key_operations": "set"}),
        (keys(["a/"], "GET", "SET"), keys(["b/"], "GET"), {"key_prefixes": "b/"}),
        # Prefixes without an operation, and operations without a prefix, are nothing.
        (keys(["a/"]), keys(["a/"], "GET"), {"key_prefixes": "a/", "key_operations": "get"}),
        ({}, keys(["a/"]), {}),
        ({}, keys([], "GET", "SET"), {}),
        ({"secrets": ["one"]}, {"secrets": ["one", "two"]}, {"secrets": "two"}),
        ({"secrets": ["stripe"]}, {"secrets": ["stripe*"]}, {"secrets": "stripe*"}),
    ],
)
def test_what_is_new(before: dict[str, Any], after: dict[str, Any], added: dict[str, str]) -> None:
    diff = diff_versions(version(1, **before), version(2, **after))
    assert (diff.from_version, diff.to_version) == (1, 2)
    assert listed(diff.added) == added
    assert diff.HasField("added") is bool(added)
    # The other way round it is what is gone.
    assert listed(diff_versions(version(2, **after), version(1, **before)).removed) == added


def test_compared_with_nothing_all_is_new() -> None:
    wide = {**hosts("a.com"), **topics("t*"), **keys(["k"], "GET"), "secrets": ["s"]}
    diff = diff_versions(None, version(7, **wide))
    assert (diff.from_version, diff.to_version) == (0, 7)
    assert listed(diff.added) == {
        "hosts": "a.com",
        "topics": "t*",
        "key_prefixes": "k",
        "key_operations": "get",
        "secrets": "s",
    }
    assert not diff_versions(None, version(7)).HasField("added")


def test_a_version_whose_egress_is_only_reported_reaches_every_host() -> None:
    reporting = version(2, **hosts("a.com"))
    reporting.config.egress_report_only = True
    assert listed(diff_versions(version(1, **hosts("a.com")), reporting).added) == {"hosts": "*"}
    assert listed(diff_versions(reporting, version(3, **hosts("any.com"))).added) == {}
    assert listed(diff_versions(reporting, version(3, **hosts("any.com"))).removed) == {"hosts": "*"}


LABEL = st.text("ab", min_size=1, max_size=2)
NAME = st.lists(LABEL, min_size=1, max_size=3).map(".".join)
HOST = NAME | NAME.map(lambda name: f"*.{name}")
TOPIC = st.text("ab.", max_size=4).map(lambda text: f"a{text}") | st.text("ab", max_size=3).map(lambda text: f"{text}*")


def means_host(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def means_topic(pattern: str, topic: str) -> bool:
    return topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern


@given(wide=HOST, narrow=HOST, host=NAME)
def test_a_covered_host_pattern_means_no_host_that_the_other_does_not(wide: str, narrow: str, host: str) -> None:
    if covers_host(wide, narrow) and means_host(narrow, host):
        assert means_host(wide, host)


@given(wide=TOPIC, narrow=TOPIC, topic=st.text("ab.", min_size=1, max_size=6))
def test_a_covered_topic_pattern_means_no_topic_that_the_other_does_not(wide: str, narrow: str, topic: str) -> None:
    if covers_topic(wide, narrow) and means_topic(narrow, topic):
        assert means_topic(wide, topic)


@given(
    wide=st.text("ab", min_size=1, max_size=3),
    narrow=st.text("ab", min_size=1, max_size=3),
    key=st.text("ab", max_size=5),
)
def test_a_covered_prefix_means_no_key_that_the_other_does_not(wide: str, narrow: str, key: str) -> None:
    if covers_prefix(wide, narrow) and key.startswith(narrow):
        assert key.startswith(wide)


@given(patterns=st.lists(HOST, max_size=4))
def test_nothing_is_new_to_itself(patterns: list[str]) -> None:
    reach = reach_of(version(1, **hosts(*patterns)).config)
    assert listed(beyond(reach, reach)) == {}
