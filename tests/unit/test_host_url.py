"""URLs of user code are read in one strict way."""

from __future__ import annotations

import pytest

from cs_sandbox.host.url import follow, parse_url
from cs_sandbox.job import HostCallError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://EXAMPLE.com.:443/a?b=c#d", "https://example.com/a?b=c"),
        ("http://example.com:/", "http://example.com/"),
        ("http://example.com:8080?q", "http://example.com:8080/?q"),
        ("https://bücher.example/ü?ö=<>\"'", "https://xn--bcher-kva.example/%C3%BC?%C3%B6=%3C%3E%22'"),
        ("http://a_b.example-1.com/", "http://a_b.example-1.com/"),
        ("http://192.0.2.1:81/", "http://192.0.2.1:81/"),
        ("http://[2001:DB8:0:0::1]:81/", "http://[2001:db8::1]:81/"),
        ("http://[::ffff:192.0.2.1]/", "http://[::ffff:192.0.2.1]/"),
        ("https://h/a%2Fb/%7e/../c;d=e", "https://h/a%2Fb/%7e/../c;d=e"),
    ],
)
def test_a_plain_url_is_read(text: str, expected: str) -> None:
    assert str(parse_url(text)) in (expected, expected.replace("::ffff:192.0.2.1", "::ffff:c000:201"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "//example.com/",
        "http:example.com",
        "http:/example.com",
        "http:///example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:1",
        "http://",
        "http://user@example.com/",
        "http://user:pass@example.com/",
        "http://@example.com/",
        "http://example.com:80:80/",
        "http://example.com:x/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:٨٠/",
        "http://exa mple.com/",
        "http://example.com/a b",
        "http://example.com\\@evil.example/",
        "http://example.com/\r\nx: y",
        "http://example.com\t/",
        "http://exam%70le.com/",
        "http://.example.com/",
        "http://example..com/",
        "http://example.com../",
        "http://-a.example/",
        f"http://{'a' * 64}.example/",
        f"http://{'a.' * 130}example/",
        f"http://example.com/{'a' * 9000}",
        # Addresses in any spelling but the plain one.
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://127.0.0.01/",
        "http://127.0.0.1.1/",
        "http://256.0.0.1/",
        "http://1.2.3.4.5/",
        "http://example.0x/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::1/",
        "http://[v1.x]/",
        "http://[]/",
        "http://::1/",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(HostCallError) as caught:
        parse_url(text)
    assert caught.value.reason == "CS_VALIDATION_FIELD"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/x", "https://example.com/x"),
        ("x?y", "https://example.com/a/x?y"),
        ("//other.example/z", "https://other.example/z"),
        ("http://other.example", "http://other.example/"),
        ("#part", "https://example.com/a/b?c"),
    ],
)
def test_a_redirect_is_read_relative_to_where_it_comes_from(location: str, expected: str) -> None:
    assert str(follow(parse_url("https://example.com/a/b?c"), location)) == expected


@pytest.mark.parametrize("location", ["http:\\\\evil", "//u@evil/", "gopher://evil/", "//[::1", "http://2130706433/"])
def test_a_redirect_to_what_is_no_plain_url_is_refused(location: str) -> None:
    with pytest.raises(HostCallError):
        follow(parse_url("https://example.com/"), location)
