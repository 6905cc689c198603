"""The names that user code finds: the host's, and those of the web platform."""

import asyncio
import json

import pytest
from codesous.type.v1.activation_status_pb2 import ACTIVATION_STATUS_SUCCESS
from codesous.type.v1.capabilities_pb2 import Capabilities
from codesous.type.v1.log_entry_pb2 import LogLevel

from cs_sandbox import HostCallError
from cs_sandbox.host.catalogue import CALLS, WEB
from cs_sandbox.local import LocalHostCalls

pytestmark = pytest.mark.asyncio(loop_scope="session")

# What the standard of the language names, in the order of its chapters, and what this engine adds.
OF_THE_LANGUAGE = """
globalThis Infinity NaN undefined eval isFinite isNaN parseFloat parseInt decodeURI decodeURIComponent encodeURI
encodeURIComponent escape unescape Object Function Boolean Symbol Error AggregateError EvalError RangeError
ReferenceError SuppressedError SyntaxError TypeError URIError InternalError Number BigInt Math Date String RegExp
Array Int8Array Uint8Array Uint8ClampedArray Int16Array Uint16Array Int32Array Uint32Array BigInt64Array
BigUint64Array Float16Array Float32Array Float64Array Map Set WeakMap WeakSet ArrayBuffer SharedArrayBuffer DataView
Atomics JSON WeakRef FinalizationRegistry Iterator Promise DisposableStack AsyncDisposableStack Reflect Proxy
"""


async def value(run, expression, **options):
    outcome = await run(f"export default async (event, ctx) => ({expression})", **options)
    assert outcome.status == ACTIVATION_STATUS_SUCCESS, outcome.error
    return json.loads(outcome.response.body)


async def test_kv_keeps_values_between_activations(run):
    host = LocalHostCalls()
    assert await value(run, "cs.kv.set('a', {n: [1, null, 'é\\u0000']})", host=host) is None
    assert await value(run, "cs.kv.get('a')", host=host) == {"n": [1, None, "é\0"]}
    assert await value(run, "cs.kv.get('b')", host=host) is None
    assert await value(run, "[await cs.kv.incr('n'), await cs.kv.incr('n', 5)]", host=host) == [1, 6]
    assert await value(run, "cs.kv.list('')", host=host) == ["a", "n"]
    assert await value(run, "[await cs.kv.del('a'), await cs.kv.del('a')]", host=host) == [True, False]


async def test_host_calls_of_one_activation_overlap(run):
    class Both:
        def __init__(self):
            self.waiting = 0
            self.met = asyncio.Event()

        async def call(self, method, arguments):
            self.waiting += 1
            if self.waiting == 2:
                self.met.set()
            await self.met.wait()
            return arguments[0]

    assert await value(run, "Promise.all([cs.kv.get('a'), cs.kv.get('b')])", host=Both()) == ["a", "b"]


async def test_a_failing_host_call_rejects_with_its_reason_and_no_internal_text(run):
    class Failing:
        async def call(self, method, arguments):
            if arguments[0] == "typed":
                raise HostCallError("CS_STORE_UNAVAILABLE", "the store does not answer")
            raise RuntimeError("secret path /x/y")

    caught = "cs.kv.get('%s').catch((e) => [e.code, e.message])"
    assert await value(run, caught % "typed", host=Failing()) == ["CS_STORE_UNAVAILABLE", "the store does not answer"]
    code, message = await value(run, caught % "other", host=Failing())
    assert code == "CS_INTERNAL"
    assert "secret" not in message


async def test_arguments_of_host_calls_are_checked_before_they_leave(run):
    assert await value(run, "cs.kv.get(1).catch((e) => e.name)") == "TypeError"
    assert await value(run, "cs.kv.set('a', 'x'.repeat(2e6)).catch((e) => e.code)") == "CS_VALIDATION_TOO_LARGE"
    assert await value(run, "cs.kv.set('a', 1n).catch((e) => e.name)") == "TypeError"


async def test_odd_text_and_nesting_reach_the_host_as_clean_values(run):
    class Echo:
        async def call(self, method, arguments):
            json.dumps(arguments, ensure_ascii=False).encode()
            return arguments[0]

    assert await value(run, "cs.kv.get('a\\ud800\\u0000')", host=Echo()) == "a\ufffd\0"
    deep = "(() => { let a = []; for (let i = 0; i < 3000; i++) a = [a]; return a })()"
    assert await value(run, f"cs.kv.set('a', {deep}).then(() => 'stored', (e) => e.code ?? e.name)", host=Echo()) in (
        "stored",
        "CS_VALIDATION_MALFORMED",
        "RangeError",
    )


async def test_messages_are_published_and_told_their_id(run):
    host = LocalHostCalls()
    got = await value(run, "cs.codeq.publish('orders', {n: 1}, {key: 'k'})", host=host)
    assert got == {"messageId": "local-1"}
    assert [(m.topic, m.payload, m.key) for m in host.published] == [("orders", b'{"n":1}', "k")]


async def test_a_denial_can_be_caught_and_says_what_was_asked(run):
    for call, named in (
        ("cs.kv.get('x')", "kv"),
        ("cs.codeq.publish('t', 1)", "codeq"),
        ("fetch('https://example.com')", "http"),
        ("cs.http.fetch('https://example.com')", "example.com"),
        ("cs.cadence.heartbeat({})", "cadence"),
        ("cs.secrets.get('s')", "secrets"),
    ):
        caught = f"{call}.catch((e) => [e instanceof Error, e.name, e.reason, e.code, e.message])"
        *kind, message = await value(run, caught, host=LocalHostCalls(Capabilities()))
        assert kind == [True, "CsError", "CS_RUNTIME_CAPABILITY_DENIED", "CS_RUNTIME_CAPABILITY_DENIED"]
        assert named in message


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("cs.kv.get('x'.repeat(600))", "CS_VALIDATION_FIELD"),
        ("cs.kv.set('x', 'x'.repeat(300000))", "CS_VALIDATION_TOO_LARGE"),
        ("cs.kv.set('x', 'x'.repeat(2e6))", "CS_VALIDATION_TOO_LARGE"),
        ("cs.secrets.get('s')", "CS_RUNTIME_CAPABILITY_DENIED"),
        ("Promise.all(Array.from({length: 100}, () => cs.kv.get('x')))", "CS_RATE_LIMITED"),
    ],
)
async def test_a_refusal_that_is_not_caught_is_the_reason_of_the_error(run, call, reason):
    outcome = await run(f"export default () => {call}")
    assert outcome.error.reason == reason
    assert outcome.error.type == "CsError"


async def test_only_a_reason_that_the_host_gave_is_believed(run):
    """An error that looks like one of the host's, and is thrown by the function, is the function's own."""
    source = "export default () => { throw Object.assign(new Error('x'), {reason: 'CS_STORE_UNAVAILABLE', code: 'y'}) }"
    assert (await run(source)).error.reason == "CS_RUNTIME_EXCEPTION"


async def test_what_a_cell_has_is_what_the_catalogue_says(run):
    names = "Object.keys(cs).flatMap((area) => Object.keys(cs[area]).map((name) => `cs.${area}.${name}`)).sort()"
    listed = {f"cs.{call.method}" for call in CALLS.values()} - {"cs.http.abort"}
    listed |= {f"cs.log.{level}" for level in ("debug", "info", "warn", "error")} | {"cs.env.get"}
    assert await value(run, names) == sorted(listed)


async def test_every_listed_name_of_the_web_platform_is_there_and_no_other(run):
    language = await value(run, "[...Object.getOwnPropertyNames(globalThis)]")
    listed = {name.name for name in WEB}
    missing = await value(
        run, f"{json.dumps(sorted(listed))}.filter((name) => typeof globalThis[name] === 'undefined')"
    )
    assert missing == []
    assert set(language) - set(OF_THE_LANGUAGE.split()) == listed | {"cs"}


async def test_the_environment_is_what_the_version_gives(run):
    got = await value(run, "[cs.env.get('A'), cs.env.get('B') ?? null, cs.env.get('toString') ?? null]", env={"A": "x"})
    assert got == ["x", None, None]


async def test_the_host_object_cannot_be_replaced(run):
    got = await value(
        run, "(() => { try { cs.kv.get = 1 } catch {} try { cs = 2 } catch {} return [typeof cs, typeof cs.kv.get] })()"
    )
    assert got == ["object", "function"]


async def test_logs_carry_level_text_and_attempt(run):
    outcome = await run(
        "export default () => { console.debug('a');"
        " console.log('b', 1, {c: [undefined]}, null, undefined, 5n, Symbol('s'));"
        " cs.log.warn('w'); console.error(new TypeError('t')); cs.log.info(() => 1) }",
        context={"attempt": 3},
    )
    lines = [(entry.level, entry.message) for entry in outcome.logs]
    assert lines[:3] == [
        (LogLevel.LOG_LEVEL_DEBUG, "a"),
        (LogLevel.LOG_LEVEL_INFO, 'b 1 {"c":[null]} null undefined 5n Symbol(s)'),
        (LogLevel.LOG_LEVEL_WARN, "w"),
    ]
    assert lines[3][0] == LogLevel.LOG_LEVEL_ERROR
    assert lines[3][1].startswith("TypeError: t")
    assert lines[4] == (LogLevel.LOG_LEVEL_INFO, "[function]")
    assert {entry.attempt for entry in outcome.logs} == {3}
    assert all(entry.time.seconds > 0 for entry in outcome.logs)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("[...new TextEncoder().encode('aé€😀\\ud800')]", list("aé€😀\ufffd".encode())),
        ("new TextDecoder().decode(new Uint8Array([0xef, 0xbb, 0xbf, 97, 240, 159, 152, 128]))", "a😀"),
        ("new TextDecoder().decode(new Uint8Array([0xc0, 0x80, 0xed, 0xa0, 0x80, 0xe2, 0x82]))", "\ufffd" * 6),
        (
            "(() => { try { new TextDecoder('utf-8', {fatal: true}).decode(new Uint8Array([255])) }"
            " catch (e) { return e.name } })()",
            "TypeError",
        ),
        ("[btoa('hello'), atob('aGVsbG8=')]", ["aGVsbG8=", "hello"]),
        ("new URL('../c/./d?x=1&y=%20#h', 'https://u:p@Example.com:8443/a/b/').href", "https://u:p@example.com:8443/a/c/d?x=1&y=%20#h"),
        ("new URL('https://example.com:443').href", "https://example.com/"),
        ("[new URL('http://h/p q?r s').href, new URL('http://h/ü').pathname]", ["http://h/p%20q?r%20s", "/%C3%BC"]),
        ("['', 'nope', 'http://', 'http://a b', 'http://h:99999'].filter((u) => URL.canParse(u))", []),
        ("(() => { const u = new URL('http://h/?a=1'); u.searchParams.append('b', 'c d&'); return u.href })()", "http://h/?a=1&b=c+d%26"),
        ("[...new URLSearchParams('?a=1&b=%C3%A9+x&a=2')]", [["a", "1"], ["b", "é x"], ["a", "2"]]),
        ("String(new URLSearchParams({q: 'a b', r: 'é&'}))", "q=a+b&r=%C3%A9%26"),
        ("structuredClone({a: [1, {b: 2}], d: new Date(0)})", {"a": [1, {"b": 2}], "d": "1970-01-01T00:00:00.000Z"}),
        ("(() => { const a = {}; a.self = a; const b = structuredClone(a); return b !== a && b.self === b })()", True),
        ("(() => { try { structuredClone(() => 1) } catch (e) { return e.name } })()", "DataCloneError"),
        ("[...structuredClone(new Map([[1, new Set([2])]])).get(1)]", [2]),
        ("/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID())", True),
        ("crypto.randomUUID() !== crypto.randomUUID()", True),
        ("crypto.getRandomValues(new Uint8Array(64)).some((b) => b !== 0)", True),
        (
            "crypto.subtle.digest('SHA-256', new TextEncoder().encode('abc'))"
            ".then((d) => [...new Uint8Array(d)].slice(0, 4))",
            [0xBA, 0x78, 0x16, 0xBF],
        ),
        ("typeof performance.now()", "number"),
        ("new Promise((done) => { const o = []; setTimeout(() => { o.push(2); done(o) }, 5); o.push(1) })", [1, 2]),
        ("new Promise((d) => { clearTimeout(setTimeout(() => d('late'), 1)); setTimeout(d, 5, 'kept') })", "kept"),
        (
            "new Promise((done) => { let n = 0;"
            " const t = setInterval(() => { if (++n === 3) { clearInterval(t); done(n) } }, 1) })",
            3,
        ),
        ("new Promise((done) => queueMicrotask(() => done('micro')))", "micro"),
        ("[typeof process, typeof require, typeof std, typeof os, typeof print]", ["undefined"] * 5),
    ],
)  # fmt: skip
async def test_names_of_the_web_platform(run, expression, expected):
    assert await value(run, expression) == expected
