"""A Cadence server in memory, for development and tests: the part of its gRPC API that activities need.

Domains, workflows whose decisions are made by whoever polls for them, activities with their timeouts, retries,
heartbeats and cancellation. Everything is gone when it stops. It is no Cadence: what is not needed to run an activity
answers UNIMPLEMENTED, and `tests/interop` holds it and a real server to the same scenarios.
"""
