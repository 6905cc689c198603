"""Counts and times every call."""

from __future__ import annotations

import time

import grpc
from prometheus_client import CollectorRegistry, Counter, Histogram

from cs_core.errors import CodeSousError
from cs_core.rpc.context import Passive, RequestContext

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class ApiMetrics(Passive):
    """`cs_api_requests_total` and `cs_api_request_duration_seconds`. Labels are bounded: methods are declared."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "cs_api_requests", "Calls by method and gRPC code.", ["method", "code"], registry=registry
        )
        self._duration = Histogram(
            "cs_api_request_duration_seconds", "Duration of calls.", ["method"], registry=registry, buckets=_BUCKETS
        )

    def end(self, call: RequestContext, code: grpc.StatusCode, error: CodeSousError | None) -> None:  # noqa: ARG002 - the hook's shape
        """Count the call."""
        self._duration.labels(call.method).observe(time.perf_counter() - call.started)
        self._requests.labels(call.method, code.name).inc()
