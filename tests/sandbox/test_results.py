"""What a handler returns becomes the response that the contract promises."""

import json

import pytest
from codesous.type.v1.activation_status_pb2 import ACTIVATION_STATUS_ERROR, ACTIVATION_STATUS_SUCCESS

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_response_object_becomes_the_response(run):
    outcome = await run(
        'export default async function handle(event, ctx) { return {statusCode: 201, headers: {"x-a": "b", n: 1},'
        ' body: "hello " + event.name, cookies: ["a=1"], isBase64Encoded: false} }',
        event={"name": "you"},
    )
    assert outcome.status == ACTIVATION_STATUS_SUCCESS
    assert outcome.error is None
    assert outcome.response.status_code == 201
    assert dict(outcome.response.headers) == {"x-a": "b", "n": "1"}
    assert outcome.response.body == "hello you"
    assert list(outcome.response.cookies) == ["a=1"]


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ("undefined", "null"),
        ("null", "null"),
        ("5", "5"),
        ('"text"', '"text"'),
        ("[1, {a: 2}]", '[1,{"a":2}]'),
        ("{a: [1, null]}", '{"a":[1,null]}'),
        ("Promise.resolve(true)", "true"),
        ('{then(done) { done("thenable") }}', '"thenable"'),
    ],
)
async def test_any_other_value_becomes_its_json_with_status_200(run, value, body):
    outcome = await run(f"export default () => ({value})")
    assert (outcome.response.status_code, outcome.response.body) == (200, body)
    assert outcome.response.headers["content-type"] == "application/json"


async def test_a_body_that_is_no_text_becomes_json_with_its_content_type(run):
    outcome = await run("export default () => ({statusCode: 200, body: {a: 1}})")
    assert outcome.response.body == '{"a":1}'
    assert outcome.response.headers["content-type"] == "application/json"
    outcome = await run('export default () => ({statusCode: 200, headers: {"Content-Type": "a/b"}, body: [1]})')
    assert dict(outcome.response.headers) == {"Content-Type": "a/b"}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("{statusCode: 199}", "statusCode"),
        ("{statusCode: 600}", "statusCode"),
        ("{statusCode: 200.5}", "statusCode"),
        ('{statusCode: "200"}', "statusCode"),
        ("{statusCode: NaN}", "statusCode"),
        ("{statusCode: 200, headers: [1]}", "headers"),
        ('{statusCode: 200, headers: {a: "b\\nc"}}', "headers.a"),
        ('{statusCode: 200, headers: {a: "b\\u0000"}}', "headers.a"),
        ('{statusCode: 200, headers: {a: "\\u00e9"}}', "headers.a"),
        ("{statusCode: 200, headers: {a: {}}}", "headers.a"),
        ('{statusCode: 200, headers: {"a b": "c"}}', "headers"),
        ('{statusCode: 200, headers: {"": "c"}}', "headers"),
        ("{statusCode: 200, cookies: {}}", "cookies"),
        ('{statusCode: 200, cookies: ["a\\r\\nb"]}', "cookies"),
        ("{statusCode: 200, isBase64Encoded: 1}", "isBase64Encoded"),
        ('{statusCode: 200, isBase64Encoded: true, body: "%"}', "body"),
        ("{statusCode: 200, body: 10n}", "body"),
        ("{statusCode: 200, body: () => 1}", "body"),
        ("10n", "result"),
        ("(() => 1)", "result"),
        ('Symbol("s")', "result"),
        ("(() => { const a = []; a.push(a); return a })()", "result"),
    ],
)
async def test_a_response_that_breaks_a_rule_names_the_field(run, value, field):
    outcome = await run(f"export default () => ({value})")
    assert outcome.status == ACTIVATION_STATUS_ERROR
    assert outcome.error.reason == "CS_RUNTIME_BAD_RESPONSE"
    assert outcome.error.message.startswith(field + ":")


async def test_a_response_over_the_limit_is_refused(run):
    outcome = await run('export default () => "x".repeat(256 * 1024)')
    assert outcome.error.reason == "CS_RUNTIME_RESULT_TOO_LARGE"
    outcome = await run('export default () => "x".repeat(255 * 1024)')
    assert outcome.status == ACTIVATION_STATUS_SUCCESS


async def test_odd_text_survives_the_way_out(run):
    outcome = await run('export default () => ({statusCode: 200, body: "a\\u0000b\\ud800c \\ud83d\\ude00"})')
    assert outcome.response.body == "a\0b\ufffdc \U0001f600"


async def test_odd_text_survives_the_way_in(run):
    event = {"text": "a\0b \U0001f600 é", "__proto__": {"polluted": True}}
    outcome = await run("export default (event) => [event.text, ({}).polluted ?? null]", event=event)
    assert json.loads(outcome.response.body) == [event["text"], None]


async def test_the_context_holds_the_given_values_and_the_time_left(run):
    outcome = await run(
        "export default (event, ctx) => [ctx.activation_id, ctx.principal.subject, ctx.remainingTimeMs()]",
        context={"activation_id": "act", "principal": {"subject": "me"}},
        wall=5.0,
    )
    activation, subject, left = json.loads(outcome.response.body)
    assert (activation, subject) == ("act", "me")
    assert 0 < left <= 5000


async def test_files_of_a_bundle_import_each_other(run):
    outcome = await run(
        {
            "index.js": 'import { greet } from "./lib/greet.js";\nimport name, * as all from "./lib/name.js";\n'
            "export default () => greet(name) + all.count()",
            "lib/greet.js": 'import { bang } from "../bang.js";\nexport const greet = (n) => `hi ${n}${bang}`;',
            "lib/name.js": 'import { greet } from "./greet.js";\nexport default "you";\n'
            "export const count = () => typeof greet;",
            "bang.js": 'export { mark as bang } from "./mark.js";',
            "mark.js": 'let mark = "?";\nmark = "!";\nexport { mark };',
        }
    )
    assert outcome.response.body == '"hi you!function"'


async def test_a_module_that_is_not_in_the_bundle_cannot_be_imported(run):
    for name in ("./nope.js", "../../etc/passwd", "/etc/passwd", "fs", "node:fs", "qjs:std", "std", "os"):
        outcome = await run(f'import "{name}"; export default () => 1')
        assert outcome.error.reason == "CS_RUNTIME_EXCEPTION"
        assert "cannot find module" in outcome.error.message
    outcome = await run('export default async () => { try { await import("os") } catch (e) { return e.name } }')
    assert outcome.response.body == '"ReferenceError"'


async def test_top_level_await_is_driven_before_the_handler(run):
    outcome = await run(
        "const first = await new Promise((done) => setTimeout(() => done(7), 5));\nexport default () => first"
    )
    assert outcome.response.body == "7"


async def test_peak_memory_and_times_are_told(run):
    outcome = await run("export default () => 1")
    assert outcome.peak_memory > 0
    assert outcome.end >= outcome.start
