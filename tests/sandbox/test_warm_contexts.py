"""A context that is kept between the runs of a version keeps its module's state, and nothing that could act later.

The tests of what must not cross run the cell's own parts in this process, so that each has a control in which its guard
is off and the next run is reached.
"""

import asyncio
import json
from dataclasses import replace
from importlib import resources

import pytest
from codesous.cell.v1 import frames_pb2
from codesous.type.v1.activation_status_pb2 import ACTIVATION_STATUS_SUCCESS

from cs_sandbox import CellPool, PoolSettings, cell, context, guest_code
from cs_sandbox.activation import Activation
from cs_sandbox.context import NOBODY, Context
from cs_sandbox.engine import Engine
from cs_sandbox.local import LocalHostCalls
from cs_sandbox.shelf import Shelf

MIB = 1 << 20
COUNT = "let count = 0; export default (event) => { count += 1; if (event?.fail) throw new Error('no'); return count }"


class Warm:
    """A context that serves one run after the other, as a cell would have it serve them."""

    def __init__(self, source, monkeypatch):
        self.frames = []
        self._runs = 0
        self._monkeypatch = monkeypatch
        bundle = frames_pb2.LoadBundle(bundle_sha256="x", entry="index.js", files={"index.js": source.encode()})
        self.context = Context(bundle, {})

    def begin(self, event=None, **env):
        self._runs += 1
        run = frames_pb2.Run(
            run_id=self._runs,
            event=json.dumps(event).encode(),
            context=b"{}",
            env=env,
            memory_bytes=32 * MIB,
            timeout_ms=10_000,
            log_limit_bytes=MIB,
            result_limit_bytes=MIB,
            error_limit_bytes=MIB,
            stack_limit_bytes=MIB,
            host_calls_in_flight=8,
        )
        activation = Activation(run, self.context, self.frames.append)
        activation.advance()
        return activation

    def run(self, event=None, **env):
        activation = self.begin(event, **env)
        while not activation.done:
            activation.advance()
        return self.result()

    def result(self):
        """The result of the last run that gave one."""
        results = [frame.result for frame in self.frames if frame.WhichOneof("frame") == "result"]
        return json.loads(results[-1].response.body) if results[-1].response.body else results[-1].error.reason

    @property
    def lines(self):
        """Who logged what."""
        return [(f.log.run_id, f.log.message) for f in self.frames if f.WhichOneof("frame") == "log"]

    def end(self, guarded=True):
        """The end of a run; without the guard, the context is given to the next run as it is."""
        if guarded:
            return self.context.end(32 * MIB)
        self.context.serving = NOBODY
        return True


@pytest.fixture
def warm(monkeypatch):
    made = []

    def make(source):
        made.append(Warm(source, monkeypatch))
        return made[-1]

    yield make
    for one in made:
        if not one.context.in_doubt:
            one.context.close()


def patch_prelude(monkeypatch, *changes):
    """Contexts from now on have a prelude without a guard."""
    source = resources.files("cs_sandbox").joinpath("guest", "prelude.js").read_text()
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    engine = Engine()
    patched = replace(guest_code.guest_code(), prelude=engine.compile_script(source.encode(), "cs:prelude"))
    engine.close()
    monkeypatch.setattr(context, "guest_code", lambda: patched)


guards = pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "control: guard off"])


def test_the_state_of_a_module_is_kept(warm):
    one = warm(COUNT)
    for expected in (1, 2, 3):
        assert one.run() == expected
        assert one.end()


@guards
def test_promise_jobs_that_a_run_left_do_not_run_in_the_next(warm, guarded):
    one = warm("""export default (name) => {
      if (name === 'second') return new Promise((done) => setTimeout(() => done('ok'), 1));
      (async () => { for (let i = 0; i < 50; i++) await null; console.log(`left by ${name}`); cs.kv.get('x') })();
      return 'ok' }""")
    assert one.run("first") == "ok"
    assert one.end(guarded)
    assert one.run("second") == "ok"
    assert one.lines == ([] if guarded else [(2, "left by first")])
    asked = [frame.host_call.run_id for frame in one.frames if frame.WhichOneof("frame") == "host_call"]
    assert asked == ([] if guarded else [2])


def test_a_context_whose_promise_jobs_do_not_end_is_not_kept(warm):
    one = warm("export default () => { (async () => { for (;;) await null })(); return 1 }")
    assert one.run() == 1
    assert not one.end()
    assert not one.context.in_doubt


def test_a_context_in_which_a_job_does_not_end_is_not_even_freed(warm):
    one = warm(
        "export default () => { (async () => { for (let i = 0; i < 9; i++) await null; for (;;); })(); return 1 }"
    )
    assert one.run() == 1
    assert not one.end()
    assert one.context.in_doubt


TIMERS = """let old;
export default (name) => {
  if (name === 'first') { old = setTimeout(() => console.log('timer of the first'), 0); return 'set' }
  return new Promise((done) => {
    setTimeout(() => done('my own timer'), 1); clearTimeout(old); setTimeout(() => done('lost'), 50) }) }"""


@guards
def test_timers_of_a_run_are_gone_and_their_numbers_are_not_used_again(warm, guarded):
    one = warm(TIMERS)
    assert one.run("first") == "set"
    assert one.end()
    if not guarded:
        one.context.last_timer = 0
    assert one.run("second") == ("my own timer" if guarded else "lost")
    assert one.lines == []


@guards
def test_an_answer_that_comes_late_finds_nobody(warm, guarded):
    one = warm("""let kept;
    export default async (name) => {
      if (name === 'first') { kept = cs.kv.get('secret of the first'); return 'asked' }
      try { return await Promise.race([kept, cs.kv.get('own')]) } catch (e) { return e.code } }""")
    assert one.run("first") == "asked"
    assert one.end(guarded)
    if not guarded:
        one.context.last_call = 0
    second = one.begin("second")
    # The answer to the call of the first run. A cell drops it by the id of its run; here even the number tells.
    late = frames_pb2.HostCallResult(run_id=1, call_id=1, value=b'"late"')
    second.take(late)
    second.advance()
    assert one.result() == ("CS_RUNTIME_CANCELLED" if guarded else "late")


@guards
def test_the_context_argument_of_a_run_says_nothing_of_the_next(warm, guarded, monkeypatch):
    if not guarded:
        patch_prelude(monkeypatch, ("run === current ? floor(remaining()) : 0", "floor(remaining())"))
    one = warm("""let old;
    export default (name, ctx) => { const first = old ?? ctx; old = first;
      return [first.remainingTimeMs() > 0, ctx.remainingTimeMs() > 0] }""")
    assert one.run() == [True, True]
    assert one.end()
    assert one.run() == [not guarded, True]


@guards
def test_what_is_left_of_a_run_cannot_give_the_result_of_the_next(warm, guarded, monkeypatch):
    if not guarded:
        patch_prelude(monkeypatch, ("if (run === current) deliver(value)", "deliver(value)"))
    # The first run fails in a timer while its handler waits. It would not be kept; if it were, this is the second wall.
    one = warm("""let settle;
    export default (name) => {
      if (name === 'first') { setTimeout(() => { throw new Error('no') }, 0); return new Promise((d) => settle = d) }
      settle('forged');
      return new Promise((done) => setTimeout(() => done('real'), 5)) }""")
    assert one.run("first") == "CS_RUNTIME_EXCEPTION"
    assert one.end()
    assert one.run("second") == ("real" if guarded else "forged")


@guards
def test_garbage_collection_calls_nothing_back(warm, guarded, monkeypatch):
    if not guarded:
        patch_prelude(
            monkeypatch,
            ('hide(G, "FinalizationRegistry", class', "(class"),
            ("unregister() { return false; }\n  });", "unregister() { return false; }\n  });"),
        )
    one = warm("""const registry = new FinalizationRegistry((held) => console.log(held));
    export default (name) => {
      if (name === 'first') {
        const o = {}; registry.register(o, 'left by the first'); globalThis.o = o; return 1 }
      globalThis.o = null; return 2 }""")
    assert one.run("first") == 1
    assert one.end()
    assert one.run("second") == 2
    one.context.engine.collect_garbage()
    assert one.run("second") == 2
    assert one.lines == ([] if guarded else [(2, "left by the first")])


@guards
def test_the_environment_of_a_run_is_taken_away(warm, guarded, monkeypatch):
    if not guarded:
        patch_prelude(monkeypatch, ("    empty(environment);\n", ""))
    one = warm("export default () => cs.env.get('KEY') ?? 'none'")
    assert one.run(KEY="first") == "first"
    assert one.end()
    assert one.run() == ("none" if guarded else "first")


def test_what_user_code_kept_of_the_host_api_acts_for_the_run_that_is_on(warm):
    one = warm("""let saved;
    export default (name) => { saved ??= console.log; saved(name); return 1 }""")
    for name in ("first", "second"):
        assert one.run(name) == 1
        assert one.end()
    assert one.lines == [(1, "first"), (2, "second")]


def test_nothing_acts_between_two_runs(warm):
    one = warm("""export default () => {
      const keep = (name) => (error) => { globalThis[name] = error.code ?? error.name };
      (async () => { for (let i = 0; i < 20; i++) await null; console.log('late'); setTimeout(() => {}, 0) })()
        .catch(keep('timer'));
      cs.kv.get('k').catch((error) => { keep('call')(error); cs.kv.get('k').catch(keep('again')) });
      return [globalThis.timer, globalThis.call, globalThis.again] }""")
    assert one.run() == [None, None, None]
    assert one.end()
    assert one.run() == ["RangeError", "CS_RUNTIME_CANCELLED", "CS_RUNTIME_CANCELLED"]
    assert one.lines == []


def test_a_context_is_not_kept_after_its_number_of_runs(warm, monkeypatch):
    monkeypatch.setattr(context, "RUNS_MAX", 3)
    one = warm(COUNT)
    kept = []
    for _ in range(3):
        one.run()
        kept.append(one.end())
    assert kept == [True, True, False]


def test_a_context_that_grew_is_not_kept(warm):
    one = warm("const all = []; export default () => { all.push(new Uint8Array(5 << 20).fill(1)); return all.length }")
    kept = []
    for _ in range(4):
        one.run()
        kept.append(one.end())
    assert kept == [True, True, True, False]


def test_garbage_in_cycles_does_not_count_as_growth(warm):
    one = warm(
        "export default () => { for (let i = 0; i < 5; i++) { const o = {b: new Uint8Array(1e6)}; o.o = o } return 1 }"
    )
    for _ in range(10):
        assert one.run() == 1
        assert one.end()


# In cells.


@pytest.fixture
async def single():
    async with CellPool(PoolSettings(cells_max=1)) as pool:
        yield pool


def body(outcome):
    return json.loads(outcome.response.body) if outcome.response else outcome.error.reason


async def test_runs_of_a_warm_version_share_its_state_and_others_do_not(single, job):
    async def run(key, **options):
        return body(await single.run(replace(job(COUNT, **options), warm_key=key), LocalHostCalls()))

    assert [await run("one") for _ in range(3)] == [1, 2, 3]
    # Another version with the very same code, and the same code without a key.
    assert [await run("two"), await run(""), await run(""), await run("two"), await run("one")] == [1, 1, 1, 2, 4]
    # Another tenant that uses the same key is in another cell.
    assert await run("one", tenant="t_other1") == 1


async def test_the_environment_of_one_version_is_not_another_ones(single, job):
    source = "const first = cs.env.get('KEY'); export default () => [first, cs.env.get('KEY')]"

    async def run(key, value):
        return body(await single.run(replace(job(source, env={"KEY": value}), warm_key=key), LocalHostCalls()))

    for _ in range(2):
        assert await run("one", "of one") == ["of one", "of one"]
        assert await run("two", "of two") == ["of two", "of two"]


ENDS = {
    "a throw": "throw new Error('no')",
    "a throw in a timer": "setTimeout(() => { throw new Error('no') }, 0); return new Promise(() => {})",
    "a bad response": "return {statusCode: 7}",
    "a timeout": "return new Promise((done) => setTimeout(done, 60000))",
    "an interrupt": "for (;;) {}",
    "exhausted memory": "const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))",
    "a promise that never settles": "return new Promise(() => {})",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_a_context_is_not_kept_after_a_run_that_failed(single, job, end):
    source = f"let count = 0; export default (fail) => {{ count += 1; if (fail) {{ {end} }} return count }}"

    async def run(fail):
        wanted = replace(job(source, event=fail, wall=0.7 if fail else 10.0, memory_bytes=32 * MIB), warm_key="k")
        return body(await single.run(wanted, LocalHostCalls()))

    assert [await run(False), await run(False)] == [1, 2]
    assert str(await run(True)).startswith("CS_RUNTIME_")
    assert await run(False) == 1


class Gate:
    def __init__(self):
        self.asked = 0
        self.open = asyncio.Event()

    async def call(self, _method, _arguments):
        self.asked += 1
        await self.open.wait()


async def test_a_warm_context_serves_one_run_at_a_time(single, job):
    source = """let count = 0;
    export default async (name) => { const mine = ++count; await cs.kv.get('k'); console.log(name); return mine }"""
    gate = Gate()
    jobs = [replace(job(source, event=f"n{n}"), warm_key="k") for n in range(3)]
    runs = [asyncio.create_task(single.run(one, gate)) for one in jobs]
    async with asyncio.timeout(20):
        while gate.asked < 3:
            await asyncio.sleep(0.01)
    gate.open.set()
    outcomes = await asyncio.gather(*runs)
    assert [body(outcome) for outcome in outcomes] == [1, 1, 1]
    assert [[line.message for line in outcome.logs] for outcome in outcomes] == [["n0"], ["n1"], ["n2"]]
    # All three contexts are kept, and serve again.
    assert [body(await single.run(jobs[0], gate)) for _ in range(3)] == [2, 3, 4]


async def test_a_cancelled_run_takes_its_context_with_it(single, job):
    source = "let count = 0; export default async (ask) => { count += 1; if (ask) await cs.kv.get('k'); return count }"
    gate, cancel = Gate(), asyncio.Event()
    assert body(await single.run(replace(job(source), warm_key="k"), gate)) == 1
    other = asyncio.create_task(single.run(job(source, event=1), gate))
    gone = asyncio.create_task(single.run(replace(job(source, event=1), warm_key="k"), gate, None, cancel))
    async with asyncio.timeout(20):
        while gate.asked < 2:
            await asyncio.sleep(0.01)
    cancel.set()
    assert body(await gone) == "CS_RUNTIME_CANCELLED"
    gate.open.set()
    assert (await other).status == ACTIVATION_STATUS_SUCCESS
    assert body(await single.run(replace(job(source), warm_key="k"), gate)) == 1


async def test_the_lines_of_a_run_are_its_own_and_end_with_it(single, job):
    source = """export default async (name) => {
      console.log(`begin ${name}`);
      (async () => { for (let i = 0; i < 20; i++) await null; console.log(`late ${name}`) })();
      setTimeout(() => console.log(`timer ${name}`), 0);
      return name }"""
    for number in range(10):
        wanted = replace(job(source, event=f"n{number}"), warm_key="k")
        outcome = await single.run(wanted, LocalHostCalls())
        assert [line.message for line in outcome.logs] == [f"begin n{number}"]


# The shelf.


def make_context(name, size=0):
    source = f"export default 1; globalThis.kept = new Uint8Array({size}).fill(1)"
    made = Context(frames_pb2.LoadBundle(bundle_sha256=name, entry="index.js", files={"index.js": source.encode()}), {})
    run = frames_pb2.Run(event=b"1", context=b"{}", memory_bytes=64 * MIB, timeout_ms=10_000)
    Activation(run, made, lambda _: None).advance()
    return made


def test_the_shelf_gives_the_context_that_was_used_last_and_drops_what_was_not_used_for_longest(monkeypatch):
    monkeypatch.setattr("cs_sandbox.shelf.CONTEXTS_MAX", 3)
    shelf = Shelf()
    contexts = {name: make_context(name) for name in "abcd"}
    for name in "abc":
        shelf.put(name, contexts[name])
    taken = shelf.take("a")
    assert taken is contexts["a"]
    assert shelf.take("a") is None
    shelf.put("a", taken)
    shelf.put("d", contexts["d"])
    assert ["a" in shelf, "b" in shelf, "c" in shelf, "d" in shelf] == [True, False, True, True]
    shelf.forget("c")
    assert "c" not in shelf
    for name in "ad":
        shelf.take(name).close()


def test_the_shelf_is_bounded_by_memory():
    shelf = Shelf(bytes_max=4 * MIB)
    shelf.put("small", make_context("small"))
    shelf.put("large", make_context("large", 3 * MIB))
    assert "small" in shelf
    shelf.put("more", make_context("more", 2 * MIB))
    assert ["small" in shelf, "large" in shelf, "more" in shelf] == [False, False, True]
    shelf.take("more").close()


def test_contexts_are_prepared_for_every_bundle_that_ran_lately(monkeypatch):
    import socket

    monkeypatch.setattr("cs_sandbox.jail.limit_memory", lambda _: None)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        served = cell.Cell(theirs, 0)
        for number, name in enumerate("abc", 1):
            load = frames_pb2.LoadBundle(bundle_sha256=name, entry="i.js", files={"i.js": b"export default () => 1"})
            served._dispatch(frames_pb2.ToCell(load=load))
            run = frames_pb2.Run(
                run_id=number, bundle_sha256=name, event=b"1", context=b"{}", memory_bytes=MIB * 16, timeout_ms=10_000
            )
            served._dispatch(frames_pb2.ToCell(run=run))
            served._give_turn(served._runs[number])
        assert all(name in served._shelf for name in "abc")
        served._dispatch(frames_pb2.ToCell(unload=frames_pb2.UnloadBundle(bundle_sha256="b")))
        assert ["a" in served._shelf, "b" in served._shelf, "c" in served._shelf] == [True, False, True]
        for name in "ac":
            served._shelf.forget(name)
