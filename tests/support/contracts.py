"""Every RPC of the contracts with its request filled in, and every REST path to it: from the descriptors alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from cs_core.iam.access import MethodRule, rule_of

DESCRIPTORS = Path(__file__).parents[2] / "gen" / "descriptors.binpb"
_VARIABLE = re.compile(r"\{([a-z_]+)(?:=[^}]*)?\}")
_VERBS = ("get", "put", "post", "delete", "patch")
_ANY_VERB = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
_WORD = "filled"


@dataclass(frozen=True, slots=True)
class RestCall:
    """One request of HTTP that leads to an RPC."""

    verb: str
    path: str
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method of the contracts."""

    method: MethodDescriptor
    rule: MethodRule

    @property
    def path(self) -> str:
        """Its gRPC path."""
        return self.rule.path

    @property
    def service(self) -> str:
        """Full name of its service."""
        return self.rule.service

    @property
    def answer(self) -> type[Message]:
        """What it answers."""
        return message_factory.GetMessageClass(self.method.output_type)

    def request(self, tenant: str) -> Message:
        """A request of a tenant in which every field of its own says something."""
        message = message_factory.GetMessageClass(self.method.input_type)()
        for field in self.method.input_type.fields:
            value = tenant if field.name == "tenant" else _filling(field)
            if value is not None:
                setattr(message, field.name, value)
        return message

    def rest_calls(self, tenant: str) -> Iterator[RestCall]:
        """A request for every path and verb that the contracts declare, additional bindings too."""
        rule: http_pb2.HttpRule = self.method.GetOptions().Extensions[annotations_pb2.http]
        if rule.WhichOneof("pattern") is None:
            return
        for binding in (rule, *rule.additional_bindings):
            yield from self._bound(binding, tenant)

    def _bound(self, binding: http_pb2.HttpRule, tenant: str) -> Iterator[RestCall]:
        request = self.request(tenant)
        template = next((getattr(binding, verb) for verb in _VERBS if getattr(binding, verb)), binding.custom.path)
        path = _VARIABLE.sub(lambda found: str(getattr(request, found[1])), template)
        for verb in self._verbs(binding):
            yield RestCall(verb, path, _body(binding, request, set(_VARIABLE.findall(template))))

    @staticmethod
    def _verbs(binding: http_pb2.HttpRule) -> tuple[str, ...]:
        if binding.WhichOneof("pattern") != "custom":
            return (str(binding.WhichOneof("pattern")).upper(),)
        return _ANY_VERB if binding.custom.kind == "*" else (binding.custom.kind,)


def all_rpcs() -> list[Rpc]:
    """Every RPC that the committed descriptors declare, in their order."""
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)  # type: ignore[attr-defined]
    return [
        Rpc(method, rule_of(method))
        for file in files.file
        if file.package.startswith("codesous.")
        for service in file.service
        for method in pool.FindServiceByName(f"{file.package}.{service.name}").methods
    ]


def _filling(field: FieldDescriptor) -> Any:
    """A value for a field that is one plain value; None for the others, which no rule of access can name."""
    if field.is_repeated or field.message_type is not None:
        return None
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return _WORD.encode() if field.type == FieldDescriptor.TYPE_BYTES else _WORD
        case FieldDescriptor.CPPTYPE_BOOL:
            return False
        case FieldDescriptor.CPPTYPE_ENUM:
            assert field.enum_type is not None
            return field.enum_type.values[-1].number
        case _:
            return 1


def _body(binding: http_pb2.HttpRule, request: Message, bound: set[str]) -> bytes | None:
    if not binding.body:
        return None
    if binding.body != "*":
        return b"{}"
    document = json_format.MessageToDict(request, preserving_proto_field_name=True)
    return json.dumps({name: value for name, value in document.items() if name not in bound}).encode()
