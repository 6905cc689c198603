"""`manifest.json` as people write it: the proto3 JSON of a Manifest, in which an enum value may be its short word.

`"isolation": "version"` is `"isolation": "ISOLATION_LEVEL_VERSION"`, and `"operations": ["get"]` is
`"operations": ["KV_OPERATION_GET"]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from codesous.runtime.v1.manifest_pb2 import Manifest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

_WORD: Final = re.compile(r"[a-z][a-z0-9_]*")


def parse_manifest(text: str) -> Manifest:
    """Read a manifest. Raises `json_format.ParseError` when it is none, RecursionError when it is nested too deep."""
    try:
        data = json.loads(text, object_pairs_hook=_object)
    except ValueError as error:
        raise json_format.ParseError(f"Failed to load JSON: {error}.") from error
    if not isinstance(data, dict):
        raise json_format.ParseError("must be a JSON object")
    try:
        manifest: Manifest = json_format.ParseDict(_spell_out(data, Manifest.DESCRIPTOR), Manifest())
    except OverflowError as error:
        # The library's own, of a duration such as "0.1e999s".
        raise json_format.ParseError("a number in it is out of range") from error
    return manifest


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {json.dumps(name[:80])} is there twice")
        found[name] = value
    return found


def _spell_out(data: Any, message: Descriptor) -> Any:
    """The same data with the short words of enums replaced by their names. What does not fit is left for the parser."""
    if not isinstance(data, dict):
        return data
    fields = {name: field for field in message.fields for name in (field.name, field.json_name)}
    return {name: _spell_out_field(value, fields.get(name)) for name, value in data.items()}


def _spell_out_field(value: Any, field: FieldDescriptor | None) -> Any:
    if field is None:
        return value
    if isinstance(value, list):
        return [_spell_out_field(item, field) for item in value]
    if field.enum_type is not None:
        return _full_name(value, field.enum_type)
    if field.message_type is not None and not field.message_type.GetOptions().map_entry:
        return _spell_out(value, field.message_type)
    return value


def _full_name(word: Any, enum: EnumDescriptor) -> Any:
    if not isinstance(word, str) or not _WORD.fullmatch(word):
        return word
    # The prefix of a value is the enum's name in capitals: a rule of the contracts' linter.
    name = f"{re.sub(r'(?<!^)(?=[A-Z])', '_', enum.name)}_{word}".upper()
    return name if name in enum.values_by_name and not name.endswith("_UNSPECIFIED") else word
