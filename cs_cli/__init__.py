"""The command line `cs`."""

import os

# Before gRPC is loaded: its fork handlers would print to the terminal whenever a child process is started.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
