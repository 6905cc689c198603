"""Brings the store of a stack to the schema of this release before the services start."""

from __future__ import annotations

from cs_cli.failure import CALLER, SERVER, CommandError
from cs_cli.output import OUT
from cs_cli.stack.plan import Plan
from cs_core.clock import SystemClock
from cs_core.config import SettingsError, load_settings
from cs_core.errors import CodeSousError, StoreSchemaError
from cs_core.store.client import KvClient
from cs_core.store.migrations.migrator import Migrator, StepOutcome
from cs_core.store.schema import VERSION


async def prepare_store(plan: Plan, *, migrate: bool) -> int | None:
    """Make the store fit. The stack's own is migrated; one that the environment names only with `migrate`.

    Returns the schema that it was migrated from; None when there was nothing to migrate.

    Raises:
        CommandError: the store is newer than this release, waits to be migrated and may not be, or does not answer.
    """
    try:
        store = load_settings(plan.folders.settings).store
    except SettingsError:
        # Of the environment: whichever service cannot use them says so.
        return None
    own = store.url == plan.store_url
    client = KvClient(store.url, store.timeout)
    try:
        migrator = Migrator(client, SystemClock())
        version = await migrator.version()
        if version < VERSION and not (own or migrate):
            raise CommandError(
                "CS_STORE_SCHEMA",
                f"the store has schema {version} and this release needs {VERSION}; it is not this stack's own, so say"
                " `cs up --migrate`, or `cs store migrate` first",
            )
        if version < VERSION:
            OUT.note(f"[yellow]migrating[/yellow] the store from schema {version} to {VERSION}")
        await migrator.migrate(tell)
        return version if version < VERSION else None  # noqa: TRY300 - the error is another outcome
    except CodeSousError as error:
        code = CALLER if isinstance(error, StoreSchemaError) else SERVER
        raise CommandError(error.reason, error.message, code) from error
    finally:
        await client.close()


def tell(outcome: StepOutcome) -> None:
    """Say what a step did."""
    OUT.note(f"  [dim]{outcome.step.version}[/dim] {outcome.step.title}: {outcome.changed} of {outcome.keys}")
