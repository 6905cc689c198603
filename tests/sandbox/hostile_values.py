"""Hostile functions that lie: in what they throw, return and leave behind."""

from __future__ import annotations

from typing import Final

from tests.sandbox.hostile import BAD, EXCEPTION, SUCCESS, TIMEOUT, Hostile, handler, in_family

FORMATTING: Final = [
    *in_family(
        "error formatting",
        TIMEOUT,
        {
            "toString": "throw {toString() { for (;;) {} }, toJSON() { for (;;) {} }}",
            "message": "throw Object.defineProperty(new Error(), 'message', {get() { for (;;) {} }})",
            "stack": "throw Object.defineProperty(new Error(), 'stack', {get() { for (;;) {} }})",
            "name": "throw Object.defineProperty(new Error(), 'name', {get() { for (;;) {} }})",
            "message that is an object": "throw Object.assign(new Error(), {message: {toString() { for (;;) {} }}})",
            "toPrimitive": "throw Object.assign(new Error(), {message: {[Symbol.toPrimitive]() { for (;;) {} }}})",
            "prepareStackTrace": "Error.prepareStackTrace = () => { for (;;) {} }; throw new Error('x')",
            "inherited name": "Error.prototype.__defineGetter__('name', () => { for (;;) {} }); throw new Error('x')",
            "toJSON of the result": "return {toJSON() { for (;;) {} }}",
            "statusCode of the result": "return {get statusCode() { for (;;) {} }}",
            "body of the result": "return {statusCode: 200, get body() { for (;;) {} }}",
            "headers of the result": "return {statusCode: 200, headers: new Proxy({}, {ownKeys() { for (;;) {} }})}",
            "has of the result": "return new Proxy({}, {has() { for (;;) {} }})",
            "console": "console.log({toJSON() { for (;;) {} }})",
            "console and an error": "console.error(Object.defineProperty(new Error(), 'message', {get() { for (;;) {} }}))",
        },
    ),
    *in_family(
        "error formatting",
        EXCEPTION,
        {
            "message that throws": "throw Object.defineProperty(new Error(), 'message', {get() { throw 1 }})",
            "everything throws": "throw new Proxy(new Error('x'), {get() { throw 1 }, getPrototypeOf() { throw 2 }})",
            "name that is a symbol": "throw Object.assign(new Error('x'), {name: Symbol('s')})",
            "stack that is an object": "throw Object.assign(new Error('x'), {stack: {toString() { for (;;) {} }}})",
            "huge message": "throw new Error('x'.repeat(2 ** 24))",
            "huge stack": "throw Object.assign(new Error('x'), {stack: 'at x\\n'.repeat(2 ** 20)})",
            "huge name": "throw Object.assign(new Error('x'), {name: 'N'.repeat(2 ** 24)})",
            "aggregate": "throw new AggregateError(Array.from({length: 1e5}, () => new Error('x')))",
            "cause of itself": "const e = new Error('x'); e.cause = e; throw e",
        },
    ),
]

THROWS: Final = [
    *in_family(
        "null and symbol throws",
        EXCEPTION,
        {
            "null": "throw null",
            "undefined": "throw undefined",
            "symbol": "throw Symbol('s')",
            "zero": "throw 0",
            "bigint": "throw 1n",
            "empty text": "throw ''",
            "function": "throw function evil() {}",
            "object without prototype": "throw Object.create(null)",
            "revoked proxy": "const {proxy, revoke} = Proxy.revocable({}, {}); revoke(); throw proxy",
            "promise": "throw Promise.resolve(1)",
            "rejected with nothing": "return Promise.reject()",
            "frozen error": "throw Object.freeze(new Error('x'))",
            "in a timer": "setTimeout(() => { throw null }, 0); await new Promise(() => {})",
            "in a microtask": "queueMicrotask(() => { throw Symbol() }); await new Promise(() => {})",
            "global of the realm": "throw globalThis",
        },
    ),
    Hostile("null and symbol throws", "in the module", "throw null; export default 1", (EXCEPTION,)),
    Hostile("null and symbol throws", "no handler", "export default null", (EXCEPTION,)),
    Hostile("null and symbol throws", "no export", "globalThis.handle = () => 1", (EXCEPTION,)),
    Hostile("null and symbol throws", "endless module", "for (;;) {}", (TIMEOUT,), wall=0.25),
    Hostile("null and symbol throws", "stuck module", "await new Promise(() => {}); export default 1", (EXCEPTION,)),
]

_REAL: Final = (
    "; export default async (event, ctx) => { console.log('line'); ctx.remainingTimeMs(); await null;"
    " return {statusCode: 202, headers: {a: 'b'}, body: 'real'} }"
)

INTRINSICS: Final = [
    Hostile("replaced intrinsics", name, source + _REAL, (SUCCESS,), gives="real")
    for name, source in {
        "stringify": "JSON.stringify = () => 'forged'; JSON.parse = () => 'forged'",
        "toJSON of objects": "Object.prototype.toJSON = () => 'forged'",
        "toJSON of strings": "String.prototype.toJSON = () => 'forged'; Number.prototype.toJSON = () => 'forged'",
        "iterators": "Array.prototype[Symbol.iterator] = function* () { yield 'forged' }",
        "array setter": "Object.defineProperty(Array.prototype, 0, {set() { throw 'forged' }, get: () => 'forged'})",
        "promise": "globalThis.Promise = class {}; delete globalThis.Reflect",
        "then": "const { then } = Promise.prototype; Promise.prototype.then ="
        " function (a, b) { return then.call(this, () => a('forged'), b) }",
        "object natives": "Object.keys = () => ['forged']; Object.create = Object.defineProperty = () => { throw 'no' }",
        "string natives": "String.prototype.slice = globalThis.String = () => 'forged'; globalThis.Error = null",
        "number natives": "Number.isInteger = () => false; Array.isArray = () => true; Math.floor = () => 'forged'",
        "weak map": "WeakMap.prototype.get = () => 'CS_RUNTIME_CAPABILITY_DENIED'",
        "apply": "Function.prototype.apply = Function.prototype.call = () => 'forged'; Reflect.apply = () => 'forged'",
        "inherited body": "Object.prototype.body = 'forged'",
        "inherited accessor": "Object.prototype.__defineSetter__('statusCode', () => { throw 1 })",
        "species": "Object.defineProperty(Promise, Symbol.species, {get() { return class { constructor() { throw 1 } } }})",
        "array length": "Object.defineProperty(Array.prototype, 'length', {writable: false})",
        "no globals": "const G = globalThis, { log } = console;"
        " for (const name of Object.getOwnPropertyNames(G)) try { delete G[name] } catch {}; G.console = {log}",
        "frozen world": "Object.freeze(Object.prototype); Object.freeze(Array.prototype); Object.freeze(globalThis)",
    }.items()
]

FORGED: Final = [
    *in_family(
        "forged results",
        BAD,
        {
            "status too low": "return {statusCode: 99}",
            "status too high": "return {statusCode: 1e9}",
            "status that is text": "return {statusCode: '200'}",
            "status that is a bigint": "return {statusCode: 200n}",
            "status that is NaN": "return {statusCode: NaN}",
            "header that splits": "return {statusCode: 200, headers: {a: 'b\\r\\nset-cookie: evil'}}",
            "header name that splits": "return {statusCode: 200, headers: {'a\\r\\nb': 'c'}}",
            "header name of a path": "return {statusCode: 200, headers: {':path': '/evil'}}",
            "header that is an object": "return {statusCode: 200, headers: {a: {toString: () => 'x'}}}",
            "headers that are a list": "return {statusCode: 200, headers: ['a']}",
            "cookie that splits": "return {statusCode: 200, cookies: ['a=b\\nc']}",
            "cookies that are text": "return {statusCode: 200, cookies: 'a=b'}",
            "not base64": "return {statusCode: 200, isBase64Encoded: true, body: '%%%'}",
            "base64 of an object": "return {statusCode: 200, isBase64Encoded: true, body: {}}",
            "encoded perhaps": "return {statusCode: 200, isBase64Encoded: 'yes', body: ''}",
            "circle": "const a = []; a.push(a); return a",
            "symbol": "return Symbol('s')",
            "function": "return () => 1",
            "bigint": "return 1n",
            "body that is a bigint": "return {statusCode: 200, body: 1n}",
            "toJSON that throws": "return {toJSON() { throw new Error('x') }}",
        },
    ),
    *in_family(
        "forged results",
        EXCEPTION,
        {
            "status that throws": "return {get statusCode() { throw new Error('x') }}",
            "body that throws": "return {statusCode: 200, get body() { throw null }}",
            "a result that is revoked": "const p = Proxy.revocable({}, {}); p.revoke(); return p.proxy",
            "an error like the platform's": "throw Object.assign(new Error('x'), {code: 'CS_RUNTIME_CAPABILITY_DENIED',"
            " name: 'CsError'})",
            "an error like exhausted memory": "throw Object.assign(new Error('out of memory '), {name: 'InternalError'})",
        },
    ),
    Hostile(
        "forged results",
        "status that changes",
        handler("let n = 0; return {get statusCode() { return n++ ? 7 : 201 }, body: 'real'}"),
        (SUCCESS,),
        gives="real",
    ),
    Hostile(
        "forged results",
        "settled twice",
        handler("return {then(a, b) { a({statusCode: 201, body: 'real'}); a('forged'); b(new Error('forged')) }}"),
        (SUCCESS,),
        gives="real",
    ),
]

POISON: Final = [
    Hostile("prototype poisoning", name, handler(f"{body}; return 'done'"), (SUCCESS,), gives='"done"')
    for name, body in {
        "Object.prototype": "Object.prototype.poison = 1",
        "Array.prototype": "Array.prototype.concat = Array.prototype.push = () => 'poison'",
        "globals": "globalThis.poison = 1; globalThis.Array = null; globalThis.Object = null",
        "fixed globals": "Object.defineProperty(globalThis, 'poison', {value: 1, configurable: false, writable: false})",
        "promises": "Promise.prototype.then = () => { throw 'poison' }",
        "errors": "Error.prototype.toString = () => 'poison'; Error.stackTraceLimit = 0; Error.prepareStackTrace = () => 1",
        "regular expressions": "RegExp.prototype.exec = () => null; RegExp.prototype[Symbol.match] = () => 'poison'",
        "symbols": "Symbol.for('poison'); Object.prototype[Symbol.toPrimitive] = () => 'poison'",
        "prototype of the global": "Object.setPrototypeOf(globalThis, new Proxy({}, {get: () => 'poison', has: () => true}))",
        "functions": "Function.prototype.call = Function.prototype.apply = Function.prototype.bind = () => 'poison'",
        "the host": "try { cs.kv.get = () => 'poison' } catch {}; globalThis.fetch = () => 'poison'",
        "time": "Date.now = () => 0; Math.random = () => 4",
        "left behind": "setInterval(() => { globalThis.poison = 1 }, 1); queueMicrotask(() => { globalThis.poison = 1 })",
        "environment": "cs.env.get('x'); Object.prototype.TOKEN = 'poison'",
    }.items()
]

TEXT: Final = [
    *in_family(
        "surrogates and NULs",
        SUCCESS,
        {
            "lone surrogate": "return '\\ud800'",
            "lone surrogates in keys": "return {['\\udfff\\ud800']: '\\ud800'}",
            "surrogate body": "return {statusCode: 200, body: 'a\\udc00b'}",
            "surrogate line": "console.log('\\ud800', {a: '\\udbff'}); return 1",
            "surrogate key of the store": "await cs.kv.set('k\\ud800', '\\udc00'); return 1",
            "NUL": "return 'a\\0b'",
            "NUL body": "return {statusCode: 200, body: 'a\\0b'}",
            "NUL line": "console.log('a\\0b'); return 1",
            "NUL key of the store": "await cs.kv.set('k\\0', '\\0'); return 1",
            "every unit": "let s = ''; for (let i = 0; i < 65536; i++) s += String.fromCharCode(i); console.log(s); return 1",
        },
    ),
    *in_family(
        "surrogates and NULs",
        EXCEPTION,
        {
            "thrown surrogate": "throw '\\ud800'",
            "surrogate message": "throw new Error('\\ud800\\0')",
            "surrogate name": "throw Object.assign(new Error('x'), {name: '\\ud800\\0'})",
        },
    ),
    *in_family(
        "surrogates and NULs",
        BAD,
        {
            "NUL header": "return {statusCode: 200, headers: {a: 'b\\0c'}}",
            "surrogate header": "return {statusCode: 200, headers: {a: '\\ud800'}}",
            "surrogate cookie": "return {statusCode: 200, cookies: ['\\ud800']}",
        },
    ),
    Hostile("surrogates and NULs", "NUL in the source", "export default () => '\0'; \0", (EXCEPTION,)),
    Hostile(
        "surrogates and NULs",
        "surrogate export",
        "export default () => 1; export {x as '\\ud800'}; let x",
        (EXCEPTION,),
    ),
]

VALUES: Final = [*FORMATTING, *THROWS, *INTRINSICS, *FORGED, *POISON, *TEXT]
