"""`cs fn publish`, `deploy`, `versions`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from codesous.control.v1 import version_service_pb2 as pb
from codesous.control.v1.alias_pb2 import Alias
from codesous.control.v1.capability_diff_pb2 import CapabilityDiff
from codesous.control.v1.version_pb2 import Version
from codesous.runtime.v1.version_config_pb2 import VersionConfig

from cs_cli import deploying, login
from cs_cli.api import Api
from cs_cli.commands.fn.diff import diff_data, show_diff
from cs_cli.commands.fn.draft import show_warnings
from cs_cli.messages import to_data
from cs_cli.options import DEFAULT_NAMESPACE, Function, Json, Limit, Namespace
from cs_cli.output import OUT, moment, size
from cs_cli.sources import read_files

TimeoutMs = Annotated[int | None, typer.Option("--timeout-ms", min=1, help="Time limit by HTTP and API.")]
WorkerTimeoutMs = Annotated[int | None, typer.Option("--worker-timeout-ms", min=1, help="Limit for schedule, Cadence.")]
MemoryMb = Annotated[int | None, typer.Option("--memory-mb", min=1, help="Memory limit.")]
MaxConcurrency = Annotated[int | None, typer.Option("--max-concurrency", min=1, help="Runs at once.")]
HttpRoles = Annotated[str | None, typer.Option("--invoke-http-roles", metavar="CSV", help="Who may call it.")]
ScheduleRoles = Annotated[str | None, typer.Option("--invoke-schedule-roles", metavar="CSV", help="By schedule.")]
CadenceRoles = Annotated[str | None, typer.Option("--invoke-cadence-roles", metavar="CSV", help="By Cadence.")]


def publish(
    name: Function,
    draft: Annotated[str, typer.Option("--draft", help="Id of the draft.")],
    alias: Annotated[str, typer.Option("--alias", help="Alias to point at the new version.")] = "",
    namespace: Namespace = DEFAULT_NAMESPACE,
    timeout_ms: TimeoutMs = None,
    worker_timeout_ms: WorkerTimeoutMs = None,
    memory_mb: MemoryMb = None,
    max_concurrency: MaxConcurrency = None,
    invoke_http_roles: HttpRoles = None,
    invoke_schedule_roles: ScheduleRoles = None,
    invoke_cadence_roles: CadenceRoles = None,
    json: Json = False,
) -> None:
    """Publish a draft as the next version. What is set here wins over the manifest."""
    config = _config(
        timeout_ms,
        worker_timeout_ms,
        memory_mb,
        max_concurrency,
        invoke_http_roles,
        invoke_schedule_roles,
        invoke_cadence_roles,
    )
    with Api(login.load()) as api:
        answer = deploying.publish(api, namespace, name, draft, alias, config)
    diff = answer.capability_diff if answer.HasField("capability_diff") else None
    _show(answer.version, answer.alias if answer.HasField("alias") else None, diff)


def deploy(
    path: Annotated[Path, typer.Option("--path", help="Folder of the function: manifest.json and code.")],
    alias: Annotated[str, typer.Option("--alias", help="Alias to point at the new version.")],
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Name of the function. Default: the folder's.")] = "",
    namespace: Namespace = DEFAULT_NAMESPACE,
    timeout_ms: TimeoutMs = None,
    worker_timeout_ms: WorkerTimeoutMs = None,
    memory_mb: MemoryMb = None,
    max_concurrency: MaxConcurrency = None,
    invoke_http_roles: HttpRoles = None,
    invoke_schedule_roles: ScheduleRoles = None,
    invoke_cadence_roles: CadenceRoles = None,
    json: Json = False,
) -> None:
    """Draft, publish and alias in one go; the function is made when it is missing."""
    files = read_files(path)
    config = _config(
        timeout_ms,
        worker_timeout_ms,
        memory_mb,
        max_concurrency,
        invoke_http_roles,
        invoke_schedule_roles,
        invoke_cadence_roles,
    )
    with Api(login.load()) as api:
        deployed = deploying.deploy(api, namespace, name or path.resolve().name, files, alias, config)
    if OUT.json:
        warnings = to_data(deployed.draft)["warnings"]
        made = _data(deployed.version, deployed.alias, deployed.diff)
        OUT.data({**made, "created": deployed.created, "warnings": warnings})
        return
    show_warnings(deployed.draft)
    _show(deployed.version, deployed.alias, deployed.diff)


def versions(name: Function, namespace: Namespace = DEFAULT_NAMESPACE, limit: Limit = 100, json: Json = False) -> None:
    """List the versions of a function, newest first."""
    with Api(login.load()) as api:
        request = pb.ListVersionsRequest(tenant=api.tenant, namespace=namespace, function=name)
        found = list(api.pages(api.versions.ListVersions, request, "versions", limit))
    if OUT.json:
        OUT.data({"versions": [to_data(version) for version in found]})
        return
    OUT.table(
        ("version", "published", "by", "size", "timeout", "memory", "http roles"),
        (
            (
                version.version,
                moment(version.create_time.ToJsonString()),
                version.creator,
                size(version.bundle_bytes),
                version.config.timeout.ToJsonString(),
                f"{version.config.memory_mb} MiB",
                ", ".join(version.config.invoke_http_roles),
            )
            for version in found
        ),
        empty=f"{namespace}/{name} has no versions yet",
    )


def _config(
    timeout_ms: int | None,
    worker_timeout_ms: int | None,
    memory_mb: int | None,
    max_concurrency: int | None,
    http_roles: str | None,
    schedule_roles: str | None,
    cadence_roles: str | None,
) -> VersionConfig:
    config = VersionConfig(
        memory_mb=memory_mb or 0,
        max_concurrency=max_concurrency or 0,
        invoke_http_roles=_csv(http_roles),
        invoke_schedule_roles=_csv(schedule_roles),
        invoke_cadence_roles=_csv(cadence_roles),
    )
    if timeout_ms is not None:
        config.timeout.FromTimedelta(timedelta(milliseconds=timeout_ms))
    if worker_timeout_ms is not None:
        config.worker_timeout.FromTimedelta(timedelta(milliseconds=worker_timeout_ms))
    return config


def _csv(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _data(version: Version, alias: Alias | None, diff: CapabilityDiff | None) -> dict[str, Any]:
    return {
        **to_data(version),
        "alias": None if alias is None else to_data(alias),
        "capability_diff": None if diff is None else diff_data(diff),
    }


def _show(version: Version, alias: Alias | None, diff: CapabilityDiff | None) -> None:
    if OUT.json:
        OUT.data(_data(version, alias, diff))
        return
    name = f"{version.namespace}/{version.function}"
    behind = f", [cyan]{alias.alias}[/cyan] points at it" if alias is not None else ""
    OUT.line(f"[green]published[/green] {name} version [bold]{version.version}[/bold]{behind}")
    if diff is not None:
        show_diff(diff)
