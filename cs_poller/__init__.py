"""cs-cadence-poller: polls Cadence for activity tasks.

In this release the process is there, healthy and administered, and has no work yet.
"""
