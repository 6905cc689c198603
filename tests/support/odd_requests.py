"""Requests made from the descriptors: well-formed, odd, and not even protobuf. What answers gave out is used again."""

from __future__ import annotations

import base64
import json
import random
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from cs_core.rpc.paging import Page
from tests.support.contracts import Rpc
from tests.support.fuzzing import SEED, Mutator

TENANT, STRANGER = "t_alpha0", "t_other0"
_KNOWN: Final[dict[str, tuple[str, ...]]] = {
    "tenant": (TENANT,),
    "namespace": ("default", "default", "default", "second"),
    "function": ("hello", "hello", "other-one"),
    "schedule": ("nightly", "hourly"),
    "worker": ("worker-1", "worker-2"),
    "alias": ("live", "canary"),
    "ref": ("live", "1", "2"),
    "activation_id": ("123e4567-e89b-12d3-a456-426614174000",),
    "draft_id": ("drf_01ARZ3NDEKTSV4RRFFQ69G5FAV",),
    "runtime": ("cs-js",),
    "activity_type": ("charge",),
    "task_list": ("orders",),
    "reason": ("",),
    "cursor": ("", "1.2.3", "1767322800000-0", "999999999.999999999.999999999", "99999999999999999999-1"),
    "cron": ("*/5 * * * *", "0 0 30 2 *"),
    "timezone": ("Europe/Berlin", "../../etc/passwd", "UTC"),
    "entry": ("index.js",),
    "topic": ("cs.invoke",),
    "action": ("cs:function:invoke",),
    "domain": ("orders",),
}
# Without these, nothing gets far.
_NEEDED: Final = frozenset(
    {"seconds", "files", "spec", "action", "schedule", "worker", "worker_binding", "domain", "task_list", "bindings"}
    | {
        "namespace",
        "function",
        "alias",
        "ref",
        "version",
        "draft_id",
        "activation_id",
        "once",
        "cron",
        "interval",
        "policies",
    }
)
_ODD: Final = (
    *("", " ", "a", "A" * 4000, "a\nb", "a\x00b", "a}{b", "{t_other0}", "a:b", "a/b", "../a", "*", "[a]", "a\r\nx: y"),
    *("\u00e9t\u00e9", "\u202e", "\uff0e\uff0e\uff0f", "\U0001f600", "0", "-1", "1e9", "null", "4294967296", "NaN"),
)
_POSITIONS: Final = (
    *(
        "null",
        "true",
        "{}",
        "[]",
        "[1]",
        '["x","y"]',
        '[1,"\\n"]',
        "[null,null]",
        "1e999",
        "-1",
        "9" * 40,
        '"{"',
        "NaN",
    ),
    *('""', '"' + "a" * 5000 + '"', "[" * 3000, "[[1],2]", '{"a":1}', '[9007199254740993,"x"]', "1.5", '"\\ud800"'),
)
# The fields of a request that its list is over.
_SCOPES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "ListFunctions": ("functions", ("tenant", "namespace")),
    "ListVersions": ("versions", ("tenant", "namespace", "function")),
    "ListAliases": ("aliases", ("tenant", "namespace", "function")),
    "ListSchedules": ("schedules", ("tenant", "namespace")),
    "ListScheduleTicks": ("schedule_ticks", ("tenant", "namespace", "schedule")),
    "ListWorkerBindings": ("workers", ("tenant", "namespace")),
    "ListActivations": ("activations", ("tenant", "namespace", "function")),
    "ListActivationLogs": ("logs", ("tenant", "activation_id")),
}
_INTS: Final = (0, 1, 2, 3, 60, 999, 10**9, 2**31 - 1, -(2**31), -1, 2**63 - 1, -(2**63), 315_576_000_001)
_DEPTH: Final = 5


class OddRequests:
    """Makes the bytes of requests."""

    def __init__(self, name: str) -> None:
        self.random = random.Random(f"{SEED}/{name}")
        self._oddness = 0.0
        self._pool: dict[str, deque[str]] = {}

    def of(self, rpc: Rpc) -> bytes:
        """The bytes of a request, as a message of its kind has them, or mutated."""
        request = type(rpc.request(TENANT))()
        # From requests that mean well to those in which nothing is right.
        self._oddness = self.random.choice((0.0, 0.0, 0.05, 0.2, 0.8))
        self._fill(request, 0)
        if rpc.method.name.startswith("Delete") and self.random.random() < 0.9:
            self._spare(request)
        if rpc.rule.tenant_scoped and self.random.random() < 0.95:
            request.tenant = TENANT  # type: ignore[attr-defined]
        if "page_token" in request.DESCRIPTOR.fields_by_name and self.random.random() < 0.4:
            request.page_token = self._page_token(rpc, request)  # type: ignore[attr-defined]
        data = request.SerializeToString()
        if self.random.random() < 0.7:
            return data
        mutator = Mutator(f"{self.random.random()}", (data, b"\x0a\x08" + TENANT.encode()))
        return mutator.mutate(data)

    def learn(self, answer: Message) -> None:
        """Keep ids and tokens that an answer holds."""
        for field, value in answer.ListFields():
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                continue
            for item in list(value)[:3] if field.is_repeated else (value,):
                if isinstance(item, Message):
                    self.learn(item)
                elif field.name in ("draft_id", "activation_id", "cursor"):
                    self._pool.setdefault(field.name, deque(maxlen=8)).append(item)

    def _spare(self, request: Any) -> None:
        """Delete something else than what the other calls are about."""
        for name in ("function", "schedule", "worker", "alias"):
            if name in request.DESCRIPTOR.fields_by_name:
                setattr(request, name, _KNOWN[name][-1])

    def _odd(self) -> bool:
        return self.random.random() < self._oddness

    def _page_token(self, rpc: Rpc, request: Message) -> str:
        kind, fields = _SCOPES.get(rpc.method.name, ("functions", ("tenant",)))
        if rpc.method.name == "ListMutations":
            kind, scope = "mutations", (TENANT, "", "", "None", "None")
            for name in ("resource", "subject", "start_time", "end_time"):
                request.ClearField(name)
        elif rpc.method.name == "ListDeadLetters":
            kind, scope = "dead_letters", ("",)
            request.ClearField("filter")
        else:
            scope = tuple(str(getattr(request, name, "")) for name in fields)  # type: ignore[assignment]
        genuine = Page(kind, scope, 0, "").next_token(0)
        check = base64.urlsafe_b64decode(genuine + "=" * (-len(genuine) % 4))[:8]
        position = self.random.choice((*_POSITIONS, '"hello"', "7", '[1767322800000,"x"]')).encode()
        return base64.urlsafe_b64encode(check + position).decode().rstrip("=")

    def _fill(self, message: Message, depth: int) -> None:
        made: set[str] = set()
        fields = list(message.DESCRIPTOR.fields)
        self.random.shuffle(fields)
        for field in fields:
            oneof = field.containing_oneof
            left_out = 0.05 if field.name in _NEEDED else 0.6
            if self.random.random() < left_out or (oneof is not None and oneof.name in made):
                continue
            if oneof is not None:
                made.add(oneof.name)
            self._set(message, field, depth)

    def _set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        target: Any = message
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._fill_map(getattr(target, field.name), field)
        elif field.message_type is not None:
            if depth < _DEPTH:
                for inner in self._inner(target, field):
                    self._fill(inner, depth + 1)
        elif field.is_repeated:
            getattr(target, field.name).extend(
                self._value(field) for _ in range(self.random.choice((0, 1, 2, 80) if self._odd() else (0, 1)))
            )
        else:
            setattr(target, field.name, self._value(field))

    def _inner(self, target: Any, field: FieldDescriptor) -> Iterator[Message]:
        if field.is_repeated:
            for _ in range(self.random.choice((0, 1, 3))):
                yield getattr(target, field.name).add()
            return
        inner = getattr(target, field.name)
        inner.SetInParent()
        yield inner

    def _fill_map(self, entries: Any, field: FieldDescriptor) -> None:
        assert field.message_type is not None
        value = field.message_type.fields_by_name["value"]
        if field.name == "files":
            entries["manifest.json"] = self._manifest()
            entries["index.js"] = b"export default () => 1"
        for _ in range(self.random.choice((1, 4)) if self._odd() else 0):
            key = self.random.choice((*_ODD, "ok.js", "A"))
            if value.message_type is None:
                entries[key] = self._value(value)
            else:
                self._fill(entries[key], _DEPTH - 1)

    def _manifest(self) -> bytes:
        config: dict[str, Any] = {"invokeHttpRoles": ["admin"], "timeout": "0.05s"}
        if self._odd():
            config[self.random.choice(("timeout", "memoryMb", "env", "retry", "kv"))] = self.random.choice(
                (*_ODD, 1, -1, {}, [], None, {"a": {"b": []}})
            )
        return json.dumps({"runtime": "cs-js", "config": config}).encode()

    def _value(self, field: FieldDescriptor) -> Any:
        dice = self.random
        if not self._odd():
            return self._plain(field)
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                return dice.choice(
                    (b"", b"null", b'{"a":1}', b"[" * 3000, b"\xff\xfe", b"1" * 5000, dice.randbytes(20))
                )
            case FieldDescriptor.CPPTYPE_STRING:
                return self._text(field.name)
            case FieldDescriptor.CPPTYPE_BOOL:
                return dice.random() < 0.5
            case FieldDescriptor.CPPTYPE_ENUM:
                return dice.choice((0, 1, 2, 3, 99, -1))
            case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
                return dice.choice((0.0, -0.0, 1.5, float("nan"), float("inf"), -1e300))
            case FieldDescriptor.CPPTYPE_INT32:
                return dice.choice([number for number in _INTS if -(2**31) <= number < 2**31])
            case FieldDescriptor.CPPTYPE_UINT32:
                return dice.choice([number for number in (*_INTS, 2**32 - 1) if 0 <= number < 2**32])
            case FieldDescriptor.CPPTYPE_UINT64:
                return dice.choice([number for number in (*_INTS, 2**64 - 1) if number >= 0])
            case _:
                return dice.choice(_INTS)

    def _plain(self, field: FieldDescriptor) -> Any:
        """A value that may well be right."""
        dice = self.random
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                return b"null"
            case FieldDescriptor.CPPTYPE_STRING:
                # The newest that were given out, more often than those that are made up.
                return dice.choice((*_KNOWN.get(field.name, ("",)), *list(self._pool.get(field.name, ())) * 2))
            case FieldDescriptor.CPPTYPE_BOOL:
                return dice.random() < 0.5
            case FieldDescriptor.CPPTYPE_ENUM:
                assert field.enum_type is not None
                return dice.choice(field.enum_type.values).number
            case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
                return 2.0
            case _ if (
                field.containing_type is not None
                and field.containing_type.name == "Timestamp"
                and field.name == "seconds"
            ):
                return 4_000_000_000
            case _:
                return dice.choice((1, 1, 2, 60)) if field.name != "nanos" else 0

    def _text(self, name: str) -> str:
        known = (*_KNOWN.get(name, ()), *_ODD, STRANGER)
        return TENANT if name == "tenant" and self.random.random() < 0.5 else self.random.choice(known)
