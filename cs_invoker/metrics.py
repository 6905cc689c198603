"""What the invoker counts and measures."""

from __future__ import annotations

from datetime import datetime

from codesous.queue.v1.envelope_pb2 import Envelope
from codesous.queue.v1.invocation_pb2 import InvocationResult
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.error_reason_pb2 import ErrorReason
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cs_core.clock import from_timestamp

_REASONS = frozenset(name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name)
_STATUS_PREFIX = "ACTIVATION_STATUS_"
_DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)


class Metrics:
    """The invoker's series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._invocations = Counter(
            "cs_invocations_total", "Activations that this process brought to an end.", ["status"], registry=registry
        )
        self._duration = Histogram(
            "cs_invocation_duration_seconds", "From begin to end of a run.", buckets=_DURATIONS, registry=registry
        )
        self._inflight = Gauge("cs_invoker_inflight", "Activations that this process runs now.", registry=registry)
        self._lag = Histogram(
            "cs_invoker_queue_lag_seconds",
            "From publish to receipt of a request.",
            buckets=_DURATIONS,
            registry=registry,
        )
        self._cold = Counter(
            "cs_invoker_cold_starts_total", "Runs in a cell that was new to their tenant.", registry=registry
        )
        self._retries = Counter(
            "cs_invoker_retries_total", "Runs that failed and wait to be tried again.", registry=registry
        )
        self._dead = Counter(
            "cs_invoker_dead_letters_total", "Activations that were given up.", ["reason"], registry=registry
        )
        self._slot_waits = Counter(
            "cs_invoker_slot_waits_total", "Deliveries that found all slots of their version taken.", registry=registry
        )
        self._takeovers = Counter(
            "cs_invoker_takeovers_total", "Activations that were taken over from a dead owner.", registry=registry
        )
        self._bystanders = Counter(
            "cs_invoker_bystanders_total", "Runs that ended because of another run in their cell.", registry=registry
        )
        self._bundles = Counter(
            "cs_invoker_bundle_cache_lookups_total", "Look-ups of code by outcome.", ["outcome"], registry=registry
        )

        self._egress_reports = Counter(
            "cs_invoker_egress_reports_total",
            "Fetches from hosts that no capability names, let through and reported.",
            registry=registry,
        )

    def observe_result(self, result: InvocationResult) -> None:
        """Count an activation that ended here, and the length of its run if it ran."""
        status = ActivationStatus.Name(result.status).removeprefix(_STATUS_PREFIX).lower()
        self._invocations.labels(status).inc()
        if result.HasField("start_time"):
            length = from_timestamp(result.end_time) - from_timestamp(result.start_time)
            self._duration.observe(max(length.total_seconds(), 0.0))
        if result.dead_letter:
            # A function may throw an error with any reason; only those of the contract are labels.
            self._dead.labels(result.error.reason if result.error.reason in _REASONS else "other").inc()

    def count_retry(self) -> None:
        """Count a failed run that is followed by another."""
        self._retries.inc()

    def count_slot_wait(self) -> None:
        """Count a delivery that found no slot."""
        self._slot_waits.inc()

    def count_bystander(self) -> None:
        """Count a run that another run of its cell ended."""
        self._bystanders.inc()

    def count_takeover(self) -> None:
        """Count an activation whose owner died."""
        self._takeovers.inc()

    def observe_lag(self, envelope: Envelope, now: datetime) -> None:
        """Measure how long a request was in the queue. A clock that is behind gives 0."""
        if not 0 < envelope.publish_time.seconds < now.timestamp() + 1:
            return
        published = envelope.publish_time.seconds + envelope.publish_time.nanos / 1e9
        self._lag.observe(max(now.timestamp() - published, 0.0))

    def set_inflight(self, count: int) -> None:
        """Tell how many activations run now."""
        self._inflight.set(count)

    def count_cold_start(self) -> None:
        """Count a run in a cell that was new to its tenant."""
        self._cold.inc()

    def count_egress_report(self) -> None:
        """Count a fetch that would be denied if egress were enforced."""
        self._egress_reports.inc()

    def count_bundle_lookup(self, hit: bool) -> None:
        """Count a look-up in the bundle cache."""
        self._bundles.labels("hit" if hit else "miss").inc()
