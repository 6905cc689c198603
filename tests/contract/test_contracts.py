"""What holds for every RPC and every message of the contracts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from codesous.type.v1 import options_pb2
from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor

from cs_cli.stack.plan import descriptors_path
from cs_core.iam.access import AccessRuleError, rule_of

ROOT = Path(__file__).parents[2]
# Their REST forms are Watch...Events: a browser reads server-sent events, not a stream of messages.
REST_BY_ANOTHER = {"WatchActivation", "WatchMutations"}
DESCRIPTORS = ROOT / "gen" / "descriptors.binpb"
INTERNAL_PACKAGES = ("codesous.admin.v1",)
_PATH_FIELD = re.compile(r"\{([a-z_]+)(?:=[^}]*)?\}")


def _pool() -> tuple[descriptor_pool.DescriptorPool, list[str]]:
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)  # type: ignore[attr-defined]
    names = [
        f"{file.package}.{service.name}"
        for file in files.file
        if file.package.startswith("codesous.")
        for service in file.service
    ]
    return pool, names


POOL, SERVICES = _pool()


def services() -> Iterator[ServiceDescriptor]:
    # From the default pool, whose options know our extension; the file set tells which there are.
    import cs_control.__main__  # noqa: F401 - loads every service's descriptor
    import cs_gateway.__main__  # noqa: F401

    default = descriptor_pool.Default()
    for name in SERVICES:
        yield default.FindServiceByName(name)


def methods() -> list[MethodDescriptor]:
    return [method for service in services() for method in service.methods]


METHODS = methods()


def test_the_contracts_have_the_services_of_the_platform() -> None:
    assert set(SERVICES) == {
        "codesous.control.v1.FunctionService",
        "codesous.control.v1.VersionService",
        "codesous.control.v1.AliasService",
        "codesous.control.v1.ScheduleService",
        "codesous.control.v1.WorkerBindingService",
        "codesous.control.v1.MutationService",
        "codesous.control.v1.AccessService",
        "codesous.control.v1.SecretService",
        "codesous.gateway.v1.InvocationService",
        "codesous.gateway.v1.ActivationService",
        "codesous.gateway.v1.WebService",
        "codesous.admin.v1.AdminService",
    }


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_rpc_declares_its_access(method: MethodDescriptor) -> None:
    rule = rule_of(method)
    assert re.fullmatch(r"cs:[a-z]+:[a-z]+", rule.action)
    internal = method.containing_service.file.package in INTERNAL_PACKAGES
    assert rule.tenant_scoped is not internal


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_tenant_scoped_request_has_a_field_tenant(method: MethodDescriptor) -> None:
    if rule_of(method).tenant_scoped:
        field = method.input_type.fields_by_name["tenant"]
        assert field.type == FieldDescriptor.TYPE_STRING
        assert field.number == 1


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_public_rpc_has_a_rest_path_whose_fields_its_request_has(method: MethodDescriptor) -> None:
    rule: http_pb2.HttpRule = method.GetOptions().Extensions[annotations_pb2.http]
    paths = [path for path in _paths(rule) if path]
    if method.containing_service.file.package in INTERNAL_PACKAGES or method.name in REST_BY_ANOTHER:
        assert paths == []
        return
    assert paths
    for path in paths:
        names = _PATH_FIELD.findall(path)
        assert "tenant" in names
        assert set(names) <= set(method.input_type.fields_by_name)


def _paths(rule: http_pb2.HttpRule) -> Iterator[str]:
    yield from (rule.get, rule.put, rule.post, rule.delete, rule.patch, rule.custom.path)
    for other in rule.additional_bindings:
        yield from _paths(other)


def test_an_rpc_without_a_rule_cannot_be_served() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="bare.proto", package="bare", syntax="proto3")
    file.message_type.add(name="Nothing")
    file.service.add(name="BareService").method.add(name="Do", input_type=".bare.Nothing", output_type=".bare.Nothing")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[attr-defined]
    with pytest.raises(AccessRuleError, match="access is not set"):
        rule_of(pool.FindServiceByName("bare.BareService").methods[0])


def test_a_rule_must_fit_its_request() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="odd.proto", package="odd", syntax="proto3")
    file.message_type.add(name="Nothing")
    method = file.service.add(name="OddService").method.add(
        name="Do", input_type=".odd.Nothing", output_type=".odd.Nothing"
    )
    rule = method.options.Extensions[options_pb2.access]
    rule.scope, rule.action = options_pb2.ACCESS_SCOPE_TENANT, "cs:function:read"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[attr-defined]
    with pytest.raises(AccessRuleError, match="no field tenant"):
        rule_of(pool.FindServiceByName("odd.OddService").methods[0])


def test_public_apis_carry_times_as_messages_not_as_integers() -> None:
    suspicious = re.compile(r"_(ms|millis|seconds|time|at)$")
    found = [
        field.full_name
        for method in METHODS
        for message in (method.input_type, method.output_type)
        for field in message.fields
        if suspicious.search(field.name)
        and field.type in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_INT32)
    ]
    assert found == []


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_list_is_paged(method: MethodDescriptor) -> None:
    # What one process has, or an installation by its settings, has its bound there.
    bounded = ("ListCells", "ListLeases", "ListShards", "ListCaches")
    if not method.name.startswith("List") or method.name in bounded:
        return
    assert {"page_size", "page_token"} <= set(method.input_type.fields_by_name)
    assert "next_page_token" in method.output_type.fields_by_name


def test_the_proxy_gets_the_descriptors_of_this_tree() -> None:
    assert descriptors_path() == DESCRIPTORS
