"""Hostile functions that take too much: of time, of depth, of bytes, of what the host does for them."""

from __future__ import annotations

from typing import Final

from tests.sandbox.hostile import BAD, ENDLESS, EXCEPTION, LARGE, MEMORY, SUCCESS, TIMEOUT, UNTIL, in_family

NATIVES: Final = in_family(
    "endless natives",
    UNTIL,
    {
        "fill and sort": "new Array(2 ** 32 - 2).fill(0).sort()",
        "join": "const a = []; a.length = 2 ** 32 - 1; return a.join('').length",
        "indexOf": "return Array.prototype.indexOf.call({length: 2 ** 53 - 1}, 1)",
        "lastIndexOf": "return Array.prototype.lastIndexOf.call({length: 2 ** 53 - 1}, 1)",
        "includes": "return Array.prototype.includes.call({length: 2 ** 53 - 1}, 1)",
        "reverse": "return Array.prototype.reverse.call({length: 2 ** 53 - 1})",
        "copyWithin": "return Array.prototype.copyWithin.call({length: 2 ** 53 - 1}, 0, 1)",
        "unshift": "return Array.prototype.unshift.call({length: 2 ** 53 - 2}, 1)",
        "from": "return Array.from({length: 2 ** 32 - 1}).length",
        "stringify a hole": "const a = []; a.length = 2 ** 32 - 1; return JSON.stringify(a).length",
        "bigint": "let a = 3n; for (;;) a = a * a",
        "bigint text": "return (7n ** 3000000n).toString(10).length",
        "spread": "return [...(function* () { for (;;) yield 1 })()].length",
        "concat": "let s = 'xy'; for (;;) s = s.concat(s)",
        "repeat": "let s = 'x'.repeat(2 ** 24); for (;;) s.replaceAll('x', 'yy').normalize('NFKD')",
        "ownKeys": "return Object.keys(new Proxy({}, {ownKeys() { for (;;) {} }}))",
        "comparator": "[3, 1, 2].sort(() => { for (;;) {} })",
        "atomics": "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
        "finally": "for (;;) { try { for (;;) {} } catch {} finally { continue } }",
        "typed array": "new Float64Array(2 ** 22).fill(1).sort((a, b) => { for (;;) {} })",
        "matchAll": "return [...'x'.repeat(2 ** 22).matchAll(/x/g)].map((m) => [...m]).length",
        "eval": "for (;;) eval('1;'.repeat(1000))",
    },
)

STORMS: Final = in_family(
    "promise storms",
    ENDLESS,
    {
        "then": "const again = () => Promise.resolve().then(again); return again()",
        "microtasks": "const again = () => queueMicrotask(again); again(); return new Promise(() => {})",
        "timers": "const again = () => setTimeout(again, 0); again(); return new Promise(() => {})",
        "interval": "setInterval(() => {}, 1); return new Promise(() => {})",
        "async generator": "for await (const x of (async function* () { for (;;) yield 1 })()) {}",
        "thenable": "return {then(done) { done(this) }}",
        "thenable getter": "return {get then() { for (;;) {} }}",
        "awaits": "for (;;) await null",
        "growing": "const a = []; for (;;) { a.push(Promise.all(a)); await null }",
        "race": "const never = new Promise(() => {}); for (;;) await Promise.race([never, null])",
        "rejections": "const again = () => { Promise.reject(new Error()); queueMicrotask(again) }; again(); await new Promise(() => {})",
        "async recursion": "const f = async () => { await null; await f() }; await f()",
        "fork": "const f = () => { queueMicrotask(f); queueMicrotask(f) }; f(); await new Promise(() => {})",
        "long timer": "await new Promise((done) => setTimeout(done, 1e9))",
    },
)

DEEP: Final = in_family(
    "deep nesting",
    (EXCEPTION, BAD, MEMORY),
    {
        "parse": "return JSON.parse('['.repeat(1e6))",
        "result": "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a",
        "body": "let a = {}; for (let i = 0; i < 1e5; i++) a = {a}; return {statusCode: 200, body: a}",
        "regular expression": "return new RegExp('('.repeat(1e5) + ')'.repeat(1e5)).test('')",
        "source": "return eval('('.repeat(1e5) + '1' + ')'.repeat(1e5))",
        "blocks": "return eval('{'.repeat(1e5) + '}'.repeat(1e5)), eval('['.repeat(1e5) + ']'.repeat(1e5))",
        "templates": "return eval('`${'.repeat(1e4) + '1' + '}`'.repeat(1e4))",
        "arrows": "return eval('a=>'.repeat(1e5) + '1')",
        "proxies": "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); return p.x",
        "bound functions": "let f = () => 1; for (let i = 0; i < 1e5; i++) f = f.bind(null); return f()",
        "clone": "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return structuredClone(a)",
    },
)

RECURSION: Final = in_family(
    "recursion",
    EXCEPTION,
    {
        "plain": "const f = () => f() + 1; return f()",
        "mutual": "const f = () => g(), g = () => f() + 1; return f()",
        "toString": "const o = {toString() { return '' + o }}; return '' + o",
        "getter": "const o = {get x() { return o.x }}; return o.x",
        "proxy": "const p = new Proxy({}, {get(_, k) { return p[k] }}); return p.x",
        "constructor": "class A { constructor() { new A() } }; new A()",
        "comparator": "const f = () => [2, 1].sort(f); f()",
        "replace": "const f = () => 'x'.replace(/x/, f); f()",
        "eval": "globalThis.f = () => eval('f()'); f()",
        "generator": "function* f() { yield* f() }; [...f()]",
        "toJSON": "const o = {toJSON() { return JSON.stringify(o) }}; JSON.stringify(o)",
        "instance of": "const f = {[Symbol.hasInstance]: (x) => x instanceof f}; return 1 instanceof f",
        "async": "const f = async () => { await f() }; await f()",
    },
)

REGEX: Final = in_family(
    "regular expressions",
    (TIMEOUT, MEMORY),
    {
        "nested plus": "return /^(a+)+$/.test('a'.repeat(40) + 'b')",
        "alternatives": "return /^(a|a)*$/.test('a'.repeat(40) + 'b')",
        "overlap": "return /(x+x+)+y/.test('x'.repeat(40))",
        "optional": "return new RegExp('a?'.repeat(40) + 'a'.repeat(40)).test('a'.repeat(39))",
        "look ahead": "return /^(?=(a+)+b)(a+)+c/.test('a'.repeat(40))",
        "look behind": "return /^(?:a(?<=a)|a(?<=a))*$/.test('a'.repeat(40) + 'b')",
        "back reference": "return /^(a*)*\\1$/.test('a'.repeat(60) + 'b')",
        "lazy": "return /^(.*?a){25}$/.test('a'.repeat(60) + 'b')",
        "replace": "return 'a'.repeat(60).replace(/(a*)*b/g, '')",
        "split": "return ('a'.repeat(60) + 'b').split(/(?:a+)+c/)",
        "unicode": "return /^(\\p{L}+)+$/u.test('a'.repeat(60) + '1')",
    },
)

SIZE: Final = [
    *in_family(
        "huge results and logs",
        LARGE,
        {
            "body": "return {statusCode: 200, body: 'x'.repeat(2 ** 20)}",
            "value": "return 'x'.repeat(2 ** 22)",
            "multi-byte body": "return {statusCode: 200, body: 'é'.repeat(200000)}",
            "list": "return new Array(1e6).fill(7)",
            "headers": "const headers = {}; for (let i = 0; i < 1e5; i++) headers['h' + i] = 'x'; return {statusCode: 200, headers}",
            "cookies": "return {statusCode: 200, cookies: new Array(1e5).fill('a=b')}",
            "header": "return {statusCode: 200, headers: {a: 'x'.repeat(2 ** 20)}}",
        },
    ),
    *in_family(
        "huge results and logs",
        SUCCESS,
        {
            "line": "console.log('x'.repeat(2 ** 23)); return 1",
            "many lines": "for (let i = 0; i < 3000; i++) console.log('x'.repeat(1000)); return 1",
            "lines of large objects": "const o = {a: 'x'.repeat(1e6)}; for (let i = 0; i < 20; i++) console.log(o, o); return 1",
        },
    ),
    *in_family(
        "huge results and logs",
        (BAD, LARGE, MEMORY),
        {"text too long for the engine": "const a = 'x'.repeat(2 ** 24); return new Array(100).fill(a)"},
    ),
]

FLOODS: Final = [
    *in_family(
        "frame floods",
        ENDLESS,
        {
            "empty lines": "for (;;) console.log('')",
            "long lines": "const s = 'x'.repeat(2 ** 20); for (;;) console.log(s)",
            "calls": "for (;;) await cs.kv.get('k')",
            "calls that nobody waits for": "for (;;) { cs.kv.get('k').catch(() => {}); await null }",
            "calls at once": "for (;;) cs.kv.get('k').catch(() => {})",
            "large calls": "const v = 'x'.repeat(900000); for (;;) await cs.kv.set('k', v).catch(() => {})",
            "large objects": "const v = new Array(2e5).fill({}); for (;;) await cs.kv.set('k', v).catch(() => {})",
            "timers and lines": "for (;;) { console.log('x'); await new Promise((d) => setTimeout(d, 0)) }",
        },
    ),
    *in_family(
        "frame floods",
        EXCEPTION,
        {
            "timers": "for (let i = 0; i < 1e6; i++) setTimeout(() => {}, 1e6)",
            "no such call": "await cs.kv.get({})",
        },
    ),
    *in_family(
        "frame floods",
        "CS_RATE_LIMITED",
        {
            "refused calls": "const all = []; for (let i = 0; i < 1e4; i++) all.push(cs.kv.get('k')); await Promise.all(all)",
        },
    ),
    *in_family(
        "frame floods",
        "CS_VALIDATION_TOO_LARGE",
        {"call that is too large": "await cs.kv.set('k', 'x'.repeat(2 ** 22))"},
    ),
    *in_family(
        "frame floods",
        SUCCESS,
        {
            "calls left behind": "for (let i = 0; i < 64; i++) cs.kv.set('k' + i, 'v'); return 1",
            "lines after the end": "setInterval(() => console.log('late'), 0); queueMicrotask(() => console.log('soon')); return 1",
        },
    ),
]

STUCK: Final = [
    *in_family(
        "stuck host calls",
        TIMEOUT,
        {
            "one": "await cs.kv.get('stuck')",
            "all": "await Promise.all(Array.from({length: 64}, () => cs.kv.get('stuck')))",
            "beside a loop": "cs.kv.get('stuck'); for (;;) {}",
            "beside timers": "setInterval(() => {}, 1); await cs.kv.get('stuck')",
            "caught": "for (;;) try { await cs.kv.get('stuck') } catch {}",
            "in a generator": "for await (const x of (async function* () { yield await cs.kv.get('stuck') })()) {}",
        },
    ),
    *in_family(
        "stuck host calls",
        SUCCESS,
        {
            "left behind": "cs.kv.get('stuck'); return 1",
            "in a race": "return await Promise.race([cs.kv.get('stuck'), new Promise((d) => setTimeout(() => d(1), 5))])",
        },
    ),
    *in_family(
        "stuck host calls",
        EXCEPTION,
        {"promise that nobody settles": "await new Promise(() => {})"},
    ),
    *in_family("stuck host calls", "CS_INTERNAL", {"broken": "await cs.kv.get('broken')"}),
]

WORK: Final = [*NATIVES, *STORMS, *DEEP, *RECURSION, *REGEX, *SIZE, *FLOODS, *STUCK]
