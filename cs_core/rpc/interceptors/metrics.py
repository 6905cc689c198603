"""Counts and times every call."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from functools import cache

import grpc
from codesous.admin.v1.load_pb2 import MethodLoad
from prometheus_client import CollectorRegistry, Counter, Histogram

from cs_core.errors import CodeSousError
from cs_core.rpc.context import Passive, RequestContext

_FAULTS = ("UNKNOWN", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "DATA_LOSS")
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
        # Looked up once: finding a child by its labels costs more than counting.
        self._request_of = cache(self._requests.labels)
        self._duration_of = cache(self._duration.labels)

    def loads(self) -> list[MethodLoad]:
        """What was counted, by method."""
        loads: dict[str, MethodLoad] = {}
        for sample in (sample for metric in self._requests.collect() for sample in metric.samples):
            if sample.name.endswith("_total"):
                load = loads.setdefault(sample.labels["method"], MethodLoad(method=sample.labels["method"]))
                load.calls += int(sample.value)
                load.failed_calls += int(sample.value) if sample.labels["code"] in _FAULTS else 0
        for sample in (sample for metric in self._duration.collect() for sample in metric.samples):
            if sample.name.endswith("_bucket") and (held := loads.get(sample.labels["method"])) is not None:
                bucket = held.buckets.add(calls=int(sample.value))
                if not math.isinf(upper := float(sample.labels["le"])):
                    bucket.upper.FromTimedelta(timedelta(seconds=upper))
        return [loads[method] for method in sorted(loads)]

    def end(self, call: RequestContext, code: grpc.StatusCode, error: CodeSousError | None) -> None:  # noqa: ARG002 - the hook's shape
        """Count the call."""
        self._duration_of(call.method).observe(time.perf_counter() - call.started)
        self._request_of(call.method, code.name).inc()
