"""The way in by gRPC: each method reads its request, calls the core, and answers."""
