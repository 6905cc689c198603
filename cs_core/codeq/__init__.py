"""codeQ: the queue's contract, and its drivers.

At least once, under a lease: a delivery that is neither acknowledged nor extended is delivered again after its lease.
Of one partition and lane, messages come in the order of publishing as long as none is delivered again.
"""

from cs_core.codeq.contract import Delivery, Depth, PartitionDepth, Queue, ResultChannel

__all__ = ["Delivery", "Depth", "PartitionDepth", "Queue", "ResultChannel"]
