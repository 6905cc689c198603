"""A change of the contracts that breaks clients is seen; one that only adds is let pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

from tools.breaking import DESCRIPTORS, RELEASED, ROOT, breaks, earlier_contracts

NOW = (ROOT / DESCRIPTORS).read_bytes()


def message(described: FileDescriptorSet, package: str, name: str) -> DescriptorProto:
    return next(
        found for file in described.file if file.package == package for found in file.message_type if found.name == name
    )


def invoke_request(described: FileDescriptorSet) -> DescriptorProto:
    return message(described, "codesous.gateway.v1", "InvokeRequest")


def remove_a_field(described: FileDescriptorSet) -> None:
    del invoke_request(described).field[-1]


def renumber_a_field(described: FileDescriptorSet) -> None:
    invoke_request(described).field[0].number = 99


def rename_a_field(described: FileDescriptorSet) -> None:
    invoke_request(described).field[0].json_name = "renter"
    invoke_request(described).field[0].name = "renter"


def change_a_type(described: FileDescriptorSet) -> None:
    invoke_request(described).field[0].type = FieldDescriptorProto.TYPE_BYTES


def remove_a_method(described: FileDescriptorSet) -> None:
    for file in described.file:
        for service in file.service:
            if service.name == "InvocationService":
                del service.method[0]


@pytest.mark.parametrize("change", [remove_a_field, renumber_a_field, rename_a_field, change_a_type, remove_a_method])
def test_what_breaks_clients_is_seen(change: Callable[[FileDescriptorSet], None], tmp_path: Path) -> None:
    described = FileDescriptorSet.FromString(NOW)
    change(described)
    changed = tmp_path / "changed.binpb"
    changed.write_bytes(described.SerializeToString())
    assert breaks(changed, NOW)


def test_what_only_adds_is_let_pass(tmp_path: Path) -> None:
    described = FileDescriptorSet.FromString(NOW)
    string, optional = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.LABEL_OPTIONAL
    invoke_request(described).field.add(name="note", json_name="note", number=99, type=string, label=optional)
    added = tmp_path / "added.binpb"
    added.write_bytes(described.SerializeToString())
    assert not breaks(added, NOW)


def test_there_is_something_to_compare_with_even_without_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.breaking.base_commit", lambda: None)
    (compared,) = earlier_contracts()
    assert compared == ("the last release", RELEASED.read_bytes())
    assert message(FileDescriptorSet.FromString(compared[1]), "codesous.gateway.v1", "InvokeRequest").field
