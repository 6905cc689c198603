"""2: activations that have not ended are noted by when they should have.

What was accepted before that was noted, and whose message was lost with its publisher, would wait until its record
goes: nothing would ever end it.
"""

from __future__ import annotations

from codesous.queue.v1.invocation_pb2 import InvocationRequest

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.migrations.step import Step
from cs_core.store.overdue import end_moment, end_name
from cs_core.store.scripts import load_script

_NOTE_END = load_script("cs_core.store", "note_end")
_OPEN = (b"QUEUED", b"RUNNING")


async def _change(client: KvClient, key: str, *, dry: bool) -> int:
    partition = int(key.partition("{p")[2].partition("}")[0])
    state, stored = await client.call("HMGET", key, "state", "request")
    if state not in _OPEN or stored is None:
        return 0
    request = InvocationRequest.FromString(stored)
    ends, name = keys.ends(partition), end_name(request.function.tenant, request.activation_id)
    if dry:
        return int(await client.call("ZSCORE", ends, name) is None)
    moment = end_moment(request) if request.HasField("deadline") else ""
    return int(await client.script(_NOTE_END, [key, ends], [name, moment]))


STEP = Step(
    version=2,
    title="note by when activations that have not ended should have",
    prefix="cs:{p",
    infix="}:activation:",
    change=_change,
)
