"""Addresses: only what belongs to the public internet passes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cs_sandbox.host.addresses import is_public
from cs_sandbox.host.egress import EgressRules, enforce
from cs_sandbox.job import HostCallError

PUBLIC = """
8.8.8.8 1.1.1.1 172.15.255.255 172.32.0.0 100.63.255.255 100.128.0.0 223.255.255.255
2606:4700:4700::1111 2a00:1450:4001:81b::200e
::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1 2001:0:808:808:0:0:f7f7:f7f7
"""
INSIDE = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.8
192.0.0.170 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1
239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::7f00:1 ::a9fe:a9fe ::ffff:127.0.0.1 ::ffff:0:0 ::ffff:10.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::7f00:1
64:ff9b::a9fe:a9fe 64:ff9b:1::1 64:ff9b:1::808:808 100::1 2001::1 2001:2::1 2001:10::1 2001:20::1 2001:1ff::1
2001:db8::1 3fff::1 2002:7f00:1::1 2002:a9fe:a9fe:: 2002:a00:1::1 2001:0:7f00:1:0:0:f7f7:f7f7
2001:0:808:808:0:0:80ff:fffe 2a00::5efe:7f00:1 2a00::200:5efe:a00:1 5f00::1 fc00::1 fd00::1 fd00:ec2::254 fe80::1
fec0::1 ff02::1 ff0e::1 4000::1 e000::1
"""


@pytest.mark.parametrize("text", PUBLIC.split())
def test_public_addresses_pass(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", INSIDE.split())
def test_every_other_address_is_refused(text: str) -> None:
    assert not is_public(ip_address(text))


@given(st.integers(0, 2**32 - 1))
def test_an_address_within_an_address_is_judged_like_itself(bits: int) -> None:
    alone = is_public(ip_address(bits))
    carriers = [
        0xFFFF << 32 | bits,
        0x64FF9B << 96 | bits,
        0x2002 << 112 | bits << 80,
        0x20010000 << 96 | bits << 64 | 0xF7F7F7F7,
    ]
    assert [is_public(ip_address(carrier)) for carrier in carriers] == [alone] * 4


def test_only_the_addresses_that_pass_are_connected_to() -> None:
    verdict = EgressRules().judge("mixed.example", 443, ["10.0.0.1", "8.8.8.8", "fe80::1%eth0", "::1"])
    assert verdict.allowed
    assert [str(address) for address in verdict.addresses] == ["8.8.8.8"]


def test_a_refusal_names_the_capability_and_the_host_and_no_address() -> None:
    verdict = EgressRules().judge("inside.example", 80, ["10.1.2.3"])
    with pytest.raises(HostCallError) as caught:
        enforce(verdict)
    assert caught.value.reason == "CS_RUNTIME_CAPABILITY_DENIED"
    assert "capability http" in caught.value.message
    assert "inside.example" in caught.value.message
    assert "10.1.2.3" not in caught.value.message


@pytest.mark.parametrize("port", [22, 25, 6379 - 2, 6667])
def test_ports_of_other_protocols_are_refused(port: int) -> None:
    blocked = EgressRules().judge("a.example", port, ["8.8.8.8"])
    assert blocked.allowed == (port == 6377)


def test_networks_may_be_opened_and_closed_by_the_operator() -> None:
    rules = EgressRules((ip_network("127.0.0.0/8"),), (ip_network("8.8.0.0/16"), ip_network("127.0.0.9/32")))
    assert rules.judge("a", 80, ["127.0.0.1"]).allowed
    assert not rules.judge("a", 80, ["10.0.0.1"]).allowed
    assert not rules.judge("a", 80, ["8.8.8.8"]).allowed
    assert not rules.judge("a", 80, ["::ffff:8.8.8.8"]).allowed
    assert not rules.judge("a", 80, ["127.0.0.9"]).allowed
