"""cs-scheduler: emits invocations on schedules.

In this release the process is there, healthy and administered, and has no work yet.
"""
