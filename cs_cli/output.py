"""What commands print: tables and words for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cs_cli.failure import CommandError

_WIDE = 1000
_STYLES = {
    "success": "green",
    "active": "green",
    "serving": "green",
    "ready": "green",
    "ok": "green",
    "queued": "cyan",
    "running": "cyan",
    "starting": "cyan",
    "published": "green",
    "completed": "cyan",
    "skipped": "yellow",
    "dropped": "yellow",
    "refused": "red",
    "timeout": "yellow",
    "cancelled": "yellow",
    "deleted": "yellow",
    "warn": "yellow",
    "restarting": "yellow",
    "drained": "yellow",
    "busy": "cyan",
    "error": "red",
    "not_serving": "red",
    "stopped": "red",
    "failed": "red",
    "missing": "red",
    "failing": "red",
    "paused": "yellow",
}


class Output:
    """Where a command prints. JSON when asked for, or when standard output is not a terminal."""

    def __init__(self) -> None:
        self.json_asked = self.table_asked = False
        self.console = Console(highlight=False)
        self.errors = Console(stderr=True, highlight=False)

    @property
    def json(self) -> bool:
        """Whether programs read this."""
        return self.json_asked or not (self.table_asked or sys.stdout.isatty())

    def data(self, value: Any) -> None:
        """Print JSON."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")

    def record(self, value: Any) -> None:
        """Print JSON on one line, at once: one of many."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def text(self, value: str) -> None:
        """Print text exactly as it is."""
        sys.stdout.write(value if value.endswith("\n") else value + "\n")

    def line(self, markup: str) -> None:
        """Print a line with Rich markup."""
        self.console.print(markup)

    def note(self, markup: str) -> None:
        """Print a line for people beside the result, so that it never mixes with it."""
        self.errors.print(markup)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "nothing there") -> None:
        """Print rows under headings, one line each: a narrow terminal wraps the line, never a cell."""
        table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
        for column in columns:
            table.add_column(column.upper(), no_wrap=True, overflow="ignore")
        filled = False
        for row in rows:
            filled = True
            table.add_row(*(styled(cell) for cell in row))
        if filled:
            self.console.width = max(self.console.width, _WIDE)
            self.console.print(table)
        else:
            self.note(f"[dim]{escape(empty)}[/dim]")

    def fields(self, pairs: Iterable[tuple[str, Any]]) -> None:
        """Print names and values, one a line; what is empty is left out."""
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in pairs:
            if value not in ("", None, [], {}):
                table.add_row(name, styled(value))
        self.console.print(table)

    def error(self, error: CommandError) -> None:
        """Print an error."""
        if self.json:
            sys.stderr.write(json.dumps(error.data(), ensure_ascii=False) + "\n")
            return
        self.errors.print(f"[red bold]error[/red bold] {escape(error.message)}", soft_wrap=True)
        for field, rule in error.violations:
            if f"{field}: {rule}" not in error.message:
                self.errors.print(f"  [bold]{escape(field)}[/bold] {escape(rule)}", soft_wrap=True)
        where = f"  request {error.request_id}" if error.request_id else ""
        self.errors.print(f"[dim]reason {error.reason}{where}[/dim]", soft_wrap=True)


def styled(value: Any) -> str:
    """A cell of a table: words of state in their colour, everything else as it is."""
    text = "" if value is None else str(value)
    style = _STYLES.get(text)
    return f"[{style}]{escape(text)}[/{style}]" if style else escape(text)


def moment(text: str | None) -> str:
    """A time of the contracts for people: this day's by the clock, older ones with the date, in local time."""
    if not text:
        return ""
    local = datetime.fromisoformat(_trim(text)).astimezone()
    return local.strftime("%H:%M:%S" if local.date() == datetime.now(UTC).astimezone().date() else "%Y-%m-%d %H:%M")


def _trim(text: str) -> str:
    # Nanoseconds are more than Python reads.
    head, dot, tail = text.removesuffix("Z").partition(".")
    return f"{head}{dot}{tail[:6]}+00:00"


def size(count: int) -> str:
    """Bytes for people."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


OUT = Output()
