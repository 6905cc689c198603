"""The mesh that is measured: brought up by `cs up` on a folder of its own, and taken down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

BIN = Path(sys.executable).parent
TENANT = "t_bench1"
HELLO = 'export default () => ({ statusCode: 200, body: "hello" });\n'
MANIFEST = {"runtime": "cs-js", "config": {"invokeHttpRoles": ["admin"]}}


@dataclass(frozen=True, slots=True)
class Stack:
    """Where the mesh answers, and a token of its tenant."""

    address: str
    token: str


@contextmanager
def running() -> Iterator[Stack]:
    """A mesh with the function `hello@live`, for the length of the block."""
    with TemporaryDirectory(prefix="cs-bench-") as home:
        environment = {**os.environ, "XDG_CONFIG_HOME": home, "CODE_SOUS_DATA_DIR": f"{home}/data"}

        def cs(*arguments: str) -> str:
            done = subprocess.run([BIN / "cs", *arguments], check=True, stdout=subprocess.PIPE, env=environment)
            return done.stdout.decode().strip()

        try:
            url = json.loads(cs("up", "--detach", "--port", "0"))["api_url"]
            token = cs("auth", "dev-token", "--tenant", TENANT, "--role", "admin")
            cs("auth", "login", "--tenant", TENANT, "--token", token, "--api-url", url)
            folder = Path(home, "hello")
            folder.mkdir()
            Path(folder, "index.js").write_text(HELLO)
            Path(folder, "manifest.json").write_text(json.dumps(MANIFEST))
            cs("fn", "deploy", "hello", "--path", str(folder), "--alias", "live")
            yield Stack(url.removeprefix("http://"), token)
        finally:
            cs("down")
