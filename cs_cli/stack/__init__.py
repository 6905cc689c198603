"""The embedded stack: the whole mesh on one machine, supervised by one process.

`supervisor` starts, watches and stops `child` processes; `plan` says which; `state` is what other commands read.
"""
