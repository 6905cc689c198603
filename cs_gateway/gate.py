"""The gate before everything that costs: what a tenant may ask for at once, per second, and with a full queue.

Theory of operation. The cheapest refusals come first: a seat (a caller that waits for its result here) and the
tenant's rate are checked before anything is read; the function's rate and the depth of the queue once the version is
known. Callers beyond the seats are refused at once instead of being queued, because a caller whose turn comes after
its time limit got nothing for the work that was done: under overload the seats keep the wait short enough that what is
accepted is also answered. What is refused is told when to come back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from codesous.control.v1.version_pb2 import Version

from cs_core.errors import LimitError
from cs_gateway.metrics import Metrics
from cs_gateway.queue_depths import QueueDepths
from cs_gateway.rate_limits import RateLimits

_RETRY_AFTER: Final = timedelta(seconds=1)


class Gate:
    """Lets requests in, or refuses them with a LimitError that says when to come back.

    Args:
        rates: of tenants and functions.
        depths: of the queue.
        tenant_waiting: callers of one tenant that wait for a result at once, in the installation.
        waiting: callers that wait for a result at once in this gateway.
        gateways: how many gateways live now.
        metrics: counts what is let through and what is refused.
    """

    def __init__(
        self,
        rates: RateLimits,
        depths: QueueDepths,
        *,
        tenant_waiting: int,
        waiting: int,
        gateways: Callable[[], int],
        metrics: Metrics | None = None,
    ) -> None:
        self._rates = rates
        self._depths = depths
        self._tenant_waiting = tenant_waiting
        self._waiting = waiting
        self._gateways = gateways
        self._metrics = metrics
        self._seated: Counter[str] = Counter()
        self._total = 0

    @property
    def seated(self) -> int:
        """Callers that wait now."""
        return self._total

    @contextmanager
    def seat(self, tenant: str) -> Iterator[None]:
        """Hold a seat while the caller waits. Raises LimitError (`CS_TENANT_INFLIGHT_LIMIT`, `CS_QUEUE_FULL`)."""
        with self._counting():
            self._check_seats(tenant)
        self._seated[tenant] += 1
        self._total += 1
        try:
            yield
        finally:
            self._total -= 1
            self._seated[tenant] -= 1
            if not self._seated[tenant]:
                del self._seated[tenant]

    def _check_seats(self, tenant: str) -> None:
        own = max(1, self._tenant_waiting // max(1, self._gateways()))
        if self._seated[tenant] >= own:
            raise LimitError(
                "CS_TENANT_INFLIGHT_LIMIT",
                f"{self._seated[tenant]} callers of tenant {tenant} wait here; the limit is {own}",
                _RETRY_AFTER,
            )
        if self._total >= self._waiting:
            raise LimitError("CS_QUEUE_FULL", "too many callers wait here; try again", _RETRY_AFTER)

    def enter(self, tenant: str) -> None:
        """Count a request of the tenant. Raises LimitError (`CS_RATE_LIMITED`)."""
        with self._counting():
            self._rates.check_tenant(tenant)

    def pass_on(self, version: Version) -> None:
        """Count a request for the version. Raises LimitError (`CS_RATE_LIMITED`, `CS_QUEUE_FULL`)."""
        with self._counting():
            self._rates.check_function(version)
            self._depths.check(version.tenant)
        if self._metrics is not None:
            self._metrics.count_admitted()

    @contextmanager
    def _counting(self) -> Iterator[None]:
        try:
            yield
        except LimitError as error:
            if self._metrics is not None:
                self._metrics.count_refused(error.reason)
            raise
