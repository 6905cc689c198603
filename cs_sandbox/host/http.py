"""`fetch`: the area `http` of one activation."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any, Final

from cs_sandbox.host.capability import Grants
from cs_sandbox.host.fetch import FAILED, FetchAnswer, Fetcher
from cs_sandbox.host.request import FetchRequest, read_request
from cs_sandbox.host.url import parse_url
from cs_sandbox.job import HostCallError

TIMEOUT_DEFAULT: Final = 10.0
TIMEOUT_MAX: Final = 60.0


class HttpCalls:
    """Provides the area `http`.

    A fetch takes a URL and `{id, method, headers: [[name, value]], text or body (base64), redirect}`, and gives
    `{status, statusText, url, redirected, headers: [[name, value]], text or body (base64)}`.
    """

    def __init__(self, fetcher: Fetcher, tenant: str, grants: Grants, headers: Sequence[tuple[str, str]] = ()) -> None:
        """`headers` go with every request that has none of their names; names in lower case."""
        self._fetcher = fetcher
        self._tenant = tenant
        self._grants = grants
        self._headers = tuple(headers)
        self._fetches: dict[int, asyncio.Task[FetchAnswer]] = {}

    async def call(self, operation: str, arguments: list[Any]) -> Any:
        """Perform the operation. Raises HostCallError."""
        if operation == "abort":
            task = self._fetches.get(arguments[0]) if arguments and isinstance(arguments[0], int) else None
            if task is not None:
                task.cancel()
            return None
        options = arguments[1] if len(arguments) > 1 and isinstance(arguments[1], dict) else {}
        request = read_request(parse_url(arguments[0]), options).with_headers(self._headers)
        number = options.get("id")
        return _to_json(await self._fetch(request, number if isinstance(number, int) else 0))

    async def _fetch(self, request: FetchRequest, number: int) -> FetchAnswer:
        http = self._grants.capabilities.http
        limit = http.timeout.ToTimedelta().total_seconds() if http.HasField("timeout") else TIMEOUT_DEFAULT
        within = min(limit, TIMEOUT_MAX)
        task = asyncio.ensure_future(self._fetcher.fetch(self._tenant, request, self._grants.check_url, within))
        if number:
            self._fetches[number] = task
        try:
            await asyncio.wait([task])
        finally:
            self._fetches.pop(number, None)
            task.cancel()
        if task.cancelled():
            raise HostCallError(FAILED, "the fetch was aborted")
        return task.result()


def _to_json(answer: FetchAnswer) -> dict[str, Any]:
    made: dict[str, Any] = {
        "status": answer.status,
        "statusText": answer.status_text,
        "url": answer.url,
        "redirected": answer.redirected,
        "headers": answer.headers,
    }
    try:
        # Most bodies are text, and text needs no base64 on its way.
        made["text"] = answer.body.decode()
    except UnicodeDecodeError:
        made["body"] = base64.b64encode(answer.body).decode()
    return made
