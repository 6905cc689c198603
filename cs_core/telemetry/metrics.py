"""The /metrics page of a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server


@contextmanager
def metrics_page(registry: CollectorRegistry, port: int) -> Iterator[None]:
    """Serve the registry on loopback while inside; port 0 serves nothing."""
    if port == 0:
        yield
        return
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
