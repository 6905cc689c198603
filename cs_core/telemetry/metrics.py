"""The /metrics page of a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server


@contextmanager
def metrics_page(registry: CollectorRegistry, port: int, host: str) -> Iterator[None]:
    """Serve the registry while inside; port 0 serves nothing."""
    if port == 0:
        yield
        return
    server, thread = start_http_server(port, addr=host, registry=registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
