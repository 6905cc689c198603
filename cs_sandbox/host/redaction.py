"""Takes secrets out of what activations leave behind: their log lines, their responses, their errors.

It guards against accidents, not against the author of the function: who may read a secret can always send it
somewhere in a disguise. A value is found as it is, as JSON and URLs write it, and within base64 and hexadecimal text.
"""

from __future__ import annotations

import base64
import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from cs_sandbox.job import FunctionResponse, InvocationError, LogEntry, Outcome

MARK: Final = "[redacted]"
SHORTEST: Final = 4
"""Shorter values are left: they stand in too much that is no secret."""
VALUES_MAX: Final = 256


class Redactor:
    """Knows the secrets that the activations of one version have read: the newest, should there be very many."""

    def __init__(self) -> None:
        self._forms: dict[str, frozenset[str]] = {}
        self._patterns: tuple[re.Pattern[str], re.Pattern[bytes]] | None = None

    def learn(self, value: str) -> None:
        """Hide this value from now on."""
        if len(value) < SHORTEST or value in self._forms:
            return
        self._forms[value] = frozenset(forms_of(value))
        while len(self._forms) > VALUES_MAX:
            del self._forms[next(iter(self._forms))]
        self._patterns = None

    def _compiled(self) -> tuple[re.Pattern[str], re.Pattern[bytes]] | None:
        """What finds all values in text and in bytes, made when it is first needed: a run may read many in a row."""
        if self._patterns is None and self._forms:
            # The longest first, so that no part of one is left beside the mark of another.
            ordered = sorted(set().union(*self._forms.values()), key=len, reverse=True)
            self._patterns = (
                re.compile("|".join(re.escape(form) for form in ordered)),
                re.compile(b"|".join(re.escape(form.encode()) for form in ordered)),
            )
        return self._patterns

    def text(self, text: str) -> str:
        """The text without secrets."""
        patterns = self._compiled()
        return text if patterns is None else patterns[0].sub(MARK, text)

    def log(self, entry: LogEntry) -> LogEntry:
        """The log line without secrets."""
        patterns = self._compiled()
        if patterns is None or patterns[0].search(entry.message) is None:
            return entry
        return LogEntry(time=entry.time, level=entry.level, message=self.text(entry.message), attempt=entry.attempt)

    def outcome(self, outcome: Outcome) -> Outcome:
        """The outcome without secrets."""
        if not self._forms:
            return outcome
        return replace(
            outcome,
            response=None if outcome.response is None else self._response(outcome.response),
            error=None if outcome.error is None else self._error(outcome.error),
            logs=[self.log(entry) for entry in outcome.logs],
        )

    def _error(self, error: InvocationError) -> InvocationError:
        return InvocationError(
            reason=error.reason,
            message=self.text(error.message),
            type=self.text(error.type),
            stack=self.text(error.stack),
            retryable=error.retryable,
        )

    def _response(self, response: FunctionResponse) -> FunctionResponse:
        return FunctionResponse(
            status_code=response.status_code,
            # The mark may not stand in a name.
            headers={k: self.text(v) for k, v in response.headers.items() if self.text(k) == k},
            cookies=[self.text(cookie) for cookie in response.cookies],
            body=self._binary(response.body) if response.is_base64_encoded else self.text(response.body),
            is_base64_encoded=response.is_base64_encoded,
        )

    def _binary(self, body: str) -> str:
        patterns = self._compiled()
        if patterns is None:
            return body
        return base64.b64encode(patterns[1].sub(MARK.encode(), base64.b64decode(body))).decode()


class Redactors:
    """The redactors of the versions that ran lately, by name.

    One serves every activation of its version: where a context is kept from one to the next, a secret that the first
    has read may be logged by the second.
    """

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._known: OrderedDict[str, Redactor] = OrderedDict()

    def of(self, name: str) -> Redactor:
        """The redactor of a version."""
        found = self._known.setdefault(name, Redactor())
        self._known.move_to_end(name)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return found


def forms_of(value: str) -> Iterator[str]:
    """The value, and what it looks like in JSON, in a URL, in base64 and in hexadecimal."""
    raw = value.encode()
    yield value
    for ascii_only in (False, True):
        written = value
        for _ in range(2):  # JSON within JSON, as messages about messages have it
            written = json.dumps(written, ensure_ascii=ascii_only)[1:-1]
            yield written
    yield quote(value, safe="")
    yield quote(value, safe="!'()*~")
    yield raw.hex()
    yield raw.hex().upper()
    yield from _base64_forms(raw)


def _base64_forms(raw: bytes) -> Iterator[str]:
    """The characters that are the value's alone, wherever it begins within the three bytes of a group."""
    for lead in range(3):
        text = base64.b64encode(b"\0" * lead + raw).decode()
        first = (lead * 8 + 5) // 6
        last = (lead + len(raw)) * 8 // 6
        inner = text[first:last]
        if len(inner) >= SHORTEST:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")
