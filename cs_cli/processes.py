"""The processes that an operator asks: those of the embedded stack, or the addresses that were given."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from codesous.admin.v1 import admin_service_pb2 as pb

from cs_cli.admin import ADDRESS_VARIABLE, Admin
from cs_cli.failure import SERVER, CommandError

NAMES: Final = ("cs-control", "cs-http-gateway", "cs-scheduler", "cs-cadence-poller", "cs-invoker-pool")
_SHORT: Final = {
    "control": "cs-control",
    "gateway": "cs-http-gateway",
    "scheduler": "cs-scheduler",
    "poller": "cs-cadence-poller",
    "invoker": "cs-invoker-pool",
}
_ANSWERS_IN: Final = 5.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """A process to ask; `name` is its address when nobody said which process it is."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a process said, or why it did not."""

    target: Target
    value: T | None = None
    error: CommandError | None = None


def targets(addresses: Sequence[str], data_dir: Path | None) -> list[Target]:
    """Who is asked: the addresses given, those of `$CODE_SOUS_ADMIN` (by commas), or the stack of the data directory.

    Raises:
        CommandError: no address was given and no stack runs there.
    """
    from cs_cli.stack.folders import Folders, find_data_dir
    from cs_cli.stack.state import read_state

    given = list(addresses) or [part for part in os.environ.get(ADDRESS_VARIABLE, "").split(",") if part]
    if given:
        return [Target(address, address) for address in given]
    folders = Folders(find_data_dir(data_dir))
    state = read_state(folders.state)
    children = state.children if state is not None and state.supervisor.alive else []
    found = {child.name: Target(child.name, f"127.0.0.1:{child.port}") for child in children}
    if not found:
        message = f"no mesh runs on {folders.root}; name the processes with --address HOST:PORT"
        raise CommandError("CS_CLI_NO_STACK", message, SERVER)
    return [found[name] for name in NAMES if name in found]


def long_name(process: str) -> str:
    """The name as `cs status` shows it, of a short one (`invoker`); any other stays as it is."""
    return _SHORT.get(process, process)


def named(process: str, addresses: Sequence[str], data_dir: Path | None) -> Target:
    """The one process of that name, short (`invoker`) or long. Processes that were given by address say who they are.

    Raises:
        CommandError: there is no such process, or no stack runs.
    """
    name = long_name(process)
    for target in targets(addresses, data_dir):
        service = target.name
        if service == target.address:
            service = ask(target, lambda stub: stub.GetInfo, pb.GetInfoRequest()).info.service
        if service == name:
            return Target(service, target.address)
    known = ", ".join(_SHORT) + ", or a name as `cs status` shows it"
    raise CommandError("CS_VALIDATION_FIELD", f"process: must be one of {known}")


def ask(target: Target, question: Callable[[Any], Any], request: Any, deadline: float = _ANSWERS_IN) -> Any:
    """Ask one process. `question` picks the method of the stub. Raises CommandError with what it said."""
    with Admin(target.address) as admin:
        return admin.call(question(admin.service), request, deadline)


def ask_all(found: Sequence[Target], question: Callable[[Any], Any], request: Any) -> list[Answer[Any]]:
    """Ask several at once; whoever does not answer holds nobody up."""

    def one(target: Target) -> Answer[Any]:
        try:
            return Answer(target, ask(target, question, request))
        except CommandError as error:
            return Answer(target, error=error)

    with ThreadPoolExecutor(max_workers=max(1, len(found))) as pool:
        return list(pool.map(one, found))


def ask_any(found: Sequence[Target], question: Callable[[Any], Any], request: Any) -> Any:
    """Ask for what every process can tell: the first that answers. Raises CommandError when none does."""
    failed: CommandError | None = None
    for target in found:
        try:
            return ask(target, question, request)
        except CommandError as error:
            if error.exit_code != SERVER:
                raise
            failed = error
    raise failed or CommandError("CS_CLI_NO_STACK", "there is nobody to ask", SERVER)


def ask_owners(found: Sequence[Target], question: Callable[[Any], Any], request: Any) -> list[tuple[Target, Any]]:
    """Ask for what some processes own. Raises CommandError when none of them does, or one that may does not answer."""
    answers = [a for a in ask_all(found, question, request) if a.error is None or a.error.reason != "CS_UNIMPLEMENTED"]
    for answer in answers:
        if answer.error is not None:
            raise answer.error
    if not answers:
        raise CommandError("CS_UNIMPLEMENTED", "none of these processes has that; see `cs admin health`")
    return [(answer.target, answer.value) for answer in answers]
