"""The process cs-control: wiring only."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from codesous.control.v1.access_service_pb2_grpc import add_AccessServiceServicer_to_server
from codesous.control.v1.alias_service_pb2_grpc import add_AliasServiceServicer_to_server
from codesous.control.v1.function_service_pb2_grpc import add_FunctionServiceServicer_to_server
from codesous.control.v1.mutation_service_pb2_grpc import add_MutationServiceServicer_to_server
from codesous.control.v1.schedule_service_pb2_grpc import add_ScheduleServiceServicer_to_server
from codesous.control.v1.secret_service_pb2_grpc import add_SecretServiceServicer_to_server
from codesous.control.v1.version_service_pb2_grpc import add_VersionServiceServicer_to_server
from codesous.control.v1.worker_binding_service_pb2_grpc import add_WorkerBindingServiceServicer_to_server
from externalscaler.externalscaler_pb2_grpc import add_ExternalScalerServicer_to_server
from prometheus_client import CollectorRegistry

from cs_control.aliases import Aliases
from cs_control.capability_gate import CapabilityGate
from cs_control.drafts import Drafts, SyntaxCheck
from cs_control.functions import Functions
from cs_control.mutation_reader import MutationReader
from cs_control.schedule_preview import Previews
from cs_control.schedules import Schedules
from cs_control.secrets import Secrets
from cs_control.servicers.access import AccessServicer
from cs_control.servicers.aliases import AliasServicer
from cs_control.servicers.external_scaler import ExternalScaler
from cs_control.servicers.functions import FunctionServicer
from cs_control.servicers.mutations import MutationServicer
from cs_control.servicers.schedules import ScheduleServicer
from cs_control.servicers.secrets import SecretServicer
from cs_control.servicers.versions import VersionServicer
from cs_control.servicers.worker_bindings import WorkerBindingServicer
from cs_control.versions import Versions
from cs_control.worker_bindings import WorkerBindings
from cs_core.audit.metrics import RelayMetrics
from cs_core.audit.open import ledger_of
from cs_core.audit.relay import Relay
from cs_core.clock import Clock, SystemClock
from cs_core.codeq import Queue
from cs_core.codeq.contract import INVOKE
from cs_core.codeq.open import open_queue
from cs_core.config import Settings
from cs_core.iam.policy import Policy
from cs_core.operations.installation import Installation, open_installation
from cs_core.rpc.admin import Process
from cs_core.rpc.process import run_process
from cs_core.rpc.server import RpcServer, Service, stop_on_signals
from cs_core.schedules.placing import Placing
from cs_core.schedules.runs import Runs
from cs_core.sealing import Sealer, load_sealer
from cs_core.store.activations import ActivationStore
from cs_core.store.aliases import AliasStore
from cs_core.store.bundles import BundleStore
from cs_core.store.client import KvClient
from cs_core.store.drafts import DraftStore
from cs_core.store.functions import FunctionStore
from cs_core.store.mutation_bell import MutationBell
from cs_core.store.mutations import MutationLog
from cs_core.store.relay import RelayStore
from cs_core.store.resolve import Resolver
from cs_core.store.schedules import ScheduleStore
from cs_core.store.schema import SchemaStore
from cs_core.store.secrets import SecretStore
from cs_core.store.shards import ShardStore
from cs_core.store.versions import VersionStore
from cs_core.store.worker_bindings import WorkerBindingStore
from cs_core.store.worker_index import WorkerIndex
from cs_core.store.worker_reports import WorkerReportStore
from cs_core.submission import Submitter
from cs_core.telemetry.backlog import BacklogSeries, BacklogView, summarize
from cs_core.telemetry.log_level import LogLevel
from cs_core.telemetry.spans import trace_starter
from cs_sandbox import CellPool, PoolSettings

SERVICE = "cs-control"


def services_of(
    settings: Settings, client: KvClient, queue: Queue, syntax: SyntaxCheck, bell: MutationBell, clock: Clock
) -> list[Service]:
    """Put the services together over a store, a queue, and something that looks for syntax errors."""
    limits = settings.limits
    functions, aliases = FunctionStore(client), AliasStore(client)
    drafts = DraftStore(client, timedelta(seconds=limits.draft_ttl))
    policy, versions = Policy(settings.iam.role_actions), VersionStore(client)
    gate = CapabilityGate(versions, policy, settings.iam.capability_gate)
    return [
        Service(
            "codesous.control.v1.FunctionService",
            add_FunctionServiceServicer_to_server,
            FunctionServicer(Functions(functions, clock)),
        ),
        Service(
            "codesous.control.v1.VersionService",
            add_VersionServiceServicer_to_server,
            VersionServicer(
                Drafts(functions, drafts, syntax, limits, clock),
                Versions(functions, versions, drafts, aliases, BundleStore(client), gate, limits, clock),
            ),
        ),
        Service(
            "codesous.control.v1.AliasService",
            add_AliasServiceServicer_to_server,
            AliasServicer(Aliases(functions, aliases, gate, clock)),
        ),
        Service(
            "codesous.control.v1.MutationService",
            add_MutationServiceServicer_to_server,
            MutationServicer(MutationReader(MutationLog(client), bell, limits, clock)),
        ),
        Service(
            "codesous.control.v1.AccessService",
            add_AccessServiceServicer_to_server,
            AccessServicer(policy),
        ),
        Service(
            "codesous.control.v1.SecretService",
            add_SecretServiceServicer_to_server,
            SecretServicer(Secrets(SecretStore(client), _sealer(settings), clock)),
        ),
        Service(
            "codesous.control.v1.WorkerBindingService",
            add_WorkerBindingServiceServicer_to_server,
            WorkerBindingServicer(
                WorkerBindings(
                    WorkerBindingStore(client, WorkerIndex(client, settings.store.partitions)),
                    WorkerReportStore(client, clock),
                    Resolver(client),
                    clock,
                )
            ),
        ),
        schedule_service(settings, client, queue, clock),
    ]


def _sealer(settings: Settings) -> Sealer | None:
    return load_sealer(Path(settings.secrets.key_file)) if settings.secrets.provider == "store" else None


def schedule_service(settings: Settings, client: KvClient, queue: Queue, clock: Clock) -> Service:
    """Put the service of schedules together."""
    limits, resolver = settings.limits, Resolver(client)
    activations = ActivationStore(client, settings.store.partitions, clock, timedelta(seconds=limits.activation_ttl))
    runs = Runs(resolver, activations, Submitter(activations, queue), limits, clock, trace_starter(settings.telemetry))
    store, shards = ScheduleStore(client), ShardStore(client, settings.scheduler.shards, settings.scheduler.history)
    schedules = Schedules(store, shards, Placing(store, shards, clock), resolver, runs, clock)
    return Service(
        "codesous.control.v1.ScheduleService",
        add_ScheduleServiceServicer_to_server,
        ScheduleServicer(schedules, Previews(store, shards, runs, clock)),
    )


def scaler_service(installation: Installation) -> Service:
    """Tell KEDA what waits."""

    async def read() -> BacklogView:
        return summarize(await installation.queue(INVOKE))

    return Service(
        "externalscaler.ExternalScaler", add_ExternalScalerServicer_to_server, ExternalScaler(read), foreign=True
    )


async def run(settings: Settings, instance: str, registry: CollectorRegistry, log_level: LogLevel) -> None:
    """Serve until told to stop."""
    stopping = stop_on_signals()
    clock = SystemClock()
    client = KvClient(settings.store.url, settings.store.timeout)
    bell = MutationBell(client.url)
    queue = open_queue(settings, client)
    relay = Relay(
        RelayStore(client),
        ledger_of(settings.audit),
        bell,
        settings.audit,
        clock,
        RelayMetrics(registry, clock),
        instance,
    )
    installation = open_installation(settings, client, queue, clock)
    backlog = BacklogSeries(registry, lambda: installation.queue(INVOKE), clock)
    # Syntax is looked at where code runs: in jailed cells, a few at a time.
    pool = CellPool(PoolSettings(cells_max=2, spare_cells=1, require_jail=settings.sandbox.require_jail))
    await pool.start()
    server = RpcServer(
        settings,
        Process(
            SERVICE,
            instance,
            clock.now(),
            settings,
            queue=queue,
            installation=installation,
            log_level=log_level,
        ),
        [*services_of(settings, client, queue, pool, bell, clock), scaler_service(installation)],
        port=settings.control.port,
        probes={"store": SchemaStore(client, clock).probe},
        clock=clock,
        registry=registry,
    )
    try:
        async with bell.running(stopping), relay.running(), asyncio.TaskGroup() as group:
            reading = group.create_task(backlog.run(), name="backlog")
            await server.serve_until(stopping)
            reading.cancel()
    finally:
        await pool.close()
        await queue.close()
        await client.close()


def main() -> int:
    """Run the process; returns its exit code."""
    return run_process(SERVICE, lambda settings: settings.control, run)


if __name__ == "__main__":
    sys.exit(main())
