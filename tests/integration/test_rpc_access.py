"""A server does not start with a method that nobody may be refused, and serves none that it was not told of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from codesous.control.v1 import alias_service_pb2
from codesous.control.v1 import function_service_pb2 as pb
from codesous.control.v1.function_pb2 import Function
from codesous.control.v1.function_service_pb2_grpc import (
    FunctionServiceServicer,
    FunctionServiceStub,
    add_FunctionServiceServicer_to_server,
)
from codesous.type.v1 import options_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from cs_core.iam.access import AccessRuleError
from cs_core.rpc.server import Service
from tests.support.rpc import TENANT, serving


def bare_service(name: str, action: str) -> Service:
    """A service whose one method declares `action`; empty: it declares nothing."""
    package = f"bare.{name.lower()}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.message_type.add(name="Asked").field.add(
        name="tenant",
        number=1,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
        label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
    )
    method = file.service.add(name=name).method.add(
        name="Do", input_type=f".{package}.Asked", output_type=f".{package}.Asked"
    )
    if action:
        rule = method.options.Extensions[options_pb2.access]
        rule.scope, rule.action = options_pb2.ACCESS_SCOPE_TENANT, action
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())  # type: ignore[attr-defined]
    asked: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Asked"))

    async def do(request: Any, _context: Any) -> Any:
        return request

    def add(_servicer: Any, server: grpc.aio.Server) -> None:
        handler = grpc.unary_unary_rpc_method_handler(do, asked.FromString, asked.SerializeToString)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"{package}.{name}", {"Do": handler}),))

    return Service(f"{package}.{name}", add, None)


async def test_a_service_with_a_method_that_declares_no_action_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(AccessRuleError, match=r"UndeclaredService\.Do: .*access is not set"):
        async with serving(tmp_path, [bare_service("UndeclaredService", "")]):
            raise AssertionError("it started")
    # The control: the same service, the action declared.
    async with serving(tmp_path, [bare_service("DeclaredService", "cs:function:read")]) as served:
        call: Any = served.channel.unary_unary("/bare.declaredservice.DeclaredService/Do")
        assert await call(b"\n\x08" + TENANT.encode(), metadata=served.bearer()) == b"\n\x08" + TENANT.encode()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\n\x08" + TENANT.encode())
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


class Echo(FunctionServiceServicer):
    """Answers whoever gets to it."""

    async def GetFunction(self, request: pb.GetFunctionRequest, context: Any) -> pb.GetFunctionResponse:
        return pb.GetFunctionResponse(function=Function(function=request.function))


@pytest.mark.parametrize("declared", [True, False])
async def test_a_method_that_the_server_was_not_told_of_is_not_served(tmp_path: Path, declared: bool) -> None:
    """A slip in the wiring: another service is added than the one that is named. Nothing is open because of it."""
    wrong = alias_service_pb2.DESCRIPTOR.services_by_name["AliasService"].full_name
    name = "codesous.control.v1.FunctionService" if declared else wrong
    add: Callable[..., None] = add_FunctionServiceServicer_to_server
    async with serving(tmp_path, [Service(name, add, Echo())]) as served:  # type: ignore[abstract]
        stub: Any = FunctionServiceStub(served.channel)
        request = pb.GetFunctionRequest(tenant=TENANT, namespace="default", function="hello")
        if declared:
            assert (await stub.GetFunction(request, metadata=served.bearer())).function.function == "hello"
        for metadata in ((), served.bearer()) if not declared else ((),):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetFunction(request, metadata=metadata)
            expected = grpc.StatusCode.UNAUTHENTICATED if declared else grpc.StatusCode.UNIMPLEMENTED
            assert caught.value.code() == expected


async def test_two_authorization_headers_are_refused_whichever_comes_first(tmp_path: Path) -> None:
    name = "codesous.control.v1.FunctionService"
    add: Callable[..., None] = add_FunctionServiceServicer_to_server
    async with serving(tmp_path, [Service(name, add, Echo())]) as served:  # type: ignore[abstract]
        stub: Any = FunctionServiceStub(served.channel)
        request = pb.GetFunctionRequest(tenant=TENANT, namespace="default", function="hello")
        good, other = served.bearer()[0], served.bearer(tenant="t_beta00")[0]
        for metadata in ((good, other), (other, good), (good, good)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetFunction(request, metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert "more than one" in (caught.value.details() or "")
        assert (await stub.GetFunction(request, metadata=(good,))).function.function == "hello"


async def test_an_entry_on_some_resources_lets_in_for_those_only(tmp_path: Path) -> None:
    name = "codesous.control.v1.FunctionService"
    add: Callable[..., None] = add_FunctionServiceServicer_to_server
    entries = {"payments": ["cs:function:read on cs:{tenant}:payments:function/charge*"]}
    settings = {"iam": {"jwks_url": (tmp_path / "identity" / "jwks.json").as_uri(), "role_actions": entries}}
    async with serving(tmp_path, [Service(name, add, Echo())], settings=settings) as served:  # type: ignore[abstract]
        stub: Any = FunctionServiceStub(served.channel)

        async def code(namespace: str, function: str) -> grpc.StatusCode:
            request = pb.GetFunctionRequest(tenant=TENANT, namespace=namespace, function=function)
            try:
                await stub.GetFunction(request, metadata=served.bearer("payments"))
            except grpc.aio.AioRpcError as error:
                assert f"cs:function:read on cs:{TENANT}:" in (error.details() or "")
                return error.code()
            return grpc.StatusCode.OK

        assert await code("payments", "charge-card") == grpc.StatusCode.OK
        for namespace, function in (
            ("payments", "refund"),
            ("default", "charge-card"),
            ("default", "x:payments:function/charge"),
            ("default:payments", "charge"),
            ("", ""),
        ):
            assert await code(namespace, function) == grpc.StatusCode.PERMISSION_DENIED, (namespace, function)
