"""KVRocks, or any server of the Redis protocol: keys, the client, one module per kind of record."""
