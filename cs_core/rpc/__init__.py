"""The edge of a process: gRPC server, interceptors, status mapping, channels.

Only this package and `cs_core.iam.interceptors` know gRPC.
"""
