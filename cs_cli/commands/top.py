"""`cs top`: a live view of the processes, the queue, the cells and the busiest functions."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any, Final

import typer
from rich.live import Live

from cs_cli.commands.admin import Addresses
from cs_cli.messages import to_data
from cs_cli.options import DataDir, Form, Json
from cs_cli.output import OUT
from cs_cli.processes import targets
from cs_cli.top.rates import function_rates, process_rates
from cs_cli.top.screen import page
from cs_cli.top.snapshot import Eyes, Snapshot
from cs_cli.top.terminal import keys, wait_for_quit

_PLAIN_WIDTH: Final = 120


def top(
    interval: Annotated[float, typer.Option("--interval", "-i", min=0.2, max=60, help="Seconds between looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look for one interval, print the page, and end.")] = False,
    address: Addresses = None,
    data_dir: DataDir = None,
    json: Json = False,
    output: Form = "",
) -> None:
    """Show what the processes do, again and again; q or Ctrl-C ends it. Without a terminal, plain pages."""
    eyes = Eyes(targets(address or [], data_dir))
    live = not (once or OUT.json_asked) and sys.stdout.isatty()
    try:
        if live:
            _follow(eyes, interval)
        else:
            _print(eyes, interval, once)
    except KeyboardInterrupt:
        return
    finally:
        eyes.close()


def _follow(eyes: Eyes, interval: float) -> None:
    """The live view on a screen of its own; the one before is back at the end."""
    console = OUT.console
    before = eyes.look()
    after = before
    with keys(), Live(console=console, screen=True, auto_refresh=False) as screen:
        while True:
            screen.update(page(before, after, console.width, console.height, interval), refresh=True)
            # The first page has no rates: the second follows soon.
            if wait_for_quit(min(interval, 0.5) if after is before else interval):
                return
            before, after = after, eyes.look()


def _print(eyes: Eyes, interval: float, once: bool) -> None:
    before = eyes.look()
    while True:
        time.sleep(interval)
        after = eyes.look()
        if OUT.json_asked:
            OUT.record(_data(before, after))
        else:
            OUT.text(page(before, after, _PLAIN_WIDTH, None, interval).plain)
            sys.stdout.flush()
        if once:
            return
        OUT.text("")
        before = after


def _data(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    return {
        "processes": [
            {
                "process": each.name,
                "state": each.state,
                "error": each.error,
                "calls_per_second": round(each.calls, 3),
                "failed_per_second": round(each.failed, 3),
                "p99_seconds": each.p99,
                "inflight": each.inflight,
            }
            for each in process_rates(before, after)
        ],
        "queue": to_data(after.queue) if after.queue is not None else None,
        "cells": [to_data(cell) for seen in after.processes for cell in seen.cells],
        "functions": [
            {
                "tenant": each.tenant,
                "function": each.name,
                "runs_per_second": round(each.runs, 3),
                "mean_seconds": each.mean,
                "live": each.live,
            }
            for each in function_rates(before, after)
        ],
    }
