"""What hostile functions must not reach: what comes back, the log beyond its limit, the guest's own functions."""

import pytest
from codesous.type.v1.activation_status_pb2 import (
    ACTIVATION_STATUS_SUCCESS,
    ACTIVATION_STATUS_TIMEOUT,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


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
