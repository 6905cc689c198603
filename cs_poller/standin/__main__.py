"""The process of the stand-in: `python -m cs_poller.standin --port 7833 --domain demo`."""

from __future__ import annotations

import argparse
import asyncio
import sys

from cs_core.rpc.server import stop_on_signals
from cs_poller.standin.engine import Engine
from cs_poller.standin.server import StandIn


async def run(host: str, port: int, domains: list[str]) -> None:
    """Serve until told to stop."""
    stopping = stop_on_signals()
    async with StandIn(Engine(domains), f"{host}:{port}") as server:
        sys.stderr.write(f"a stand-in for Cadence listens on {host}:{server.port}; domains: {', '.join(domains)}\n")
        await stopping.wait()


def main() -> int:
    """Run the process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m cs_poller.standin", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=7833, help="port; 0 takes a free one")
    parser.add_argument("--domain", action="append", dest="domains", help="domain that is there from the start")
    options = parser.parse_args()
    asyncio.run(run(options.host, options.port, options.domains or ["demo"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
