"""Syntax errors are found without running anything, in a jailed cell."""

from cs_sandbox import CellPool, Diagnostic, check_syntax


async def test_each_fault_is_reported_once_with_its_position():
    async with CellPool() as pool:
        found = await pool.check_syntax(
            {
                "index.js": b'import { a } from "./b.js";\nexport default () => a',
                "b.js": b"export const a = 1;\n  let = ;",
                "c.mjs": b"\nfoo bar",
                "manifest.json": b"{",
                "good.js": b"throw new Error('not run')",
            }
        )
    assert [(fault.file, fault.line) for fault in found] == [("b.js", 2), ("c.mjs", 2)]
    assert all(fault.column > 0 and fault.message for fault in found)


async def test_a_missing_import_and_a_missing_export_are_found():
    found = await check_syntax({"index.js": b'import "./nope.js"', "a.js": b'import { x } from "./b.js"', "b.js": b""})
    assert ("index.js", "cannot find module 'nope.js'") in [(fault.file, fault.message) for fault in found]


async def test_sound_modules_give_nothing():
    assert await check_syntax({"index.js": b"export default async (e, ctx) => { for (;;) {} }"}) == []


async def test_text_that_is_no_text_or_too_much_is_a_fault_and_harms_nobody():
    async with CellPool() as pool:
        assert await pool.check_syntax({"index.js": b"\xff\xfe\x00"}) != []
        assert await pool.check_syntax({"index.js": b"export default " + b"(" * 500_000}) != []
        assert await pool.check_syntax({"index.js": b"1"}) == []
        assert isinstance((await pool.check_syntax({"a.js": b"("}))[0], Diagnostic)
