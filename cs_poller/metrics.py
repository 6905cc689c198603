"""What the poller counts and measures."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_DURATIONS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)


class Metrics:
    """The poller's series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._polls = Counter(
            "cs_cadence_polls_total", "Long polls by outcome: task, empty, failed.", ["outcome"], registry=registry
        )
        self._tasks = Counter(
            "cs_cadence_tasks_total", "Tasks that came: received, adopted, lost.", ["how"], registry=registry
        )
        self._answers = Counter(
            "cs_cadence_answers_total",
            "Answers by outcome: completed, failed, canceled, refused, given_up, gone, adopted_by_another.",
            ["outcome"],
            registry=registry,
        )
        self._heartbeats = Counter(
            "cs_cadence_heartbeats_total",
            "Heartbeats of user code: sent, replaced, refused, lost.",
            ["outcome"],
            registry=registry,
        )
        self._duration = Histogram(
            "cs_cadence_task_seconds", "From receiving a task to its answer.", buckets=_DURATIONS, registry=registry
        )
        self._inflight = Gauge("cs_cadence_inflight", "Tasks that this process is to answer.", registry=registry)
        self._bindings = Gauge(
            "cs_cadence_bindings", "Worker bindings that this process polls for.", ["state"], registry=registry
        )

        self._permits = Gauge(
            "cs_cadence_permits", "Tasks that this process may hold, over its worker bindings.", registry=registry
        )

    def watch_permits(self, count: Callable[[], int]) -> None:
        """Tell how many tasks this process may hold, whenever somebody asks."""
        self._permits.set_function(count)

    def count_poll(self, outcome: str) -> None:
        """Count a poll."""
        self._polls.labels(outcome).inc()

    def count_task(self, how: str) -> None:
        """Count a task that came."""
        self._tasks.labels(how).inc()

    def count_answer(self, outcome: str) -> None:
        """Count an answer."""
        self._answers.labels(outcome).inc()

    def count_heartbeat(self, outcome: str) -> None:
        """Count a heartbeat."""
        self._heartbeats.labels(outcome).inc()

    def observe_task(self, seconds: float) -> None:
        """Measure how long a task took."""
        self._duration.observe(seconds)

    def set_inflight(self, count: int) -> None:
        """Tell how many tasks are to be answered now."""
        self._inflight.set(count)

    def set_bindings(self, polling: int, failing: int) -> None:
        """Tell how many bindings poll well, and how many fail."""
        self._bindings.labels("polling").set(polling)
        self._bindings.labels("failing").set(failing)
