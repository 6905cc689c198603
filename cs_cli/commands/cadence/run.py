"""`cs cadence run`: one activity, started through Cadence, and its result."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from codesous.control.v1 import worker_binding_service_pb2 as pb
from codesous.control.v1.worker_binding_pb2 import WorkerBinding, WorkerBindingState

from cs_cli import failure, login
from cs_cli.api import Api
from cs_cli.failure import SERVER, CommandError
from cs_cli.options import DEFAULT_NAMESPACE, DataDir, Json, Namespace
from cs_cli.output import OUT


def run(
    activity: Annotated[str, typer.Argument(metavar="ACTIVITY", help="Activity type.")],
    input_: Annotated[
        str, typer.Option("--input", metavar="FILE", help="File of the input, or - for standard input.")
    ] = "",
    worker: Annotated[str, typer.Option("--worker", help="Worker binding. Default: the one that maps ACTIVITY.")] = "",
    timeout: Annotated[int, typer.Option("--timeout", min=1, max=86_400, help="Seconds for the activity.")] = 60,
    fail: Annotated[bool, typer.Option("--fail", help="Exit with 3 when the activity does not complete.")] = False,
    address: Annotated[
        str, typer.Option("--address", metavar="HOST:PORT", help="Cadence frontend. Default: the stack's.")
    ] = "",
    namespace: Namespace = DEFAULT_NAMESPACE,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Run an activity through Cadence, and print its result. Ctrl-C asks Cadence to cancel it."""
    from cs_cli.activity_run import ActivityCall

    data = _read(input_)
    with Api(login.load()) as api:
        binding = _find(api, namespace, activity, worker)
    call = ActivityCall(
        domain=binding.spec.domain,
        task_list=binding.spec.task_list,
        activity=activity,
        data=data,
        timeout=timedelta(seconds=timeout),
    )
    end = asyncio.run(_run(address or _address_of_stack(data_dir), call))
    _show(end)
    if fail and end["how"] != "completed":
        raise typer.Exit(failure.FUNCTION)


def _read(path: str) -> bytes:
    if not path:
        return b""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise CommandError("CS_CLI_FILE", f"{path} cannot be read: {error.strerror}") from error


def _find(api: Api, namespace: str, activity: str, worker: str) -> WorkerBinding:
    """The binding that serves an activity type."""
    if worker:
        request = pb.GetWorkerBindingRequest(tenant=api.tenant, namespace=namespace, worker=worker)
        found: WorkerBinding = api.call(api.workers.GetWorkerBinding, request).worker_binding
        return found
    listing = pb.ListWorkerBindingsRequest(tenant=api.tenant, namespace=namespace)
    bindings = list(api.pages(api.workers.ListWorkerBindings, listing, "worker_bindings", 1000))
    serving: list[WorkerBinding] = [binding for binding in bindings if activity in binding.spec.activities]
    polling = [binding for binding in serving if binding.state == WorkerBindingState.WORKER_BINDING_STATE_ACTIVE]
    if len(serving) == 1 or len(polling) == 1:
        return (polling or serving)[0]
    if serving:
        names = ", ".join(binding.worker for binding in serving)
        raise CommandError("CS_VALIDATION_FIELD", f"{activity} is mapped by {names}; choose one with --worker")
    message = f"no worker binding of {namespace} maps {activity}; `cs cadence worker create` makes one"
    raise CommandError("CS_NOT_FOUND_WORKER", message)


def _address_of_stack(data_dir: Path | None) -> str:
    from cs_cli.stack.folders import Folders, find_data_dir
    from cs_core.config import SettingsError, load_settings

    folders = Folders(find_data_dir(data_dir))
    try:
        target = load_settings(folders.settings if folders.settings.exists() else None).cadence.target
    except SettingsError as error:
        raise CommandError("CS_CLI_SETTINGS", str(error)) from error
    if not target:
        message = "no Cadence server is known; start the mesh with `cs up --with-cadence`, or give --address"
        raise CommandError("CS_CLI_NO_CADENCE", message)
    return target


async def _run(address: str, call: Any) -> dict[str, Any]:
    from cs_cli.activity_run import ActivityRun
    from cs_core.errors import CodeSousError
    from cs_core.rpc.cadence import CadenceConnection

    async with CadenceConnection(address, "cs-cli") as cadence:
        run = ActivityRun(cadence, call)
        try:
            await run.start()
            finishing = asyncio.ensure_future(run.finish())
            try:
                end = await asyncio.shield(finishing)
            except asyncio.CancelledError:
                # Ctrl-C: the run ends as Cadence and the function decide; a second one ends this at once.
                OUT.note("[yellow]asked Cadence to cancel it[/yellow]")
                await run.cancel()
                end = await finishing
        except CodeSousError as error:
            raise CommandError(error.reason, error.message, SERVER) from error
        except TimeoutError as error:
            message = f"activity {call.activity} did not end in its time; is anybody polling {call.task_list}?"
            raise CommandError("CS_CLI_DEADLINE", message, SERVER) from error
    text = end.data.decode("utf-8", "replace")
    return {"how": end.how, "reason": end.reason, "result": text, "workflow_id": run.workflow_id, "run_id": run.run_id}


def _show(end: dict[str, Any]) -> None:
    if OUT.json:
        OUT.data(end)
        return
    colour = "green" if end["how"] == "completed" else "red"
    reason = f" {end['reason']}" if end["reason"] else ""
    OUT.note(f"[{colour}]{end['how']}[/{colour}]{reason} [dim]workflow {end['workflow_id']}[/dim]")
    if end["result"]:
        OUT.text(end["result"])
