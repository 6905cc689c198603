"""Hostile functions end with the expected status, in bounded time, and leave the pool able to work."""

import pytest
from codesous.type.v1.activation_status_pb2 import (
    ACTIVATION_STATUS_ERROR,
    ACTIVATION_STATUS_SUCCESS,
    ACTIVATION_STATUS_TIMEOUT,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENDLESS = {
    "loop": "for (;;) {}",
    "loop in a try": "for (;;) { try { for (;;) {} } catch {} finally { continue } }",
    "native fill": "new Array(2 ** 32 - 2).fill(0).sort()",
    "native join": "const a = []; a.length = 2 ** 32 - 1; return a.join('').length",
    "native indexOf": "const a = {length: 2 ** 53 - 1}; return Array.prototype.indexOf.call(a, 1)",
    "native every": "return Array.prototype.lastIndexOf.call({length: 2 ** 53 - 1}, 1)",
    "regex": "return /^(a+)+$/.test('a'.repeat(40) + 'b')",
    "bigint": "let a = 3n; for (;;) a = a * a",
    "promise storm": "const again = () => Promise.resolve().then(again); return again()",
    "microtask storm": "const again = () => queueMicrotask(again); again(); return new Promise(() => {})",
    "timer storm": "const again = () => setTimeout(again, 0); again(); return new Promise(() => {})",
    "interval": "setInterval(() => {}, 1); return new Promise(() => {})",
    "async generator": "for await (const x of (async function* () { for (;;) yield 1 })()) {}",
    "thenable": "return {then(done) { done(this) }}",
    "toString of the thrown error": "throw {toString() { for (;;) {} }, toJSON() { for (;;) {} }}",
    "message of the thrown error": "throw Object.defineProperty(new Error(), 'message', {get() { for (;;) {} }})",
    "stack of the thrown error": "throw Object.defineProperty(new Error(), 'stack', {get() { for (;;) {} }})",
    "toJSON of the result": "return {toJSON() { for (;;) {} }}",
    "statusCode of the result": "return {get statusCode() { for (;;) {} }}",
    "console argument": "console.log({toJSON() { for (;;) {} }})",
    "proxy": "return new Proxy({}, {has() { for (;;) {} }})",
    "waits for ever": "return new Promise((done) => setTimeout(done, 1e9))",
    "atomics": "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
}


@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS)
async def test_what_does_not_end_times_out_or_fails(run, body):
    outcome = await run(f"export default async () => {{ {body} }}", wall=0.3, memory_bytes=64 << 20)
    if outcome.status != ACTIVATION_STATUS_TIMEOUT:
        # Some natives run out of memory or refuse to start, sooner than time runs out.
        assert outcome.status == ACTIVATION_STATUS_ERROR
        assert outcome.error.reason in ("CS_RUNTIME_MEMORY_LIMIT", "CS_RUNTIME_EXCEPTION")
    else:
        assert outcome.error.reason == "CS_RUNTIME_TIMEOUT"
    assert (await run("export default () => 1")).status == ACTIVATION_STATUS_SUCCESS


@pytest.mark.parametrize(
    "body", [ENDLESS[name] for name in ("loop", "promise storm", "toJSON of the result", "waits for ever", "regex")]
)
async def test_plain_endless_work_is_a_timeout(run, body):
    outcome = await run(f"export default async () => {{ {body} }}", wall=0.2)
    assert outcome.status == ACTIVATION_STATUS_TIMEOUT
    assert outcome.error.reason == "CS_RUNTIME_TIMEOUT"
    assert "200 ms" in outcome.error.message


async def test_an_endless_module_times_out(run):
    assert (await run("for (;;) {}", wall=0.2)).status == ACTIVATION_STATUS_TIMEOUT
    outcome = await run("await new Promise((d) => setTimeout(d, 1e9)); export default 1", wall=0.2)
    assert outcome.status == ACTIVATION_STATUS_TIMEOUT


HOGS = {
    "arrays": "const a = []; for (;;) a.push(new Array(1000).fill(1))",
    "caught": "const a = []; for (;;) { try { for (;;) a.push(new Array(1000).fill(1)) } catch { a.push(1) } }",
    "strings": "let s = 'x'; const a = []; for (;;) { s += s; a.push(s + a.length) }",
    "buffers": "const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))",
    "one buffer": "return new Uint8Array(2 ** 32).fill(7).length",
    "objects": "let o = null; for (;;) o = {o, p: {}}",
    "closures": "const a = []; for (;;) a.push(() => a)",
    "promises": "const a = []; for (;;) a.push(new Promise(() => {}).then(() => {}))",
    "bigint": "let a = 3n; for (;;) a = a ** 3n",
    "map": "const m = new Map(); for (let i = 0; ; i++) m.set(i, {i})",
    "regexp": "const a = []; for (let i = 0; ; i++) a.push(new RegExp('a{0,' + i + '}'))",
    "symbols": "const a = []; for (let i = 0; ; i++) a.push(Symbol.for('s' + i))",
}


@pytest.mark.parametrize("megabytes", [16, 64])
@pytest.mark.parametrize("body", HOGS.values(), ids=HOGS)
async def test_hostile_allocations_end_in_an_error_and_harm_nobody(run, body, megabytes):
    outcome = await run(f"export default () => {{ {body} }}", memory_bytes=megabytes << 20, wall=2.0)
    assert outcome.status in (ACTIVATION_STATUS_ERROR, ACTIVATION_STATUS_TIMEOUT)
    assert outcome.error.reason in ("CS_RUNTIME_MEMORY_LIMIT", "CS_RUNTIME_EXCEPTION", "CS_RUNTIME_TIMEOUT")
    assert (await run("export default () => 1")).status == ACTIVATION_STATUS_SUCCESS


@pytest.mark.parametrize("name", ["arrays", "buffers", "objects", "map"])
async def test_plain_exhaustion_is_told_as_the_memory_limit(run, name):
    outcome = await run(f"export default () => {{ {HOGS[name]} }}", memory_bytes=32 << 20, wall=20.0)
    assert outcome.error.reason == "CS_RUNTIME_MEMORY_LIMIT"
    assert "32 MiB" in outcome.error.message


DEEP = {
    "recursion": "const f = () => f() + 1; return f()",
    "recursion in toString": "const o = {toString() { return '' + o }}; return '' + o",
    "json": "return JSON.parse('['.repeat(1e6))",
    "nested result": "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a",
    "nested regex": "return new RegExp('('.repeat(1e5) + ')'.repeat(1e5)).test('')",
    "nested source": "return eval('('.repeat(1e5) + '1' + ')'.repeat(1e5))",
    "proxy chain": "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); return p.x",
}


@pytest.mark.parametrize("body", DEEP.values(), ids=DEEP)
async def test_deep_nesting_is_an_error_of_the_function(run, body):
    outcome = await run(f"export default () => {{ {body} }}")
    assert outcome.status == ACTIVATION_STATUS_ERROR
    assert outcome.error.reason in ("CS_RUNTIME_EXCEPTION", "CS_RUNTIME_BAD_RESPONSE", "CS_RUNTIME_MEMORY_LIMIT")


async def test_deep_recursion_can_be_caught(run):
    outcome = await run("const f = () => f(); export default () => { try { f() } catch (e) { return e.name } }")
    assert outcome.response.body in ('"RangeError"', '"InternalError"')


FORGERIES = {
    "stringify": "JSON.stringify = () => 'forged'; JSON.parse = () => 'forged'",
    "toJSON of objects": "Object.prototype.toJSON = () => 'forged'",
    "toJSON of strings": "String.prototype.toJSON = () => 'forged'; Number.prototype.toJSON = () => 'forged'",
    "iterators": "Array.prototype[Symbol.iterator] = function* () { yield 'forged' }",
    "array setter": "Object.defineProperty(Array.prototype, 0, {set() { throw 'forged' }, get: () => 'forged'})",
    "promise": "globalThis.Promise = class {}; delete globalThis.Reflect",
    "then": "const { then } = Promise.prototype;"
    " Promise.prototype.then = function (a, b) { return then.call(this, () => a('forged'), b) }",
    "object natives": "Object.keys = () => ['forged']; Object.create = Object.defineProperty = () => { throw 'no' }",
    "string natives": "String.prototype.slice = globalThis.String = () => 'forged'; globalThis.Error = null",
    "number natives": "Number.isInteger = () => false; Array.isArray = () => true; Math.floor = () => 'forged'",
    "weak map": "WeakMap.prototype.get = () => 'CS_RUNTIME_CAPABILITY_DENIED'",
    "apply": "Function.prototype.apply = Function.prototype.call = () => 'forged'; Reflect.apply = () => 'forged'",
    "status code": "Object.prototype.body = 'forged'",
}


@pytest.mark.parametrize("poison", FORGERIES.values(), ids=FORGERIES)
async def test_replaced_intrinsics_do_not_touch_what_comes_back(run, poison):
    outcome = await run(
        f"{poison};\nexport default async (event, ctx) => {{ console.log('line'); ctx.remainingTimeMs();"
        " return {statusCode: 202, headers: {a: 'b'}, body: 'real'} }"
    )
    assert outcome.status == ACTIVATION_STATUS_SUCCESS, outcome.error
    assert (outcome.response.status_code, outcome.response.body) == (202, "real")
    assert dict(outcome.response.headers) == {"a": "b"}
    assert [entry.message for entry in outcome.logs] == ["line"]


@pytest.mark.parametrize("poison", FORGERIES.values(), ids=FORGERIES)
async def test_replaced_intrinsics_do_not_touch_what_is_thrown(run, poison):
    outcome = await run(f"const T = TypeError; {poison};\nexport default () => {{ throw new T('real') }}")
    assert outcome.error.reason == "CS_RUNTIME_EXCEPTION"
    assert outcome.error.message == "real"


async def test_call_sites_do_not_give_away_the_guests_functions(run):
    outcome = await run(
        "Error.prepareStackTrace = (e, sites) => sites.map((s) => String(s.getFileName?.()));\n"
        "export default () => { const e = new Error(); let found = [];\n"
        "  Error.prepareStackTrace = (_, sites) => { for (const s of sites) found.push(typeof s.getFunction?.(),"
        " typeof s.getThis?.()); return '' };\n"
        "  new Error().stack; return typeof globalThis.native }"
    )
    assert outcome.response.body == '"undefined"'


async def test_the_log_is_cut_at_its_limit_and_says_so(run):
    outcome = await run(
        "export default () => { for (let i = 0; i < 5000; i++) console.log('x'.repeat(1000)); return 1 }"
    )
    assert outcome.status == ACTIVATION_STATUS_SUCCESS
    assert sum(len(entry.message) for entry in outcome.logs) <= 1024 * 1024 + 100
    assert "limit" in outcome.logs[-1].message
    assert all("limit" not in entry.message for entry in outcome.logs[:-1])


async def test_a_single_huge_line_is_cut(run):
    outcome = await run("export default () => { console.log('é'.repeat(2e6)); console.log('more'); return 1 }")
    assert outcome.status == ACTIVATION_STATUS_SUCCESS
    assert len(outcome.logs) == 2
    assert len(outcome.logs[0].message.encode()) <= 1024 * 1024
    assert "limit" in outcome.logs[1].message


async def test_a_flood_of_empty_lines_is_bounded(run):
    outcome = await run("export default () => { for (let i = 0; i < 2e5; i++) console.log(''); return 1 }", wall=30)
    assert len(outcome.logs) <= 1024 * 1024 // 32 + 1


async def test_lines_before_a_kill_are_kept(run):
    outcome = await run("export default () => { console.log('before'); for (;;) {} }", wall=0.3)
    assert outcome.status == ACTIVATION_STATUS_TIMEOUT
    assert [entry.message for entry in outcome.logs] == ["before"]


async def test_a_huge_event_does_not_break_the_cell(run):
    outcome = await run("export default (event) => event.body.length", event={"body": "x" * (8 << 20)})
    assert outcome.response.body == str(8 << 20)


async def test_a_flood_of_host_calls_is_refused_past_the_limit(run):
    outcome = await run(
        "export default async () => { const all = []; for (let i = 0; i < 1000; i++) all.push(cs.kv.get('k'));\n"
        "  const ends = await Promise.allSettled(all);\n"
        "  return [ends.filter((e) => e.status === 'fulfilled').length, ends.find((e) => e.reason)?.reason.code] }"
    )
    assert outcome.response.body == '[64,"CS_RATE_LIMITED"]'


async def test_too_many_timers_are_refused(run):
    outcome = await run("export default () => { for (let i = 0; i < 1e6; i++) setTimeout(() => {}, 1e6) }")
    assert outcome.error.type == "RangeError"
