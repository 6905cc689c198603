"""The embedded stack: the whole mesh on one machine, under one supervisor."""
