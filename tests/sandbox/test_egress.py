"""Nothing inside is reached by a fetch: every spelling, name and redirect of the corpus is refused, and the canaries,
which listen on every address of this machine, see no connection. The controls show that they would.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_network
from urllib.parse import quote, unquote

import pytest
import pytest_asyncio
from codesous.type.v1.capabilities_pb2 import Capabilities, HttpCapability
from google.protobuf.duration_pb2 import Duration

from cs_sandbox.host.capability import Grants
from cs_sandbox.host.egress import EgressRules
from cs_sandbox.host.fetch import Fetcher, FetchLimits
from cs_sandbox.host.http import HttpCalls
from cs_sandbox.host.url import parse_url
from cs_sandbox.job import HostCallError
from cs_sandbox.local import LocalHostCalls
from tests.support.web_server import LOOPBACK, Canaries, Received, Reply, WebServer, canaries, web_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

SPELLINGS = [
    f"http://{host}:PORT/"
    for host in (
        # Plain, and with other cases, dots and user names around it.
        "127.0.0.1",
        "127.0.0.1.",
        "127.255.255.254",
        "localhost",
        "LocalHost",
        "localhost.",
        "0.0.0.0",
        "user@127.0.0.1",
        "user:pass@127.0.0.1",
        "public.test@127.0.0.1",
        "public.test%40127.0.0.1",
        "public.test:80@127.0.0.1",
        # IPv4 in other bases and lengths.
        "127.1",
        "127.0.1",
        "0",
        "0x0",
        "2130706433",
        "017700000001",
        "0x7f000001",
        "0X7F000001",
        "0x7f.0.0.1",
        "0x7f.0x0.0x0.0x1",
        "0177.0.0.1",
        "0177.0.0.01",
        "00000177.0.0.1",
        "127.0.0.0x1",
        "127.0x00000001",
        # IPv4 in Unicode: full width, circled, ideographic dots.
        "１２７.０.０.１",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "127．0．0．1",
        "ｌｏｃａｌｈｏｓｔ",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
        "local\u00adhost",
        "%31%32%37.0.0.1",
        "%6c%6f%63%61%6c%68%6f%73%74",
        # IPv6, and IPv4 within it.
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[0000:0000:0000:0000:0000:0000:0000:0001]",
        "[::0001]",
        "[::1%25lo]",
        "[::1%lo]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7F00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1:0:0:80ff:fffe]",
        "[fe80::1%25lo]",
    )
] + [
    # What two readers could read in two ways.
    "http://127.0.0.1:PORT\\@public.test/",
    "http://public.test\\@127.0.0.1:PORT/",
    "http://public.test#@127.0.0.1:PORT/",
    "http://public.test?@127.0.0.1:PORT/",
    "http://public.test/@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT#@public.test/",
    "http://127.0.0.1:PORT?@public.test/",
    "http:\\\\127.0.0.1:PORT\\",
    "http:/127.0.0.1:PORT/",
    "http:127.0.0.1:PORT/",
    "http:///127.0.0.1:PORT/",
    "//127.0.0.1:PORT/",
    "http://\t127.0.0.1:PORT/",
    "ht\ntp://127.0.0.1:PORT/",
    " http://127.0.0.1:PORT/",
    "http://127.0.0.1\r\nhost: public.test:PORT/",
    "http://127.0.0.1 :PORT/",
    "HTTP://127.0.0.1:PORT/",
    "https://127.0.0.1:PORT/",
    "http://127.0.0.1:0PORT/",
    "gopher://127.0.0.1:PORT/_x",
    "ftp://127.0.0.1:PORT/",
    "ws://127.0.0.1:PORT/",
    "unix:///run/x.sock",
    "file:///etc/passwd",
]
NAMES = {
    "loopback.test": ["127.0.0.1"],
    "loopback6.test": ["::1"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "nat64.test": ["64:ff9b::7f00:1"],
    "sixtofour.test": ["2002:7f00:1::"],
    "any.test": ["0.0.0.0"],
    "any6.test": ["::"],
    "metadata.test": ["169.254.169.254"],
    "private.test": ["10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "fd00::1"],
    "linklocal.test": ["fe80::1%lo"],
    "multicast.test": ["224.0.0.1", "ff02::1"],
    "127.0.0.1.nip.test": ["127.0.0.1"],
    # What is not there stands for all that is public: nobody outside is bothered by these tests.
    "public.test": [],
}
REFUSALS = {"CS_RUNTIME_CAPABILITY_DENIED", "CS_VALIDATION_FIELD"}
REDIRECT_REFUSALS = {"CS_RUNTIME_CAPABILITY_DENIED", "CS_RUNTIME_FETCH_FAILED"}
ONLY_THE_REDIRECTOR = EgressRules((ip_network(LOOPBACK),))
EVERYWHERE = EgressRules((ip_network("0.0.0.0/0"), ip_network("::/0")))


class Names:
    """Answers for names as a hostile name server would."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.turns: dict[str, list[list[str]]] = {}

    async def resolve(self, host: str) -> list[str]:
        self.asked.append(host)
        if host in self.turns:
            return self.turns[host].pop(0)
        if host == "localhost":
            return ["127.0.0.1", "::1"]
        found = NAMES.get(host, [host] if host[0] in "0123456789:" or ":" in host else [])
        if not found:
            raise OSError("not known")
        return found


def hosts_of(urls: list[str]) -> list[str]:
    """Every host that these URLs can mean: so the capabilities refuse none of them, and only the addresses do."""
    found = {LOOPBACK, *NAMES}
    for url in urls:
        with contextlib.suppress(HostCallError):
            found.add(parse_url(url).host)
    return sorted(found)


Try = Callable[[str], Awaitable[str]]


@contextlib.asynccontextmanager
async def fetching(rules: EgressRules, urls: list[str]) -> AsyncIterator[Try]:
    """Gives what tries a URL: the reason of the refusal, or `reached`."""
    fetcher = Fetcher(rules, FetchLimits(), Names())
    # The control tries addresses that nobody answers for: it need not wait for long.
    granted = HttpCapability(allow_hosts=hosts_of(urls), timeout=Duration(nanos=300_000_000))
    grants = Grants(Capabilities(http=granted))
    calls = HttpCalls(fetcher, "t_test01", grants)

    async def attempt(url: str) -> str:
        try:
            await calls.call("fetch", [url, {}])
        except HostCallError as error:
            return error.reason
        return "reached"

    try:
        yield attempt
    finally:
        await fetcher.close()


@pytest_asyncio.fixture(loop_scope="session")
async def watched() -> AsyncIterator[Canaries]:
    async with canaries() as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def redirector() -> AsyncIterator[WebServer]:
    async def redirect(request: Received) -> Reply:
        status, _, location = request.target.removeprefix("/").partition("/")
        return int(status), [("location", unquote(location))], b""

    async with web_server(redirect) as found:
        yield found


def corpus(port: int) -> list[str]:
    names = [f"http://{name}:PORT/" for name in NAMES if name != "public.test"]
    return [url.replace("PORT", str(port)) for url in SPELLINGS + names]


def through(redirector: WebServer, urls: list[str]) -> list[str]:
    """The same URLs, each behind a redirect of one of the five kinds; every third behind two."""
    found = []
    for number, url in enumerate(urls):
        status = (301, 302, 303, 307, 308)[number % 5]
        target = f"{redirector.url}/{status}/{quote(url, safe='')}"
        if number % 3 == 0:
            target = f"{redirector.url}/302/{quote(target, safe='')}"
        found.append(target)
    return found


async def check_refused(attempt: Try, urls: list[str], watched: Canaries, reasons: set[str]) -> None:
    wrong = {url: reason for url in urls if (reason := await attempt(url)) not in reasons}
    assert watched.connections == 0, wrong
    # `public.test` is not there, and an address that nobody has is not connected to: neither is a way in.
    assert all("public.test" in url and reason == "CS_RUNTIME_FETCH_FAILED" for url, reason in wrong.items()), wrong


async def test_every_spelling_and_name_of_an_address_inside_is_refused(watched: Canaries) -> None:
    urls = corpus(watched.port)
    async with fetching(EgressRules(), urls) as attempt:
        await check_refused(attempt, urls, watched, REFUSALS)


async def test_every_redirect_to_an_address_inside_is_refused(watched: Canaries, redirector: WebServer) -> None:
    urls = corpus(watched.port)
    behind = through(redirector, urls)
    async with fetching(ONLY_THE_REDIRECTOR, urls) as attempt:
        await check_refused(attempt, behind, watched, REDIRECT_REFUSALS)
    assert len(redirector.requests) >= len(behind)


async def test_control_without_the_rules_of_addresses_the_canaries_see_it(
    watched: Canaries, redirector: WebServer
) -> None:
    urls = corpus(watched.port)
    async with fetching(EVERYWHERE, urls) as attempt:
        with pytest.raises(AssertionError):
            await check_refused(attempt, urls, watched, REFUSALS)
        directly = watched.connections
        with pytest.raises(AssertionError):
            await check_refused(attempt, through(redirector, urls), watched, REDIRECT_REFUSALS)
    assert directly >= 10
    assert watched.connections > directly


async def test_control_a_client_that_reads_urls_as_it_likes_is_led_inside_by_odd_spellings(watched: Canaries) -> None:
    def open_plainly(url: str) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with contextlib.suppress(http.client.HTTPException, ValueError, OSError), opener.open(url, timeout=2):
            pass

    refused_by_reading = []
    for url in corpus(watched.port):
        try:
            parse_url(url)
        except HostCallError:
            if url.startswith("http"):
                refused_by_reading.append(url)
    for url in refused_by_reading:
        await asyncio.to_thread(open_plainly, url)
    assert watched.connections >= 10


async def test_the_corpus_is_refused_from_within_a_cell(
    watched: Canaries, redirector: WebServer, run: Callable[..., Awaitable[object]]
) -> None:
    urls = corpus(watched.port)
    behind = through(redirector, urls)
    fetcher = Fetcher(ONLY_THE_REDIRECTOR, FetchLimits(), Names())
    host = LocalHostCalls(Capabilities(http=HttpCapability(allow_hosts=hosts_of(urls))), fetcher=fetcher)
    source = """export default async (urls) => {
      const got = [];
      for (const url of urls) got.push(await fetch(url).then(() => "reached", (e) => e.reason ?? e.name));
      return got;
    }"""
    try:
        outcome = await run(source, event=urls + behind, host=host, wall=50)
    finally:
        await fetcher.close()
    assert outcome.error is None
    assert set(json.loads(outcome.response.body)) <= REFUSALS | REDIRECT_REFUSALS | {"TypeError"}
    assert watched.connections == 0


async def test_a_name_is_looked_up_once_and_the_connection_stays_at_that_answer(
    watched: Canaries, redirector: WebServer
) -> None:
    names = Names()
    names.turns["rebind.test"] = [[LOOPBACK], ["127.0.0.1"], ["127.0.0.1"]]
    fetcher = Fetcher(ONLY_THE_REDIRECTOR, FetchLimits(), names)
    calls = HttpCalls(
        fetcher, "t_test01", Grants(Capabilities(http=HttpCapability(allow_hosts=["rebind.test", LOOPBACK])))
    )
    try:
        answer = await calls.call("fetch", [f"http://rebind.test:{redirector.port}/200/", {}])
        assert answer["status"] == 200
        assert names.asked == ["rebind.test"]
        assert redirector.requests[0].header("host") == f"rebind.test:{redirector.port}"
        # The next connection asks again, and is led inside: refused.
        back = quote(f"http://rebind.test:{watched.port}/", safe="")
        with pytest.raises(HostCallError) as caught:
            await calls.call("fetch", [f"http://rebind.test:{redirector.port}/302/{back}", {}])
        assert caught.value.reason == "CS_RUNTIME_CAPABILITY_DENIED"
    finally:
        await fetcher.close()
    assert watched.connections == 0


async def test_a_redirect_to_a_host_that_is_not_granted_is_denied_by_its_name(redirector: WebServer) -> None:
    fetcher = Fetcher(EVERYWHERE, FetchLimits(), Names())
    calls = HttpCalls(fetcher, "t_test01", Grants(Capabilities(http=HttpCapability(allow_hosts=[LOOPBACK]))))
    try:
        with pytest.raises(HostCallError) as caught:
            await calls.call("fetch", [f"{redirector.url}/302/{quote('http://loopback.test/', safe='')}", {}])
    finally:
        await fetcher.close()
    assert caught.value.reason == "CS_RUNTIME_CAPABILITY_DENIED"
    assert "loopback.test" in caught.value.message
