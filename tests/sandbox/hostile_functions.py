"""Every hostile function, and the bodies that only take memory."""

from __future__ import annotations

from typing import Final

from tests.sandbox.hostile_values import VALUES
from tests.sandbox.hostile_work import WORK

HOSTILE: Final = [*WORK, *VALUES]

ALLOCATIONS: Final = {
    "arrays": "const a = []; for (;;) a.push(new Array(1000).fill(1))",
    "caught": "const a = []; for (;;) { try { for (;;) a.push(new Array(1000).fill(1)) } catch { a.push(1) } }",
    "strings": "let s = 'x'; const a = []; for (;;) { s += s; a.push(s + a.length) }",
    "buffers": "const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))",
    "one buffer": "return new Uint8Array(2 ** 32).fill(7).length",
    "growing buffer": "const b = new ArrayBuffer(1, {maxByteLength: 2 ** 33}); for (let n = 1; ; n *= 2) b.resize(n)",
    "shared buffers": "const a = []; for (;;) a.push(new Uint8Array(new SharedArrayBuffer(1 << 20)).fill(1))",
    "objects": "let o = null; for (;;) o = {o, p: {}}",
    "closures": "const a = []; for (;;) a.push(() => a)",
    "promises": "const a = []; for (;;) a.push(new Promise(() => {}).then(() => {}))",
    "bigint": "let a = 3n; for (;;) a = a ** 3n",
    "map": "const m = new Map(); for (let i = 0; ; i++) m.set(i, {i})",
    "regexp": "const a = []; for (let i = 0; ; i++) a.push(new RegExp('a{0,' + i + '}'))",
    "symbols": "const a = []; for (let i = 0; ; i++) a.push(Symbol.for('s' + i))",
    "functions": "const a = []; for (let i = 0; ; i++) a.push(new Function('return ' + i))",
    "errors": "const a = []; for (;;) try { null.x } catch (e) { a.push(e) }",
    "generators": "const a = []; for (;;) { const g = (function* () { yield 1 })(); g.next(); a.push(g) }",
    "cookies": "const c = []; c.length = 1e7; c.fill('x'); return {statusCode: 200, cookies: c}",
    "timers": "for (;;) try { for (;;) setTimeout(() => {}, 1e6) } catch {}",
    "result": "const a = 'x'.repeat(1e6); return new Array(1e4).fill(a)",
}
"""Bodies that take memory without end, or more than any limit in the sweep."""
