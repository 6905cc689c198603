"""Fetch, and the names that belong to it, as user code finds them."""

import asyncio
import json

import pytest
from codesous.type.v1.activation_status_pb2 import ACTIVATION_STATUS_SUCCESS

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def value(run, expression, **options):
    outcome = await run(f"export default async (event, ctx) => ({expression})", **options)
    assert outcome.status == ACTIVATION_STATUS_SUCCESS, outcome.error
    return json.loads(outcome.response.body)


class Web:
    """Answers fetches, and keeps what was asked."""

    def __init__(self, **answer):
        self.asked = []
        self.aborted = []
        self.answer = {
            "status": 200,
            "statusText": "OK",
            "url": "https://h/",
            "redirected": False,
            "headers": [],
        } | answer

    async def call(self, method, arguments):
        if method == "http.abort":
            self.aborted.append(arguments[0])
            return None
        assert method == "http.fetch"
        self.asked.append(arguments)
        if "hang" in arguments[0]:
            await asyncio.Event().wait()
        return self.answer


async def test_fetch_gives_a_response(run):
    web = Web(
        status=404,
        statusText="no",
        url="https://h/q",
        redirected=True,
        headers=[["x-a", "1"], ["set-cookie", "a=1"], ["set-cookie", "b=2"]],
        text='{"a": "é"}',
    )
    got = await value(
        run,
        "(async () => { const r = await fetch('https://h/p', {method: 'post', headers: {A: 'b'}, body: 'hi'});"
        " return [r instanceof Response, r.status, r.statusText, r.ok, r.redirected, r.url, r.type,"
        " r.headers.get('X-A'), r.headers.getSetCookie(), await r.clone().text(), await r.json(), r.bodyUsed] })()",
        host=web,
    )
    assert got[:9] == [True, 404, "no", False, True, "https://h/q", "basic", "1", ["a=1", "b=2"]]
    assert got[9:] == ['{"a": "é"}', {"a": "é"}, True]
    asked = {"id": 1, "method": "POST", "redirect": "follow", "text": "hi"}
    assert web.asked == [
        ["https://h/p", {**asked, "headers": [["a", "b"], ["content-type", "text/plain;charset=UTF-8"]]}]
    ]


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ("{}", {"method": "GET"}),
        ("{method: 'DELETE', redirect: 'manual'}", {"method": "DELETE", "redirect": "manual"}),
        ("{method: 'PUT', body: new Uint8Array([0, 255])}", {"body": "AP8="}),
        ("{method: 'PUT', body: new Uint8Array([0, 255]).buffer}", {"body": "AP8="}),
        ("{method: 'POST', body: new URLSearchParams({a: 'b c'})}", {"text": "a=b+c"}),
        ("{headers: new Headers([['B', '2'], ['a', '1'], ['b', '3']])}", {"headers": [["a", "1"], ["b", "2, 3"]]}),
    ],
)
async def test_a_request_is_sent_as_it_was_asked_for(run, options, sent):
    web = Web(text="")
    for call in (f"fetch('https://h/', {options})", f"fetch(new Request('https://h/', {options}))"):
        assert await value(run, f"{call}.then((r) => r.ok)", host=web)
        assert sent.items() <= web.asked[-1][1].items()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("fetch('https://h/', {body: 'x'})", "TypeError"),
        ("fetch('https://h/', {method: 'POST', body: {a: 1}})", "TypeError"),
        ("fetch('https://h/', {headers: {'a b': '1'}})", "TypeError"),
        ("fetch('https://h/', {headers: {a: 'x\\ny'}})", "TypeError"),
        ("fetch('https://h/').then((r) => r.text().then(() => r.text()))", "TypeError"),
        ("fetch('https://h/', {signal: AbortSignal.abort()})", "AbortError"),
    ],
)
async def test_a_wrong_use_of_fetch_is_told_as_elsewhere(run, call, name):
    assert await value(run, f"{call}.catch((e) => e.name)", host=Web(text="x")) == name


@pytest.mark.parametrize(
    ("signal", "name"), [("AbortSignal.timeout(20)", "TimeoutError"), ("controller.signal", "AbortError")]
)
async def test_a_fetch_can_be_aborted(run, signal, name):
    web = Web(text="")
    source = f"""(async () => {{
      const controller = new AbortController();
      const fetching = fetch('https://hang/', {{signal: {signal}}});
      setTimeout(() => controller.abort(), 30);
      const name = await fetching.catch((e) => e.name);
      await fetch('https://h/');
      return name;
    }})()"""
    assert await value(run, source, host=web) == name
    assert web.aborted == [1]


async def test_bytes_of_a_response_stay_bytes(run):
    got = await value(
        run, "fetch('https://h/').then(async (r) => [...new Uint8Array(await r.arrayBuffer())])", host=Web(body="AP8=")
    )
    assert got == [0, 255]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            """const h = new Headers({B: ' 2 '});
            h.append('a', '1'); h.append('b', '3'); h.set('c', 'x'); h.delete('C');
            return [[...h], h.get('B'), h.get('z'), h.has('A')]""",
            [[["a", "1"], ["b", "2, 3"]], "2, 3", None, True],
        ),
        ("return await new Response('hi', {status: 201, headers: {a: 'b'}}).text()", "hi"),
        (
            """return [Response.json({a: 1}).headers.get('content-type'), Response.error().type,
              Response.redirect('http://h/a b').status]""",
            ["application/json", "error", 302],
        ),
        ("return [...await new Response('é').bytes()]", [195, 169]),
        ("try { new Response('', {status: 99}) } catch (e) { return e.name }", "RangeError"),
        (
            """const r = new Request('http://H/ü?a b', {method: 'post', body: 'x'});
            return [r.url, r.method, await r.clone().text(), await r.text()]""",
            ["http://h/%C3%BC?a%20b", "POST", "x", "x"],
        ),
        (
            """const c = new AbortController(), got = [];
            c.signal.addEventListener('abort', (e) => got.push(e.type));
            c.signal.onabort = () => got.push('on');
            c.abort('why'); c.abort('again');
            return [got, c.signal.aborted, c.signal.reason]""",
            [["on", "abort"], True, "why"],
        ),
        (
            """const any = AbortSignal.any([new AbortController().signal, AbortSignal.timeout(1)]);
            return new Promise((done) => any.addEventListener('abort', (e) => done(e.target.reason.name)))""",
            "TimeoutError",
        ),
        ("try { new AbortSignal() } catch (e) { return e.name }", "TypeError"),
        (
            "try { AbortSignal.abort().throwIfAborted() } catch (e) { return [e.name, e instanceof DOMException] }",
            ["AbortError", True],
        ),
    ],
)
async def test_names_around_fetch(run, body, expected):
    assert await value(run, f"await (async () => {{ {body} }})()") == expected
