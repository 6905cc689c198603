"""What `cs up` says: progress while parts start, then how to call what runs."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from datetime import timedelta
from pathlib import Path
from typing import Final

from rich.markup import escape
from rich.status import Status

from cs_cli.output import OUT
from cs_cli.stack import identity
from cs_cli.stack.plan import CADENCE_DOMAIN, Plan
from cs_cli.stack.ports import HOST

TENANT: Final = "t_demo01"
_ROLE: Final = "admin"
_ALIAS: Final = "live"
_NAMESPACE: Final = "default"
_BEARER: Final = "authorization: Bearer $TOKEN"


class Welcome:
    """Speaks for one stack that is being brought up."""

    def __init__(self, plan: Plan, example: Path | None) -> None:
        self._plan = plan
        self._example = example
        self._url = f"http://{HOST}:{plan.ports.public}"
        self._ready: list[str] = []
        self._parts = len(plan.specs())
        self._began = time.monotonic()
        self._status: Status | None = None

    def begin(self) -> None:
        """Show that something is going on."""
        if OUT.console.is_terminal and not OUT.json_asked:
            self._status = OUT.console.status("starting")
            self._status.start()

    def part_ready(self, name: str) -> None:
        """Show that a part is ready."""
        self._ready.append(name)
        if self._status is not None:
            self._status.update(f"starting [dim]({len(self._ready)} of {self._parts}: {', '.join(self._ready)})[/dim]")

    def end(self) -> None:
        """Show nothing any more."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    async def ready(self) -> None:
        """Say that all is ready, deploy the example, and tell how to call it. Raises CommandError when it fails."""
        took = time.monotonic() - self._began
        answer = None
        if self._example is not None:
            answer = await asyncio.to_thread(self._try_example, self._example)
        self.end()
        if OUT.json_asked:
            OUT.data(
                {
                    "state": "ready",
                    "api_url": self._url,
                    "port": self._plan.ports.public,
                    "data_dir": str(self._plan.folders.root),
                    "example": answer,
                }
            )
            return
        OUT.line(f"[green bold]ready[/green bold] in {took:.1f} s at [bold]{self._url}[/bold]")
        if answer is not None and self._example is not None:
            OUT.line(f"deployed [cyan]{self._example.name}@{_ALIAS}[/cyan] and called it: {escape(answer)}\n")
            self._tell_how_to_call(self._example.name)
        OUT.line("[dim]`cs status` and `cs logs SERVICE` in another terminal; Ctrl-C stops everything[/dim]")

    def _try_example(self, folder: Path) -> str:
        import httpx

        from cs_cli.api import Api
        from cs_cli.deploying import deploy
        from cs_cli.failure import SERVER, CommandError
        from cs_cli.login import Login
        from cs_cli.sources import read_files

        token = identity.mint(self._plan.folders.root, TENANT, [_ROLE], "dev", timedelta(hours=1))
        with Api(Login(TENANT, token, self._url)) as api:
            deploy(api, _NAMESPACE, folder.name, read_files(folder), _ALIAS)
        url = f"{self._url}{self._web_path(folder.name)}?name=Ada"
        answer = httpx.get(url, headers={"authorization": f"Bearer {token}"}, timeout=35, trust_env=False)
        if answer.status_code >= 500:
            raise CommandError("CS_CLI_EXAMPLE", f"the example answered {answer.status_code}: {answer.text}", SERVER)
        return f"{answer.status_code} {answer.text}"

    @staticmethod
    def _web_path(name: str) -> str:
        return f"/v1/web/{TENANT}/{_NAMESPACE}/{name}/{_ALIAS}/"

    def _tell_how_to_call(self, name: str) -> None:
        port = self._plan.ports.public
        request = json.dumps(
            {
                "tenant": TENANT,
                "namespace": _NAMESPACE,
                "function": name,
                "ref": _ALIAS,
                "event": {"name": "Ada"},
            }
        )
        data_dir = shlex.quote(str(self._plan.folders.root))
        method = "codesous.gateway.v1.InvocationService/Invoke"
        blocks = {
            "a token": f"export TOKEN=$(cs auth dev-token --tenant {TENANT} --role {_ROLE} --data-dir {data_dir})",
            "curl, as a web page": f'curl -H "{_BEARER}" "{self._url}{self._web_path(name)}?name=Ada"',
            "curl, by API": (
                f'curl -H "{_BEARER}" -d \'{{"ref": "{_ALIAS}", "event": {{"name": "Ada"}}}}\' \\\n'
                f"  {self._url}/v1/tenants/{TENANT}/namespaces/{_NAMESPACE}/functions/{name}:invoke"
            ),
            "grpcurl": (f"grpcurl -plaintext -H \"{_BEARER}\" -d '{request}' \\\n  {HOST}:{port} {method}"),
            "buf curl": (
                f'buf curl --protocol grpc --http2-prior-knowledge -H "{_BEARER}" \\\n'
                f"  -d '{request}' \\\n  {self._url}/{method}"
            ),
            "cs": (
                f'cs auth login --tenant {TENANT} --token "$TOKEN" --api-url {self._url}\n'
                f'echo \'{{"name": "Ada"}}\' | cs fn invoke {name}@{_ALIAS} --event -'
            ),
        }
        if self._plan.with_cadence:
            blocks["cs, as a Cadence activity (the manifest must name your role in invoke_cadence_roles)"] = (
                f"cs cadence worker create {name}-worker --domain {CADENCE_DOMAIN} --tasklist {name}"
                f" --activity {name}={name}@{_ALIAS}\n"
                f'echo \'{{"name": "Ada"}}\' | cs cadence run {name} --input -'
            )
        for title, text in blocks.items():
            OUT.line(f"[dim]# {title}[/dim]")
            OUT.text(f"{text}\n")
