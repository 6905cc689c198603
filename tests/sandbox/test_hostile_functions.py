"""Every hostile function of the table ends as it must, in time and within its limits, and harms nobody after it."""

import asyncio
import json
import os
from pathlib import Path

import pytest
import pytest_asyncio
from codesous.type.v1.activation_status_pb2 import (
    ACTIVATION_STATUS_ERROR,
    ACTIVATION_STATUS_SUCCESS,
    ACTIVATION_STATUS_TIMEOUT,
)

from cs_sandbox import CellPool, PoolSettings
from cs_sandbox.cell_process import CellState
from cs_sandbox.job import KIB, MIB
from cs_sandbox.local import LocalHostCalls
from tests.sandbox.hostile import SUCCESS, TIMEOUT, handler
from tests.sandbox.hostile_functions import ALLOCATIONS, HOSTILE
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

FULL = os.environ.get("CODE_SOUS_TEST_SCALE") == "full"
KILL_WITHIN = 0.25
FULL_AGAIN_WITHIN = 1.0
BESIDE_THE_HEAP = 192 * MIB
"""What a cell may have resident beyond the limit of its run: its own code, and the headroom that the jail leaves."""

GOOD = """
export default () => {
  const wrong = [];
  if (Object.keys(Object.prototype).length || "poison" in {} || "TOKEN" in {}) wrong.push("objects");
  if ("poison" in globalThis || typeof Array !== "function" || typeof fetch !== "function") wrong.push("globals");
  if ([1].concat([2]).length !== 2 || [].push(1) !== 1) wrong.push("arrays");
  if (String(new Error("a")) !== "Error: a" || typeof new Error().stack !== "string") wrong.push("errors");
  if (!/x/.exec("x") || "x".match(/x/)[0] !== "x") wrong.push("expressions");
  if (Date.now() < 1e12 || Math.random() === 4) wrong.push("time");
  if ((function () { return this.a }).call({a: 1}) !== 1) wrong.push("functions");
  return wrong;
};
"""


class Host(LocalHostCalls):
    """Answers, unless it is asked to be stuck or broken."""

    async def call(self, method, arguments):
        if arguments and arguments[0] == "stuck":
            await asyncio.Event().wait()
        if arguments and arguments[0] == "broken":
            raise RuntimeError("broken")
        return await super().call(method, arguments)


class Lag:
    """How late the event loop itself was at worst: on a busy machine, what no promise of ours can undo."""

    def __init__(self):
        self.worst = 0.0

    async def __aenter__(self):
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self):
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.005
            await asyncio.sleep(0.005)
            self.worst = max(self.worst, loop.time() - due)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def attacked():
    async with CellPool(PoolSettings(cells_max=2)) as pool:
        yield pool


def is_full(pool):
    """Whether nothing is left of a run and a cell is ready for whoever comes next."""
    cells = pool.cells()
    return all(cell.state is CellState.IDLE for cell in cells) and any(cell.tenant is None for cell in cells)


async def expect_unharmed(pool, job, lag):
    loop = asyncio.get_running_loop()
    since = loop.time()
    await wait_until(lambda: is_full(pool))
    assert loop.time() - since <= FULL_AGAIN_WITHIN + 4 * lag.worst
    for tenant in ("t_hostile1", "t_neighbour1"):
        outcome = await pool.run(job(GOOD, tenant=tenant), Host())
        assert outcome.status == ACTIVATION_STATUS_SUCCESS, outcome.error
        assert outcome.response.body == "[]"


def end_of(outcome):
    return outcome.error.reason.removeprefix("CS_RUNTIME_") if outcome.error else SUCCESS


def expect_bounded(outcome):
    assert sum(len(entry.message.encode()) for entry in outcome.logs) <= MIB + 100
    assert outcome.response is None or outcome.response.ByteSize() <= 256 * KIB
    assert outcome.error is None or outcome.error.ByteSize() <= 64 * KIB
    assert outcome.error is None or len(outcome.error.stack.encode()) <= 8 * KIB


@pytest.mark.parametrize("function", HOSTILE, ids=lambda function: function.id)
async def test_a_hostile_function_ends_as_it_must_and_harms_nobody(function, attacked, job):
    async with Lag() as lag:
        work = job(function.source, tenant="t_hostile1", wall=function.wall, memory_bytes=function.memory_mib * MIB)
        outcome = await attacked.run(work, Host())
        end = end_of(outcome)
        assert end in function.ends, outcome.error
        assert function.gives is None or outcome.response.body == function.gives
        expected = {TIMEOUT: ACTIVATION_STATUS_TIMEOUT, SUCCESS: ACTIVATION_STATUS_SUCCESS}
        assert outcome.status == expected.get(end, ACTIVATION_STATUS_ERROR)
        late = (outcome.end - outcome.start).total_seconds() - function.wall
        assert late <= KILL_WITHIN + lag.worst
        expect_bounded(outcome)
        await expect_unharmed(attacked, job, lag)


async def test_the_table_has_every_family_and_no_function_twice():
    families = {function.family for function in HOSTILE}
    assert families >= {
        *("endless natives", "promise storms", "error formatting", "null and symbol throws", "replaced intrinsics"),
        *("forged results", "prototype poisoning", "surrogates and NULs", "deep nesting", "huge results and logs"),
        *("regular expressions", "recursion", "frame floods", "stuck host calls"),
    }
    assert len({function.id for function in HOSTILE}) == len(HOSTILE) >= 80


async def test_without_the_kill_a_native_call_goes_on_past_its_deadline(job):
    # The control: with the supervisor's patience set so long that it does not kill, such a call is as late as it likes.
    from datetime import timedelta

    body = "const a = []; a.length = 2 ** 32 - 1; return JSON.stringify(a).length"
    async with CellPool(PoolSettings(cells_max=1, kill_grace=timedelta(seconds=1.5))) as patient:
        outcome = await patient.run(job(handler(body), wall=0.25), Host())
    assert (outcome.end - outcome.start).total_seconds() - 0.25 > KILL_WITHIN


class Resident:
    """The most that any cell of a pool was seen to have resident, by the kernel's count."""

    def __init__(self, pool):
        self._pool = pool
        self.worst = 0

    async def __aenter__(self):
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self):
        while True:
            for cell in self._pool.cells():
                self.worst = max(self.worst, resident(cell.pid))
            await asyncio.sleep(0.005)


def resident(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) * KIB if "VmHWM:" in status else 0


SIZES = (16, 32, 64, 128, 256)
SWEEP = [
    (name, size)
    for turn, name in enumerate(ALLOCATIONS)
    for size in SIZES
    if FULL or size in (SIZES[turn % 5], SIZES[(turn + 2) % 5])
]


@pytest.mark.parametrize(("name", "size"), SWEEP, ids=[f"{name} in {size} MiB" for name, size in SWEEP])
async def test_memory_is_limited_whatever_takes_it(name, size, attacked, job):
    work = job(handler(ALLOCATIONS[name]), tenant="t_hostile1", wall=3.0, memory_bytes=size * MIB)
    async with Lag() as lag, Resident(attacked) as memory:
        outcome = await attacked.run(work, Host())
        assert outcome.status in (ACTIVATION_STATUS_ERROR, ACTIVATION_STATUS_TIMEOUT)
        assert end_of(outcome) in ("MEMORY_LIMIT", "EXCEPTION", "TIMEOUT", "RESULT_TOO_LARGE", "BAD_RESPONSE")
        assert memory.worst <= size * MIB + BESIDE_THE_HEAP
        expect_bounded(outcome)
        await expect_unharmed(attacked, job, lag)


@pytest.mark.parametrize("name", ["arrays", "buffers", "objects", "map"])
async def test_plain_exhaustion_is_told_as_the_memory_limit(name, attacked, job):
    work = job(handler(ALLOCATIONS[name]), tenant="t_hostile1", wall=20.0, memory_bytes=32 * MIB)
    outcome = await attacked.run(work, Host())
    assert outcome.error.reason == "CS_RUNTIME_MEMORY_LIMIT"
    assert "32 MiB" in outcome.error.message


async def test_a_cell_with_a_higher_limit_takes_what_a_lower_one_would_not_give(attacked, job):
    # The control of the sweep: the same allocation passes the bound of 16 MiB when its limit is another.
    work = job(handler(ALLOCATIONS["buffers"]), tenant="t_hostile1", wall=10.0, memory_bytes=512 * MIB)
    async with Resident(attacked) as memory:
        await attacked.run(work, Host())
        assert memory.worst > 16 * MIB + BESIDE_THE_HEAP


SEEN = """
const places = {
  globalThis, object: Object.prototype, array: Array.prototype, function: Function.prototype,
  promise: Promise.prototype, error: Error.prototype, map: Map.prototype, regexp: RegExp.prototype,
  string: String.prototype,
  Math, JSON, Reflect, console, get: cs.kv.get, symbol: Symbol, generator: Object.getPrototypeOf(function* () {}),
  iterator: Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]())), template: ((t) => t)`x`.constructor,
};
const seen = [];
for (const name of Object.keys(places)) {
  const mark = Object.getOwnPropertyDescriptor(places[name], "mark");
  if (mark !== undefined) seen.push(name + " of " + mark.value);
  Object.defineProperty(places[name], "mark", {value: OWNER, configurable: true, writable: true, enumerable: false});
}
if (Error.stackTraceLimit === 3) seen.push("stackTraceLimit");
Error.stackTraceLimit = 3;
if ([1, 2].includes === Array.prototype.indexOf) seen.push("includes");
Array.prototype.includes = Array.prototype.indexOf;
globalThis.owners = (globalThis.owners ?? "") + OWNER;
if (globalThis.owners !== OWNER) seen.push("owners");
"""


async def test_nothing_crosses_between_a_thousand_alternating_activations_of_two_tenants(attacked, job):
    tenants = ("t_first1", "t_second1")
    modules = {tenant: SEEN.replace("OWNER", json.dumps(tenant)) + "export default () => seen" for tenant in tenants}
    owners = {}
    for number in range(1000):
        tenant = tenants[number % 2]
        outcome = await attacked.run(job(modules[tenant], tenant=tenant), Host())
        assert outcome.status == ACTIVATION_STATUS_SUCCESS, outcome.error
        assert outcome.response.body == "[]", f"activation {number}"
        for cell in attacked.cells():
            if cell.tenant is not None:
                assert owners.setdefault(cell.pid, cell.tenant) == cell.tenant


async def test_the_same_check_in_one_shared_context_sees_what_crosses(attacked, job):
    # The control: both tenants' code in one context, one after the other.
    first, second = (SEEN.replace("OWNER", json.dumps(tenant)) for tenant in ("t_first1", "t_second1"))
    shared = f"const one = () => {{ {first} return seen }}; const two = () => {{ {second} return seen }};"
    outcome = await attacked.run(job(shared + "export default () => [one(), two()]"), Host())
    one, two = json.loads(outcome.response.body)
    assert one == []
    assert {"globalThis of t_first1", "object of t_first1", "get of t_first1", "owners", "includes"} <= set(two)
    assert len(two) >= 18
