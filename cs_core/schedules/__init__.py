"""Schedules: when they tick, and how a change of one comes from its tenant to its shard."""
