"""Settings of a pool of cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from cs_sandbox.job import MIB


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How many cells there are and what they are allowed."""

    cells_max: int = 8
    """Cells that hold a tenant, at the same time. A run beyond them waits."""
    cells_per_tenant: int = 8
    """Of these, cells of one tenant."""
    runs_per_cell: int = 64
    """Runs that may overlap in one cell: another begins when all that are there wait. 1: none overlap."""
    spare_cells: int = 1
    """Jailed cells without a tenant that are kept ready, on top of `cells_max`."""
    idle_ttl: timedelta = timedelta(seconds=60)
    """A cell that has been idle for this long is ended."""
    kill_grace: timedelta = timedelta(milliseconds=100)
    """The cell interrupts itself at the wall clock limit; this much later it is killed."""
    start_timeout: timedelta = timedelta(seconds=10)
    """For the zygote and for a cell to report ready."""
    memory_max_bytes: int = 4096 * MIB
    """Largest memory limit that a run may ask for, and largest sum of those of overlapping runs. With room on top it is
    the hard limit of a cell's address space."""
    require_jail: bool = True
    """Whether a cell without the mandatory layers refuses to serve. Only a development machine may say no."""
    skip_layers: frozenset[str] = field(default_factory=frozenset)
    """Layers of the jail that are left out: for tests and for finding faults."""
