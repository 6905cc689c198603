"""What `cs top` shows: one page of lines that fits the terminal, however small it is.

Each part (processes, queue, cells, functions) is a heading and rows. The processes are always all there; what is left
of the height goes to the other parts in equal shares, and what one part does not need goes to the next.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from codesous.admin.v1.process_pb2 import CellState, PartitionDepth
from codesous.queue.v1.envelope_pb2 import Lane
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from cs_cli.admin_tables import short
from cs_cli.output import size
from cs_cli.top.rates import FunctionRates, ProcessRates, function_rates, process_rates
from cs_cli.top.snapshot import Snapshot

_STYLES: Final = {"ready": "green", "drained": "yellow", "not_serving": "red", "missing": "red"}
_RULES: Final = "bold"
Row = Sequence[str]


def page(before: Snapshot, after: Snapshot, width: int, height: int | None, interval: float) -> Text:
    """The page: at most `height` lines (None: as many as there are) of at most `width` columns."""
    processes = process_rates(before, after)
    blocks = [
        _block(("PROCESS", "STATE", "CALLS/S", "FAILED/S", "P99", "INFLIGHT"), _process_rows(processes), "nobody"),
        _block(("QUEUE", "LANE", "READY", "OLDEST", "LEASED", "DELAYED", "TENANTS"), _queue_rows(after), _empty(after)),
        _block(("CELLS", "BUSY", "IDLE", "MEMORY", "OLDEST", "RUNS"), _cell_rows(after), "no cells"),
        _block(("FUNCTION", "TENANT", "RUNS/S", "MEAN", "NOW"), _function_rows(function_rates(before, after)), "idle"),
    ]
    lines = [_header(after, processes, interval)]
    rooms = _rooms([len(block) for block in blocks], None if height is None else height - 1)
    for block, room in zip(blocks, rooms, strict=True):
        lines += _cut(block, room)
    text = Text()
    for index, line in enumerate(lines[:height]):
        text.append("\n" if index else "")
        line.truncate(width)
        text.append_text(line)
    return text


def _header(after: Snapshot, processes: Sequence[ProcessRates], interval: float) -> Text:
    ready = sum(each.state == "ready" for each in processes)
    letters = after.queue.dead_letters if after.queue is not None else 0
    clock = time.strftime("%H:%M:%S", time.localtime(after.wall))
    text = Text(f"cs top {clock}  ", style="bold")
    text.append(f"{ready}/{len(processes)} ready", style="green" if ready == len(processes) else "red")
    text.append(f"  dead letters {letters}", style="red" if letters else "")
    text.append(f"  every {interval:g}s  q quits", style="dim")
    return text


def _process_rows(processes: Sequence[ProcessRates]) -> list[Row]:
    return [
        (each.name, each.state, each.error)
        if each.error
        else (
            each.name,
            each.state,
            f"{each.calls:.1f}",
            f"{each.failed:.1f}",
            "-" if each.p99 is None else short(each.p99),
            str(each.inflight),
        )
        for each in processes
    ]


def _empty(after: Snapshot) -> str:
    return "nobody tells" if after.queue is None else "nothing waits"


def _queue_rows(after: Snapshot) -> list[Row]:
    parts = after.queue.partitions if after.queue is not None else ()
    rows: list[tuple[int, Row]] = []
    for part in parts:
        tenants = ", ".join(f"{each.tenant or '-'} {each.ready} {_age(each)}" for each in part.tenants)
        lanes = [(Lane.Name(lane.lane), lane.ready, _age(lane)) for lane in part.lanes] or [("", 0, "-")]
        for name, ready, age in lanes:
            word = name.removeprefix("LANE_").lower()
            row = (f"p{part.partition}", word, str(ready), age, str(part.leased), str(part.delayed), tenants)
            rows.append((_waiting(part), row))
    return [row for _, row in sorted(rows, key=lambda item: -item[0])]


def _waiting(part: PartitionDepth) -> int:
    return sum(lane.ready for lane in part.lanes) + part.delayed


def _age(each: Any) -> str:
    return short(each.oldest_age.ToMilliseconds() / 1000) if each.HasField("oldest_age") else "-"


def _cell_rows(after: Snapshot) -> list[Row]:
    cells = [cell for seen in after.processes for cell in seen.cells]
    tenants = Counter(cell.tenant for cell in cells)
    rows: list[Row] = []
    for tenant, _ in sorted(tenants.items(), key=lambda item: (item[0] == "", -item[1], item[0])):
        own = [cell for cell in cells if cell.tenant == tenant]
        busy = sum(cell.state == CellState.CELL_STATE_BUSY for cell in own)
        age = max(cell.age.ToMilliseconds() for cell in own) / 1000
        memory = size(sum(cell.memory_bytes for cell in own))
        rows.append(
            (tenant or "(spare)", str(busy), str(len(own) - busy), memory, short(age), str(sum(c.runs for c in own)))
        )
    return rows


def _function_rows(functions: Sequence[FunctionRates]) -> list[Row]:
    return [
        (each.name, each.tenant, f"{each.runs:.1f}", "-" if each.mean is None else short(each.mean), str(each.live))
        for each in functions
    ]


def _block(heading: Row, rows: Sequence[Row], empty: str) -> list[Text]:
    """A heading and rows in columns; the first column is as wide as its longest, up to 30."""
    shown = list(rows) or [(empty,)]
    full = [row for row in (heading, *shown) if len(row) == len(heading)]
    widths = [min(30, max(cell_len(row[column]) for row in full)) for column in range(len(heading))]
    if not rows:
        widths[0] = max(widths[0], cell_len(empty))
    lines = [Text(_columns(heading, widths), style=_RULES)]
    for row in shown:
        line = Text(_columns(row, widths), style="" if rows else "dim")
        for word, style in _STYLES.items():
            if word in row[1:2]:
                start = widths[0] + 2
                line.stylize(style, start, start + len(word))
        lines.append(line)
    return lines


def _columns(row: Row, widths: Sequence[int]) -> str:
    cells = [set_cell_size(cell, width) for cell, width in zip(row[:-1], widths, strict=False)]
    return "  ".join([*cells, row[-1]]).rstrip()


def _rooms(needs: Sequence[int], height: int | None) -> list[int]:
    """Lines for each part: the first gets all it needs, the others equal shares of the rest, of what they need."""
    if height is None:
        return list(needs)
    rooms = [min(needs[0], height)]
    left = height - rooms[0]
    shares: dict[int, int] = {}
    # Those that need least are served first, so that what they leave goes to the others.
    order = sorted(range(1, len(needs)), key=lambda index: needs[index])
    for place, index in enumerate(order):
        shares[index] = min(needs[index], left // (len(order) - place))
        left -= shares[index]
    return rooms + [shares[index] for index in range(1, len(needs))]


def _cut(block: list[Text], room: int) -> list[Text]:
    """The block in so many lines; the last one says how many rows are left out."""
    if len(block) <= room:
        return block
    if room < 2:
        return block[:room]
    return [*block[: room - 1], Text(f"... {len(block) - room + 1} more", style="dim")]
