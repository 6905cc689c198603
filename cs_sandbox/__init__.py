"""Jailed cells that run functions, usable without any service.

`CellPool` runs `Job`s and gives `Outcome`s. User code runs only in cells: processes that are forked from a zygote,
jailed, and bound to one tenant each.
"""

from cs_sandbox.job import (
    Bundle,
    DeniedHostCalls,
    Diagnostic,
    HostCallError,
    HostCalls,
    JailError,
    Job,
    Limits,
    Outcome,
    SandboxError,
)
from cs_sandbox.pool import CellPool, PoolStats, check_syntax
from cs_sandbox.settings import PoolSettings

__all__ = [
    "Bundle",
    "CellPool",
    "DeniedHostCalls",
    "Diagnostic",
    "HostCallError",
    "HostCalls",
    "JailError",
    "Job",
    "Limits",
    "Outcome",
    "PoolSettings",
    "PoolStats",
    "SandboxError",
    "check_syntax",
]
