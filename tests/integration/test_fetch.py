"""Fetches against real servers on loopback: redirects, limits, TLS, and how many go on at once."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import ssl
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from codesous.type.v1.capabilities_pb2 import Capabilities, HttpCapability
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.duration_pb2 import Duration

from cs_sandbox.host.addresses import parse_networks
from cs_sandbox.host.capability import Grants
from cs_sandbox.host.egress import EgressRules
from cs_sandbox.host.fetch import Fetcher, FetchLimits
from cs_sandbox.host.http import HttpCalls
from cs_sandbox.job import HostCallError
from tests.support.waiting import wait_until
from tests.support.web_server import LOOPBACK, Received, Reply, web_server

LIMIT = 10_000
FAILED = "CS_RUNTIME_FETCH_FAILED"


class Names:
    """Every name is the test's server."""

    async def resolve(self, _host: str) -> list[str]:
        return [LOOPBACK]


Open = Callable[..., HttpCalls]


@pytest.fixture
async def open_calls() -> AsyncIterator[Open]:
    """Gives the fetches of a tenant."""
    fetchers: list[Fetcher] = []

    def make(
        *,
        tenant: str = "t_alpha0",
        seconds: float = 20,
        ca_file: str = "",
        fetches: int = 256,
        headers: Sequence[tuple[str, str]] = (),
    ) -> HttpCalls:
        rules = EgressRules(parse_networks([LOOPBACK]))
        fetchers.append(Fetcher(rules, FetchLimits(fetches, LIMIT), Names(), ca_file))
        timeout = Duration()
        timeout.FromTimedelta(datetime.timedelta(seconds=seconds))
        http = HttpCapability(allow_hosts=[LOOPBACK, "*.test"], timeout=timeout)
        return HttpCalls(fetchers[-1], tenant, Grants(Capabilities(http=http)), headers)

    yield make
    for fetcher in fetchers:
        await fetcher.close()


async def fetch(calls: HttpCalls, url: str, **options: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await calls.call("fetch", [url, options])
    return answer


async def refusal(calls: HttpCalls, url: str, **options: Any) -> HostCallError:
    with pytest.raises(HostCallError) as caught:
        await fetch(calls, url, **options)
    return caught.value


async def echo(request: Received) -> Reply:
    """Redirects where the path says, or answers `ok`."""
    kind, _, location = request.target.removeprefix("/").partition("/")
    if kind.isdigit():
        return int(kind), [("location", unquote(location))], b"moved"
    return 200, [("x-odd", "\xe9"), ("set-cookie", "a=1"), ("set-cookie", "b=2")], b"ok"


async def test_a_request_arrives_as_it_was_asked_for(open_calls: Open) -> None:
    async with web_server(echo) as web:
        pairs = [["X-One", " 1 "], ["Cookie", "c=d"], ["Host", "evil"], ["Content-Length", "99"], ["Connection", "x"]]
        answer = await fetch(
            open_calls(), f"http://a.test:{web.port}/p?q=1#f", method="PUT", headers=pairs, text="h\u00e9"
        )
    [seen] = web.requests
    assert (seen.method, seen.target, seen.body) == ("PUT", "/p?q=1", "h\u00e9".encode())
    assert seen.header("host") == f"a.test:{web.port}"
    assert (seen.header("x-one"), seen.header("cookie"), seen.header("content-length")) == ("1", "c=d", "3")
    assert seen.header("connection") is None
    assert [name for name, _ in seen.headers].count("host") == 1
    assert (answer["status"], answer["statusText"], answer["text"]) == (200, "Told", "ok")
    assert ("x-odd", "\xe9") in answer["headers"]
    assert [value for name, value in answer["headers"] if name == "set-cookie"] == ["a=1", "b=2"]


async def test_the_trace_goes_along_unless_user_code_sends_one_of_its_own(open_calls: Open) -> None:
    calls = open_calls(headers=[("traceparent", "ours"), ("tracestate", "a=1")])
    async with web_server(echo) as web:
        await fetch(calls, f"http://a.test:{web.port}/")
        await fetch(calls, f"http://a.test:{web.port}/", headers=[["Traceparent", "theirs"]])
    assert [request.header("traceparent") for request in web.requests] == ["ours", "theirs"]
    assert [request.header("tracestate") for request in web.requests] == ["a=1", "a=1"]


@pytest.mark.parametrize(
    "options",
    [
        {"headers": [["a\r\nb", "1"]]},
        {"headers": [["a", "1\r\nhost: evil"]]},
        {"headers": [["a", "\u20ac"]]},
        {"headers": [["a", "1"]] * 101},
        {"headers": [["a"]]},
        {"method": "CONNECT"},
        {"method": "TRACE"},
        {"method": "GET / HTTP/1.1\r\nx:"},
        {"method": "GET", "text": "x"},
        {"method": "POST", "body": "not base64!"},
        {"redirect": "often"},
    ],
)
async def test_a_request_that_breaks_a_rule_is_not_sent(open_calls: Open, options: dict[str, Any]) -> None:
    async with web_server(echo) as web:
        assert (await refusal(open_calls(), web.url, **options)).reason == "CS_VALIDATION_FIELD"
    assert web.connections == 0


@pytest.mark.parametrize(
    ("status", "method", "becomes"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (301, "PUT", "PUT"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
    ],
)
async def test_a_redirect_keeps_or_changes_the_method(open_calls: Open, status: int, method: str, becomes: str) -> None:
    sent = {} if method == "HEAD" else {"text": "body", "headers": [["content-type", "text/x"], ["x-a", "1"]]}
    async with web_server(echo) as web:
        answer = await fetch(open_calls(), f"{web.url}/{status}//end", method=method, **sent)
    last = web.requests[-1]
    assert (last.method, last.target) == (becomes, "/end")
    assert answer["redirected"]
    assert answer["url"] == f"{web.url}/end"
    if becomes == "GET":
        assert (last.body, last.header("content-type")) == (b"", None)
    elif becomes != "HEAD":
        assert (last.body, last.header("content-type")) == (b"body", "text/x")


async def test_credentials_stay_with_their_origin(open_calls: Open) -> None:
    own = ["authorization", "cookie", "x-api-key", "x-auth-token", "x-amz-security-token", "x-csrf-token"]
    sent = [[name, "s3cret"] for name in own] + [["accept", "text/x"], ["x-request-id", "7"], ["keyword", "k"]]
    async with web_server(echo) as web:
        for there, kept in (("a.test", True), ("b.test", False)):
            target = quote(f"http://{there}:{web.port}/end", safe="")
            await fetch(open_calls(), f"http://a.test:{web.port}/302/{target}", headers=sent)
            last = web.requests[-1]
            assert last.header("host") == f"{there}:{web.port}"
            assert [last.header(name) for name in own] == ["s3cret" if kept else None] * len(own)
            assert (last.header("accept"), last.header("x-request-id"), last.header("keyword")) == ("text/x", "7", "k")


async def test_redirects_end_and_can_be_taken_in_hand(open_calls: Open) -> None:
    async def forever(_request: Received) -> Reply:
        return 302, [("location", "/again")], b""

    async with web_server(forever) as web:
        calls = open_calls()
        assert "redirects" in (await refusal(calls, web.url)).message
        assert len(web.requests) == 11
        assert (await refusal(calls, web.url, redirect="error")).reason == FAILED
        answer = await fetch(calls, web.url, redirect="manual")
        assert (answer["status"], dict(answer["headers"])["location"]) == (302, "/again")


def bomb(size: int) -> bytes:
    return gzip.compress(b"\0" * size)


@pytest.mark.parametrize(
    ("encoding", "body", "expected"),
    [
        ("gzip", gzip.compress(b"hello"), "hello"),
        ("x-gzip", gzip.compress(b"hel") + gzip.compress(b"lo"), "hello"),
        ("deflate", zlib.compress(b"hello"), "hello"),
        ("deflate", zlib.compress(b"hello")[2:-4], "hello"),
        ("identity", b"hello", "hello"),
        ("br", b"hello", "hello"),
        ("gzip", b"", ""),
        ("gzip", gzip.compress(b"x" * LIMIT), "x" * LIMIT),
        ("gzip", bomb(LIMIT + 1), None),
        ("gzip", bomb(50_000_000), None),
        ("deflate", zlib.compress(b"\0" * 50_000_000), None),
        ("identity", b"x" * (LIMIT + 1), None),
        ("gzip", gzip.compress(b"hello")[:-5], None),
        ("gzip", b"no gzip at all", None),
    ],
    ids=[
        *("gzip", "two members", "deflate", "bare deflate", "identity", "unknown", "empty", "at the limit"),
        *("over the limit", "gzip bomb", "deflate bomb", "too long", "cut short", "no gzip"),
    ],
)
async def test_an_answer_is_decoded_within_its_limit(
    open_calls: Open, encoding: str, body: bytes, expected: str | None
) -> None:
    async def encoded(_request: Received) -> Reply:
        return 200, [("content-encoding", encoding)], body

    async with web_server(encoded) as web:
        if expected is None:
            assert (await refusal(open_calls(), web.url)).reason == FAILED
        else:
            assert (await fetch(open_calls(), web.url))["text"] == expected


async def test_a_body_without_a_length_is_cut_off_at_its_limit(open_calls: Open) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 1000)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(endless, LOOPBACK, 0)
    async with server:
        error = await refusal(open_calls(), f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}/")
    assert f"over {LIMIT} bytes" in error.message


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    ],
)
async def test_an_answer_that_is_none_fails_without_details(open_calls: Open, raw: bytes) -> None:
    async def reply(_request: Received) -> bytes:
        return raw

    async with web_server(reply) as web:
        error = await refusal(open_calls(), f"http://a.test:{web.port}/")
    assert error.reason == FAILED
    assert LOOPBACK not in error.message


async def test_nobody_there_is_told_without_the_address(open_calls: Open) -> None:
    async with web_server(echo) as web:
        port = web.port
    error = await refusal(open_calls(), f"http://a.test:{port}/")
    assert (error.reason, LOOPBACK in error.message) == (FAILED, False)


async def silence(_request: Received) -> Reply:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_fetch_ends_at_its_time_limit(open_calls: Open) -> None:
    async with web_server(silence) as web:
        began = time.monotonic()
        error = await refusal(open_calls(seconds=0.2), web.url)
        assert "longer than 0.2 s" in error.message
        assert time.monotonic() - began < 10


async def test_an_aborted_fetch_lets_go_of_its_connection(open_calls: Open) -> None:
    calls = open_calls(fetches=1)
    async with web_server(silence) as web:
        hanging = asyncio.create_task(refusal(calls, web.url, id=7))
        await wait_until(lambda: len(web.requests) == 1)
        assert (await refusal(calls, web.url)).reason == "CS_RATE_LIMITED"
        await calls.call("abort", [8])
        assert not hanging.done()
        await calls.call("abort", [7])
        assert "aborted" in (await hanging).message
        again = asyncio.create_task(refusal(calls, web.url, id=9))
        await wait_until(lambda: len(web.requests) == 2)
        await calls.call("abort", [9])
        await again


async def test_a_cancelled_activation_takes_its_fetches_along(open_calls: Open) -> None:
    calls = open_calls(fetches=1)
    async with web_server(silence) as web:
        hanging = asyncio.create_task(fetch(calls, web.url))
        await wait_until(lambda: len(web.requests) == 1)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)

        async def free() -> bool:
            return (await refusal(open_for(calls), web.url)).reason == FAILED

        def open_for(known: HttpCalls) -> HttpCalls:
            timeout = Duration(nanos=100_000_000)
            http = HttpCapability(allow_hosts=[LOOPBACK], timeout=timeout)
            return HttpCalls(known._fetcher, "t_alpha0", Grants(Capabilities(http=http)))

        await wait_until(free)


async def test_200_fetches_of_one_tenant_are_in_flight_at_once_in_one_loop_without_threads(open_calls: Open) -> None:
    all_there = asyncio.Event()
    threads: list[int] = []

    async def wait_for_all(_request: Received) -> Reply:
        # Nobody is answered before all have asked: with fewer in flight than 200 this would never end.
        if len(web.requests) == 201:
            threads.append(threading.active_count())
            all_there.set()
        await all_there.wait()
        return 200, [], b"ok"

    async def at_once(_request: Received) -> Reply:
        return 200, [], b"ok"

    async with web_server(at_once) as web:
        calls = open_calls()
        await fetch(calls, web.url)
        web.handler = wait_for_all
        before = threading.active_count()
        answers = await asyncio.gather(*(fetch(calls, web.url) for _ in range(200)))
    assert [answer["status"] for answer in answers] == [200] * 200
    assert threads[0] <= before


async def test_tenants_have_connections_and_numbers_of_their_own(open_calls: Open) -> None:
    async with web_server(echo) as web:
        calls = open_calls(fetches=1)
        other = HttpCalls(calls._fetcher, "t_beta00", calls._grants)
        for each in (calls, calls, other, other):
            await fetch(each, web.url)
        assert web.connections == 2
    async with web_server(silence) as web:
        hanging = asyncio.create_task(refusal(calls, web.url, id=1))
        await wait_until(lambda: len(web.requests) == 1)
        second = asyncio.create_task(refusal(other, web.url, id=1))
        await wait_until(lambda: len(web.requests) == 2)
        await calls.call("abort", [1])
        await other.call("abort", [1])
        await asyncio.gather(hanging, second)


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's certificate for `name`, and the file that makes it trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = folder / "cert.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = folder / "key.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public


async def test_tls_keeps_the_name_although_the_connection_goes_to_a_number(open_calls: Open, tmp_path: Path) -> None:
    context, public = certificate(tmp_path, "secure.test")
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with web_server(echo, context) as web:
        answer = await fetch(open_calls(ca_file=str(public)), f"https://secure.test:{web.port}/")
        assert answer["text"] == "ok"
        assert asked == ["secure.test"]
        assert web.requests[0].header("host") == f"secure.test:{web.port}"
        wrong = await refusal(open_calls(ca_file=str(public)), f"https://other.test:{web.port}/")
        unknown = await refusal(open_calls(), f"https://secure.test:{web.port}/")
    assert "certificate" in wrong.message
    assert "certificate" in unknown.message
    assert len(web.requests) == 1
