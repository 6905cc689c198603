"""What `cs` prints: tables and words for people, JSON for programs, errors without a traceback."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from codesous.gateway.v1.activation_pb2 import Activation
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.function_response_pb2 import FunctionResponse
from rich.console import Console

from cs_cli.__main__ import run
from cs_cli.failure import CommandError
from cs_cli.messages import to_data
from cs_cli.output import OUT, moment, size


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal of 80 columns; what is printed on it."""
    screen = io.StringIO()
    console = Console(file=screen, width=80, force_terminal=True, color_system=None, highlight=False)
    monkeypatch.setattr(OUT, "console", console)
    monkeypatch.setattr(OUT, "errors", console)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr(OUT, "json_asked", False)
    return screen


def test_a_row_is_one_line_on_a_narrow_terminal(terminal: io.StringIO) -> None:
    row = ("4c9ed51f-8325-4ef1-86d0-8d2e320dbead", 12, "cancelled", "schedule", "16:33:12", "CS_RUNTIME_CANCELLED")
    OUT.table(("activation", "version", "status", "trigger", "accepted", "reason"), [row, row])
    lines = terminal.getvalue().splitlines()
    assert len(lines) == 3
    for cell in row:
        assert str(cell) in lines[1]


def test_markup_in_a_cell_is_printed_as_it_is(terminal: io.StringIO) -> None:
    OUT.table(("name",), [("[red]x[/red] [/]",)])
    assert "[red]x[/red] [/]" in terminal.getvalue()


def test_an_empty_table_says_so(terminal: io.StringIO) -> None:
    OUT.table(("name",), [], empty="there is nothing")
    assert terminal.getvalue() == "there is nothing\n"


def test_an_error_on_a_terminal_has_message_reason_request_and_rules(terminal: io.StringIO) -> None:
    violations = [("function", "must begin with a letter"), ("namespace", "must be short")]
    OUT.error(CommandError("CS_VALIDATION_FIELD", "2 fields break a rule", 1, "req_1", violations))
    text = terminal.getvalue()
    for part in ("2 fields break a rule", "CS_VALIDATION_FIELD", "req_1", "function must begin", "namespace must be"):
        assert part in text


def test_a_program_gets_the_error_as_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    OUT.json_asked = True
    OUT.error(CommandError("CS_X", 'quotes "and" \n lines', request_id="req_1", violations=[("a", "b")]))
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line) == {
        "error": {
            "reason": "CS_X",
            "message": 'quotes "and" \n lines',
            "request_id": "req_1",
            "violations": [{"field": "a", "description": "b"}],
        }
    }


def test_messages_have_snake_case_keys_and_words_in_lower_case_and_the_response_as_it_was_made() -> None:
    response = FunctionResponse(status_code=201, headers={"b": "2", "a": "1"}, body="x", is_base64_encoded=False)
    activation = Activation(
        activation_id="id", status=ActivationStatus.ACTIVATION_STATUS_TIMEOUT, response=response, attempt=2
    )
    data = to_data(activation)
    assert data["status"] == "timeout"
    assert (data["activation_id"], data["attempt"]) == ("id", 2)
    assert data["response"] == {
        "statusCode": 201,
        "headers": {"a": "1", "b": "2"},
        "body": "x",
        "isBase64Encoded": False,
    }
    assert "error" not in data


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 * 1024, "1.5 MiB"), (2**50, "1024.0 TiB")],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize("text", ["2020-01-02T03:04:05Z", "2020-01-02T03:04:05.123456789Z"])
def test_an_old_moment_has_its_date(text: str) -> None:
    assert moment(text).startswith("2020-01-0")


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["nothing"], 1, "CS_CLI_USAGE"),
        (["fn", "get"], 1, "CS_CLI_USAGE"),
        (["fn", "get", "x", "--limit", "y"], 1, "CS_CLI_USAGE"),
        (["fn", "invoke", "noref"], 1, "CS_VALIDATION_FIELD"),
        (["fn", "list"], 1, "CS_CLI_NO_LOGIN"),
        (["fn", "test", "--path", "/nowhere"], 1, "CS_CLI_NO_SOURCE"),
        (["logs", "nobody"], 1, "CS_VALIDATION_FIELD"),
    ],
)
def test_every_failure_is_a_reason_and_an_exit_code(
    arguments: list[str], code: int, reason: str, capsys: pytest.CaptureFixture[str], home: Any
) -> None:
    assert run(arguments) == code
    streams = capsys.readouterr()
    assert json.loads(streams.err)["error"]["reason"] == reason
    assert streams.out == ""


def test_a_fault_of_the_command_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Any
) -> None:
    def break_() -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("cs_cli.login.load", break_)
    monkeypatch.setattr("cs_cli.commands.fn.lifecycle.login.load", break_)
    monkeypatch.delenv("CODE_SOUS_DEBUG", raising=False)
    assert run(["fn", "list", "--json"]) == 2
    error = capsys.readouterr().err
    assert json.loads(error)["error"]["reason"] == "CS_CLI_INTERNAL"
    assert "Traceback" not in error
