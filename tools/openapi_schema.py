"""JSON schemas of protobuf messages, as the proxy writes and reads them: protobuf's JSON, names as in the contracts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

Schema = dict[str, Any]

_F: Final = FieldDescriptorProto
_DURATION: Final = r"^-?\d{1,12}(\.\d{1,9})?s$"
_SCALARS: Final[Mapping[int, Schema]] = {
    _F.TYPE_STRING: {"type": "string"},
    _F.TYPE_BOOL: {"type": "boolean"},
    _F.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    _F.TYPE_INT32: {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1},
    _F.TYPE_UINT32: {"type": "integer", "format": "uint32", "minimum": 0, "maximum": 2**32 - 1},
    # 64 bits do not fit a double: protobuf writes them as text.
    _F.TYPE_INT64: {"type": "string", "format": "int64", "pattern": r"^-?\d{1,18}$"},
    _F.TYPE_UINT64: {"type": "string", "format": "uint64", "pattern": r"^\d{1,19}$"},
    _F.TYPE_DOUBLE: {"type": "number", "format": "double"},
    _F.TYPE_FLOAT: {"type": "number", "format": "float"},
}
_WELL_KNOWN: Final[Mapping[str, Schema]] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.Duration": {"type": "string", "pattern": _DURATION},
    ".google.protobuf.FieldMask": {"type": "string", "description": "Names of fields, with commas between."},
    ".google.protobuf.Struct": {"type": "object"},
    ".google.protobuf.Value": {"description": "Any JSON value."},
    ".google.protobuf.Empty": {"type": "object"},
}
REQUIRED: Final = re.compile(r"\bRequired\b(?! (?:with|when|unless|if|for))")


class Contracts:
    """The messages and enums of a descriptor set that holds its sources' comments."""

    def __init__(self, described: FileDescriptorSet) -> None:
        self._messages: dict[str, DescriptorProto] = {}
        self._enums: dict[str, EnumDescriptorProto] = {}
        self._comments: dict[str, str] = {}
        self.schemas: dict[str, Schema] = {}
        for file in described.file:
            self._index(file)

    def comment(self, name: str) -> str:
        """What stands above a message, field, service or method of a full name that begins with a dot."""
        return self._comments.get(name, "")

    def message(self, name: str) -> DescriptorProto:
        """A message by its full name."""
        return self._messages[name]

    def field(self, message: str, field: FieldDescriptorProto) -> Schema:
        """The schema of a field, with its comment."""
        schema = self._item(field)
        if field.label == _F.LABEL_REPEATED and "additionalProperties" not in schema:
            schema = {"type": "array", "items": schema}
        text = self.comment(f"{message}.{field.name}")
        return {**schema, "description": text} if text else schema

    def reference(self, name: str) -> Schema:
        """A reference to the schema of a message, which is made if need be."""
        if name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[name])
        title = name.rpartition(".")[2]
        if title not in self.schemas:
            self.schemas[title] = {}
            self.schemas[title] = self.of_message(name)
        return {"$ref": f"#/components/schemas/{title}"}

    def of_message(self, name: str, without: frozenset[str] = frozenset()) -> Schema:
        """The schema of a message, but for some of its fields."""
        fields = [field for field in self.message(name).field if field.name not in without]
        schema: Schema = {
            "type": "object",
            "properties": {field.name: self.field(name, field) for field in fields},
            "description": self.comment(name),
        }
        required = [field.name for field in fields if REQUIRED.search(self.comment(f"{name}.{field.name}"))]
        if required:
            schema["required"] = required
        return schema

    def _item(self, field: FieldDescriptorProto) -> Schema:
        if field.type == _F.TYPE_ENUM:
            return {"type": "string", "enum": [value.name for value in self._enums[field.type_name].value]}
        if field.type != _F.TYPE_MESSAGE:
            return dict(_SCALARS[field.type])
        if field.type_name not in _WELL_KNOWN:
            found = self._messages[field.type_name]
            if found.options.map_entry:
                return {"type": "object", "additionalProperties": self._item(found.field[1])}
        return self.reference(field.type_name)

    def _index(self, file: FileDescriptorProto) -> None:
        package = f".{file.package}"
        names: dict[tuple[int, ...], str] = {}

        def add(message: DescriptorProto, parent: str, path: tuple[int, ...]) -> None:
            name = f"{parent}.{message.name}"
            self._messages[name] = message
            names[path] = name
            for number, field in enumerate(message.field):
                names[(*path, 2, number)] = f"{name}.{field.name}"
            for number, nested in enumerate(message.nested_type):
                add(nested, name, (*path, 3, number))
            for enum in message.enum_type:
                self._enums[f"{name}.{enum.name}"] = enum

        for number, message in enumerate(file.message_type):
            add(message, package, (4, number))
        for enum in file.enum_type:
            self._enums[f"{package}.{enum.name}"] = enum
        for number, service in enumerate(file.service):
            names[(6, number)] = f"{package}.{service.name}"
            for place, method in enumerate(service.method):
                names[(6, number, 2, place)] = f"{package}.{service.name}.{method.name}"
        for location in file.source_code_info.location:
            name = names.get(tuple(location.path))
            if name is not None:
                self._comments[name] = " ".join(location.leading_comments.split())
