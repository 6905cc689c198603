"""`cs cadence worker`: worker bindings."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from codesous.control.v1 import worker_binding_service_pb2 as pb
from codesous.control.v1.worker_binding_pb2 import PayloadCodec, WorkerBinding, WorkerBindingSpec

from cs_cli import login
from cs_cli.api import Api
from cs_cli.failure import CommandError
from cs_cli.messages import to_data
from cs_cli.options import DEFAULT_NAMESPACE, Json, Limit, Namespace
from cs_cli.output import OUT, moment

app = typer.Typer(help="Worker bindings: Cadence task lists that functions serve.", no_args_is_help=True)
Worker = Annotated[str, typer.Argument(metavar="NAME", help="Name of the worker binding.")]
Activities = Annotated[
    list[str],
    typer.Option("--activity", metavar="TYPE=NAME@REF", help="Activity type and the function that serves it; repeat."),
]


@app.command()
def create(
    name: Worker,
    domain: Annotated[str, typer.Option("--domain", help="Cadence domain.")],
    task_list: Annotated[str, typer.Option("--tasklist", help="Cadence task list.")],
    activity: Activities,
    worker_id: Annotated[str, typer.Option("--worker-id", help="Identity shown to Cadence. Default: NAME.")] = "",
    max_inflight: Annotated[int, typer.Option("--max-inflight", min=1, max=256, help="Tasks in flight at once.")] = 16,
    codec: Annotated[Literal["json", "raw"], typer.Option("--codec", help="Encoding of inputs and results.")] = "json",
    namespace: Namespace = DEFAULT_NAMESPACE,
    json: Json = False,
) -> None:
    """Have functions serve a task list."""
    spec = WorkerBindingSpec(
        domain=domain,
        task_list=task_list,
        worker_id=worker_id,
        max_inflight_tasks=max_inflight,
        codec=PayloadCodec.Value(f"PAYLOAD_CODEC_{codec.upper()}"),
    )
    for mapping in activity:
        kind, equals, target = mapping.rpartition("=")
        function, at, ref = target.partition("@")
        if not (kind and equals and function and at and ref):
            raise CommandError("CS_VALIDATION_FIELD", f"{mapping}: must be TYPE=NAME@ALIAS or TYPE=NAME@VERSION")
        spec.activities[kind].function, spec.activities[kind].ref = function, ref
    with Api(login.load()) as api:
        request = pb.CreateWorkerBindingRequest(tenant=api.tenant, namespace=namespace, worker=name, spec=spec)
        _show(api.call(api.workers.CreateWorkerBinding, request).worker_binding)


@app.command("list")
def list_(namespace: Namespace = DEFAULT_NAMESPACE, limit: Limit = 1000, json: Json = False) -> None:
    """List the worker bindings of a namespace."""
    with Api(login.load()) as api:
        request = pb.ListWorkerBindingsRequest(tenant=api.tenant, namespace=namespace)
        found = [to_data(item) for item in api.pages(api.workers.ListWorkerBindings, request, "worker_bindings", limit)]
    if OUT.json:
        OUT.data({"worker_bindings": found})
        return
    OUT.table(
        ("worker", "state", "domain", "task list", "activities", "why"),
        (
            (
                item["worker"],
                item["state"],
                item["spec"]["domain"],
                item["spec"]["task_list"],
                ", ".join(item["spec"]["activities"]),
                item["status_message"],
            )
            for item in found
        ),
        empty=f"{namespace} has no worker bindings",
    )


@app.command()
def get(name: Worker, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Show a worker binding and how it fares."""
    with Api(login.load()) as api:
        request = pb.GetWorkerBindingRequest(tenant=api.tenant, namespace=namespace, worker=name)
        _show(api.call(api.workers.GetWorkerBinding, request).worker_binding)


@app.command()
def pause(name: Worker, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Poll no more; tasks in flight are answered."""
    with Api(login.load()) as api:
        request = pb.PauseWorkerBindingRequest(tenant=api.tenant, namespace=namespace, worker=name)
        _show(api.call(api.workers.PauseWorkerBinding, request).worker_binding)


@app.command()
def resume(name: Worker, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Poll again."""
    with Api(login.load()) as api:
        request = pb.ResumeWorkerBindingRequest(tenant=api.tenant, namespace=namespace, worker=name)
        _show(api.call(api.workers.ResumeWorkerBinding, request).worker_binding)


@app.command()
def delete(name: Worker, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Delete a worker binding; tasks in flight are answered."""
    with Api(login.load()) as api:
        request = pb.DeleteWorkerBindingRequest(tenant=api.tenant, namespace=namespace, worker=name)
        api.call(api.workers.DeleteWorkerBinding, request)
    if OUT.json:
        OUT.data({"worker": name, "deleted": True})
    else:
        OUT.line(f"[green]deleted[/green] {namespace}/{name}")


def _show(binding: WorkerBinding) -> None:
    data = to_data(binding)
    if OUT.json:
        OUT.data(data)
        return
    spec = data["spec"]
    OUT.fields(
        (
            ("worker", f"{data['namespace']}/{data['worker']}"),
            ("state", data["state"]),
            ("why", data["status_message"]),
            ("domain", spec["domain"]),
            ("task list", spec["task_list"]),
            ("worker id", spec["worker_id"]),
            *(
                ("activity", f"{kind} -> {target['function']}@{target['ref']}")
                for kind, target in spec["activities"].items()
            ),
            ("in flight", f"at most {spec['max_inflight_tasks']}"),
            ("codec", spec["codec"]),
            ("runs as", f"{data['principal']['subject']} ({', '.join(data['principal']['roles'])})"),
            ("changed", moment(data["update_time"])),
        )
    )
