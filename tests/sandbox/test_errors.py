"""What a function throws becomes the error that its author needs."""

import pytest
from codesous.type.v1.activation_status_pb2 import ACTIVATION_STATUS_ERROR

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def failed(run, source, **options):
    outcome = await run(source, **options)
    assert outcome.status == ACTIVATION_STATUS_ERROR
    assert outcome.response is None
    return outcome.error


async def test_a_thrown_error_gives_type_message_and_the_position_in_the_authors_file(run):
    error = await failed(
        run, "\nclass Odd extends TypeError { name = 'Odd' }\nexport default () => {\n  throw new Odd('no')\n}"
    )
    assert (error.reason, error.type, error.message) == ("CS_RUNTIME_EXCEPTION", "Odd", "no")
    assert "index.js:4:" in error.stack
    assert "cs:" not in error.stack
    assert not error.retryable


async def test_a_stack_names_each_file_of_the_bundle(run):
    error = await failed(
        run,
        {
            "index.js": 'import { inner } from "./lib/inner.js"\nexport default () => inner()',
            "lib/inner.js": "export function inner() {\n  null.x\n}",
        },
    )
    assert "lib/inner.js:2" in error.stack
    assert "index.js:2:" in error.stack


async def test_a_rejected_promise_is_an_exception(run):
    error = await failed(run, "export default async () => { await null; throw new RangeError('late') }")
    assert (error.type, error.message) == ("RangeError", "late")


@pytest.mark.parametrize(
    ("thrown", "kind", "message"),
    [
        ("null", "null", "null"),
        ("undefined", "undefined", "undefined"),
        ('Symbol("s")', "symbol", "Symbol(s)"),
        ("5n", "bigint", "5n"),
        ('"text"', "string", "text"),
        ("{a: 1}", "object", '{"a":1}'),
    ],
)
async def test_anything_can_be_thrown(run, thrown, kind, message):
    error = await failed(run, f"export default () => {{ throw {thrown} }}")
    assert (error.reason, error.type, error.message) == ("CS_RUNTIME_EXCEPTION", kind, message)


async def test_a_syntax_error_tells_file_line_and_column(run):
    error = await failed(run, "export default () => 1;\n\n  let x = ;")
    assert (error.reason, error.type) == ("CS_RUNTIME_EXCEPTION", "SyntaxError")
    assert "index.js:3:11" in error.message
    assert "index.js:3:11" in error.stack
    error = await failed(run, {"index.js": 'import "./b.js"', "b.js": "\nfoo bar"})
    assert "b.js:2:5" in error.message


async def test_a_missing_default_export_is_told(run):
    error = await failed(run, "export const handle = 1")
    assert "default export" in error.message
    error = await failed(run, {"other.js": "1"})
    assert "index.js" in error.message


async def test_an_error_at_the_top_level_of_the_module_is_told(run):
    error = await failed(run, "let x = 1;\nx();\nexport default () => 1")
    assert error.type == "TypeError"
    assert "index.js:2" in error.stack


async def test_errors_in_timers_and_microtasks_end_the_run(run):
    for source in (
        "export default () => new Promise(() => setTimeout(() => { throw new Error('tick') }, 1))",
        "export default () => new Promise(() => queueMicrotask(() => { throw new Error('tick') }))",
    ):
        error = await failed(run, source)
        assert error.message == "tick"


async def test_a_promise_that_nothing_can_settle_is_told_at_once(run):
    error = await failed(run, "export default () => new Promise(() => {})", wall=30)
    assert error.reason == "CS_RUNTIME_EXCEPTION"
    assert "never settle" in error.message


async def test_long_messages_and_stacks_are_cut_to_their_limits(run):
    error = await failed(
        run,
        "export default () => { const e = new Error('é'.repeat(1e6)); e.stack = 'at x\\n'.repeat(1e5);"
        " e.name = 'n'.repeat(1e5); throw e }",
    )
    assert error.ByteSize() <= 64 * 1024
    assert len(error.stack.encode()) <= 8 * 1024
    assert error.message.startswith("éé")


async def test_an_uncaught_denial_is_told_as_such_and_a_caught_one_is_not(run):
    from cs_sandbox import DeniedHostCalls

    error = await failed(run, "export default () => cs.kv.get('a')", host=DeniedHostCalls())
    assert error.reason == "CS_RUNTIME_CAPABILITY_DENIED"
    assert "kv.get" in error.message
    outcome = await run(
        "export default async () => {"
        " try { await cs.kv.get('a') } catch (e) { return [e.name, e.code, e instanceof Error] } }",
        host=DeniedHostCalls(),
    )
    assert outcome.response.body == '["CsError","CS_RUNTIME_CAPABILITY_DENIED",true]'


async def test_a_denial_cannot_be_counterfeited(run):
    error = await failed(
        run, "export default () => { const e = new Error('x'); e.code = 'CS_RUNTIME_CAPABILITY_DENIED'; throw e }"
    )
    assert error.reason == "CS_RUNTIME_EXCEPTION"
