"""`cs fn create`, `get`, `list`, `delete`, `undelete`."""

from __future__ import annotations

from typing import Annotated

import typer
from codesous.control.v1 import function_service_pb2 as pb
from codesous.control.v1.function_pb2 import Function as FunctionMessage

from cs_cli import login
from cs_cli.api import Api
from cs_cli.messages import to_data
from cs_cli.options import DEFAULT_NAMESPACE, Function, Json, Limit, Namespace
from cs_cli.output import OUT, moment


def create(
    name: Function,
    namespace: Namespace = DEFAULT_NAMESPACE,
    runtime: Annotated[str, typer.Option("--runtime", help="Runtime of its versions.")] = "cs-js",
    description: Annotated[str, typer.Option("--description", help="One line for people.")] = "",
    json: Json = False,
) -> None:
    """Make a function. Making it again with equal content changes nothing."""
    with Api(login.load()) as api:
        request = pb.CreateFunctionRequest(
            tenant=api.tenant, namespace=namespace, function=name, runtime=runtime, description=description
        )
        _show(api.call(api.functions.CreateFunction, request).function)


def get(name: Function, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Show a function."""
    with Api(login.load()) as api:
        request = pb.GetFunctionRequest(tenant=api.tenant, namespace=namespace, function=name)
        _show(api.call(api.functions.GetFunction, request).function)


def list_all(
    namespace: Namespace = DEFAULT_NAMESPACE,
    deleted: Annotated[bool, typer.Option("--deleted", help="List deleted functions too.")] = False,
    limit: Limit = 1000,
    json: Json = False,
) -> None:
    """List the functions of a namespace."""
    with Api(login.load()) as api:
        request = pb.ListFunctionsRequest(tenant=api.tenant, namespace=namespace, show_deleted=deleted)
        found = [to_data(item) for item in api.pages(api.functions.ListFunctions, request, "functions", limit)]
    if OUT.json:
        OUT.data({"functions": found})
        return
    OUT.table(
        ("function", "versions", "state", "updated", "description"),
        (
            (item["function"], item["latest_version"], item["state"], moment(item["update_time"]), item["description"])
            for item in found
        ),
        empty=f"no functions in {namespace}",
    )


def delete(name: Function, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Delete a function; `undelete` brings it back."""
    with Api(login.load()) as api:
        request = pb.DeleteFunctionRequest(tenant=api.tenant, namespace=namespace, function=name)
        _show(api.call(api.functions.DeleteFunction, request).function)


def undelete(name: Function, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Bring a deleted function back, with its versions and aliases."""
    with Api(login.load()) as api:
        request = pb.UndeleteFunctionRequest(tenant=api.tenant, namespace=namespace, function=name)
        _show(api.call(api.functions.UndeleteFunction, request).function)


def _show(function: FunctionMessage) -> None:
    data = to_data(function)
    if OUT.json:
        OUT.data(data)
        return
    OUT.fields(
        (
            ("function", f"{data['namespace']}/{data['function']}"),
            ("state", data["state"]),
            ("runtime", data["runtime"]),
            ("description", data["description"]),
            ("latest version", data["latest_version"]),
            ("created", f"{moment(data['create_time'])} by {data['creator']}"),
        )
    )
