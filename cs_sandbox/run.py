"""One run as the supervisor sees it: frames in, an `Outcome` out. Nothing that a cell says is believed unchecked.

Theory of operation: the clock of a run never stands still. But runs of one cell share its processor, so the time is
kept that a run had something to do and another had the turn (`stalled`). A run that is late after it was stalled for
much of its time is not a TIMEOUT: it ends as a bystander, to be repeated in a cell of its own. A cell could lie about
turns, and gain one repetition for its own tenant by it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from codesous.cell.v1 import frames_pb2
from codesous.type.v1 import log_entry_pb2

from cs_sandbox import result
from cs_sandbox.activation import LOG_LINE_COST
from cs_sandbox.frames import FrameError
from cs_sandbox.job import (
    ActivationStatus,
    FunctionResponse,
    HostCallError,
    HostCalls,
    InvocationError,
    Job,
    LogEntry,
    Outcome,
)
from cs_sandbox.response import ResponseError, check_response

STALLED_SHARE: Final = 0.25
"""A run that is late was hindered, when it was stalled for this share of its time limit."""
HOG_TURN_MS: Final = 50
"""A run that keeps the processor for this long, in processor time, is no good neighbour."""
MIB: Final = 1024 * 1024
HOST_VALUE_MAX: Final = 16 * MIB
ARGUMENTS_IN_FLIGHT_MAX: Final = 4 * MIB
"""Arguments of one run's host calls that are held at a time. As objects they take many times that."""
UNREAD_MAX: Final = 16 * MIB
"""Answers that wait until the cell reads them. Above it no call is performed; one that began below may pass it."""
_METHOD: Final = re.compile(r"[a-z]{1,32}\.[a-z_]{1,32}")
_logger = logging.getLogger(__name__)


class Run:
    """The state of one run.

    Args:
        job: what runs.
        run_id: its number on the cell's connection.
        host: performs its host calls.
        send: sends a frame to the cell.
        on_log: called with each line as it comes; must not raise.
        unread: bytes sent to the cell that it has not read yet.
    """

    def __init__(
        self,
        job: Job,
        run_id: int,
        host: HostCalls,
        send: Callable[[frames_pb2.ToCell], None],
        on_log: Callable[[LogEntry], None] | None,
        unread: Callable[[], int] = lambda: 0,
    ) -> None:
        self.job = job
        self.run_id = run_id
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.began = asyncio.get_running_loop().time()
        self.ends = self.began + job.limits.wall.total_seconds()
        self.ended_in_cell = False
        """Whether the cell said how it ended: it says nothing of the run after that."""
        self._clock: asyncio.TimerHandle | None = None
        self._due_since: float | None = None
        self._stalled = 0.0
        self._start = datetime.now(UTC)
        self._host = host
        self._send = send
        self._on_log = on_log
        self._unread = unread
        self._logs: list[LogEntry] = []
        self._log_bytes = 0
        self._log_cut = False
        self._last_call = 0
        self._argument_bytes = 0
        self._unheard = 0
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._refusals: set[str] = set()
        self._attempt = int(job.context.get("attempt", 1))
        self._bystander = self._hogged = False

    def request(self) -> frames_pb2.ToCell:
        """The frame that starts the run."""
        limits = self.job.limits
        return frames_pb2.ToCell(
            run=frames_pb2.Run(
                run_id=self.run_id,
                bundle_sha256=self.job.bundle.sha256,
                event=self.job.event,
                context=json.dumps(dict(self.job.context)).encode(),
                memory_bytes=limits.memory_bytes,
                timeout_ms=max(1, int(limits.wall.total_seconds() * 1000)),
                env=dict(self.job.env),
                log_limit_bytes=limits.log_bytes,
                result_limit_bytes=limits.result_bytes,
                error_limit_bytes=limits.error_bytes,
                stack_limit_bytes=limits.stack_bytes,
                host_calls_in_flight=limits.host_calls_in_flight,
                warm_key=self.job.warm_key,
            )
        )

    # Time.

    def start_clock(self, grace: float, overrun: Callable[[Run], None]) -> None:
        """Call `overrun` when the time limit has passed by `grace` seconds and there is no outcome."""
        self._clock = asyncio.get_running_loop().call_at(self.ends + grace, overrun, self)

    def stop_clock(self) -> None:
        """The clock decides nothing any more: the run has an outcome, or its cell is dead and will be told why."""
        if self._clock is not None:
            self._clock.cancel()

    def fall_due(self) -> None:
        """The cell was sent something for this run, and another run may have the turn."""
        if self._due_since is None:
            self._due_since = asyncio.get_running_loop().time()

    def take_turn(self) -> None:
        """The run has the turn, or has nothing to do."""
        if self._due_since is not None:
            self._stalled += asyncio.get_running_loop().time() - self._due_since
            self._due_since = None

    def wait_for_turn_of(self, since: float) -> None:
        """Another run has had the turn since then. A run that waits for no host call waits for a timer: it is due."""
        if self._due_since is None and not self._calls:
            self._due_since = since
        self.take_turn()

    @property
    def hindered(self) -> bool:
        """Whether other runs kept it from ending in time."""
        return self._stalled >= STALLED_SHARE * self.job.limits.wall.total_seconds()

    # Frames.

    def log(self, line: frames_pb2.LogLine) -> None:
        """Take a line, cut to what is left of the limit. Raises `FrameError` when a cell ignores the limit."""
        if self._log_cut:
            # A cell counts as we do: the line that crosses the limit is its last.
            raise FrameError("the cell goes on logging past its limit")
        size = len(line.message.encode()) + LOG_LINE_COST
        self._log_bytes += size
        limit = self.job.limits.log_bytes
        if self.outcome.done():
            # The cell has not heard of it yet.
            self._log_cut = self._log_bytes > limit
            return
        level = (
            line.level if line.level in log_entry_pb2.LogLevel.values() and line.level else log_entry_pb2.LOG_LEVEL_INFO
        )
        if self._log_bytes <= limit:
            self._keep(level, line.message)
            return
        self._log_cut = True
        if (left := limit - (self._log_bytes - size) - LOG_LINE_COST) > 0:
            self._keep(level, result.cut(line.message, left))
        self._keep(log_entry_pb2.LOG_LEVEL_WARN, f"the log was cut here: its limit is {limit} bytes")

    def _keep(self, level: log_entry_pb2.LogLevel.ValueType, message: str) -> None:
        entry = LogEntry(level=level, message=message, attempt=self._attempt)
        entry.time.FromDatetime(datetime.now(UTC))
        self._logs.append(entry)
        if self._on_log is not None:
            self._on_log(entry)

    def host_call(self, call: frames_pb2.HostCall) -> None:
        """Begin a host call. Raises `FrameError` when the cell breaks a rule that the guest keeps."""
        if call.call_id <= self._last_call or not _METHOD.fullmatch(call.method):
            raise FrameError("a host call with an id or a method that cannot be")
        if len(self._calls) >= self.job.limits.host_calls_in_flight:
            raise FrameError("more host calls in flight than allowed")
        self._count_unheard()
        self._last_call = call.call_id
        if self.outcome.done():
            return  # The cell has not heard of it yet.
        task = asyncio.get_running_loop().create_task(self._perform(call))
        self._calls[call.call_id] = task

    def _count_unheard(self) -> None:
        """Answers come in order: a cell that keeps the rules reads what is in its way before it can ask this often."""
        self._unheard = self._unheard + 1 if self._unread() >= UNREAD_MAX else 0
        if self._unheard > 2 * self.job.limits.host_calls_in_flight:
            raise FrameError("the cell asks and does not read the answers")

    async def _perform(self, call: frames_pb2.HostCall) -> None:
        answer = frames_pb2.HostCallResult(run_id=self.run_id, call_id=call.call_id)
        size = len(call.arguments)
        self._argument_bytes += size
        try:
            answer.value = await self._value(call, size)
        except HostCallError as fault:
            answer.error.CopyFrom(InvocationError(reason=fault.reason, message=fault.message))
        except Exception:
            _logger.exception("host call %s failed", call.method)
            answer.error.CopyFrom(InvocationError(reason="CS_INTERNAL", message=f"{call.method} failed"))
        finally:
            self._argument_bytes -= size
        if answer.HasField("error"):
            self._refusals.add(answer.error.reason)
        # Out of the table before the answer leaves: the guest may call again at once.
        self._calls.pop(call.call_id, None)
        if not self.outcome.done():
            self._send(frames_pb2.ToCell(host_result=answer))

    async def _value(self, call: frames_pb2.HostCall, size: int) -> bytes:
        """What the call gives, as JSON; empty for none. Raises `HostCallError`."""
        unread = HostCallError("CS_RATE_LIMITED", f"{call.method}: too many answers wait to be read")
        if self._argument_bytes > max(size, ARGUMENTS_IN_FLIGHT_MAX):
            raise HostCallError("CS_RATE_LIMITED", f"{call.method}: the calls in flight have too large arguments")
        if self._unread() >= UNREAD_MAX:
            raise unread
        value = await self._host.call(call.method, _arguments(call.arguments))
        raw = b"" if value is None else json.dumps(value).encode()
        if len(raw) > HOST_VALUE_MAX:
            raise HostCallError("CS_VALIDATION_TOO_LARGE", f"{call.method}: the answer is too large")
        if self._unread() + len(raw) > UNREAD_MAX + HOST_VALUE_MAX:
            raise unread
        return raw

    def finish(self, frame: frames_pb2.RunResult) -> None:
        """Take the cell's result. Raises `FrameError` when it is not what a cell may send."""
        self._hogged = frame.longest_turn_ms >= HOG_TURN_MS
        if asyncio.get_running_loop().time() > self.ends and not self.hindered:
            self.time_out()
        elif frame.WhichOneof("outcome") == "response":
            self._succeed(frame)
        elif frame.WhichOneof("outcome") == "error":
            self._fail(frame)
        else:
            raise FrameError("a result that says nothing")

    def _succeed(self, frame: frames_pb2.RunResult) -> None:
        if frame.response.ByteSize() > self.job.limits.result_bytes:
            raise FrameError("a response over its limit")
        try:
            check_response(frame.response)
        except ResponseError as fault:
            raise FrameError(f"a response that breaks a rule: {fault}") from None
        self.settle(ActivationStatus.ACTIVATION_STATUS_SUCCESS, response=frame.response, peak=self._peak(frame))

    def _fail(self, frame: frames_pb2.RunResult) -> None:
        error = frame.error
        known = error.reason in result.RUNTIME_REASONS or error.reason in self._refusals
        if not known or error.ByteSize() > self.job.limits.error_bytes:
            raise FrameError("an error that a cell may not give")
        if error.reason == result.TIMEOUT:
            self.time_out()
        else:
            # Only what a cell may say: whether running again helps is not its to judge.
            told = result.error(error.reason, error.message, error.type, error.stack)
            self.settle(ActivationStatus.ACTIVATION_STATUS_ERROR, error=told, peak=self._peak(frame))

    def _peak(self, frame: frames_pb2.RunResult) -> int:
        return min(frame.peak_memory_bytes, self.job.limits.memory_bytes)

    # Ends that the supervisor gives.

    def time_out(self, *, hogged: bool = False) -> None:
        """End the run as TIMEOUT; as a bystander when it was hindered. `hogged`: it was its turn all the while."""
        self._hogged = self._hogged or hogged
        if self.hindered and not hogged:
            self.stand_by("another run of the same cell kept the processor")
            return
        wall_ms = int(self.job.limits.wall.total_seconds() * 1000)
        self.settle(ActivationStatus.ACTIVATION_STATUS_TIMEOUT, error=result.timeout_error(wall_ms))

    def cancel(self) -> None:
        """End the run as CANCELLED."""
        cancelled = result.error(result.CANCELLED, "the activation was cancelled while it ran")
        self.settle(ActivationStatus.ACTIVATION_STATUS_CANCELLED, error=cancelled)

    def crash(self, message: str, *, retryable: bool = True) -> None:
        """End the run as ERROR because its cell died."""
        crashed = result.error(result.CRASH, message)
        crashed.retryable = retryable
        self.settle(ActivationStatus.ACTIVATION_STATUS_ERROR, error=crashed)

    def stand_by(self, message: str) -> None:
        """End the run as ERROR because of another run in its cell."""
        self._bystander = True
        self.crash(message)

    def exhaust_memory(self) -> None:
        """End the run as ERROR because its cell died of the memory that it used."""
        exhausted = result.memory_error(self.job.limits.memory_bytes)
        self.settle(ActivationStatus.ACTIVATION_STATUS_ERROR, error=exhausted)

    def settle(
        self,
        status: ActivationStatus.ValueType,
        response: FunctionResponse | None = None,
        error: InvocationError | None = None,
        peak: int = 0,
    ) -> None:
        """Fix the outcome; the first one stays. Host calls that are still running are cancelled."""
        self.stop_clock()
        for task in self._calls.values():
            task.cancel()
        if not self.outcome.done():
            self.outcome.set_result(
                Outcome(
                    status,
                    response,
                    error,
                    self._logs,
                    self._start,
                    datetime.now(UTC),
                    peak_memory=peak,
                    bystander=self._bystander,
                    hogged=self._hogged,
                )
            )


def _arguments(raw: bytes) -> list[Any]:
    """The arguments of a host call. Lone surrogates, which no store takes, become U+FFFD."""
    try:
        found = json.loads(raw, parse_constant=_refuse_constant)
        if b"\\u" in raw:
            text = json.dumps(found, ensure_ascii=False)
            found = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        raise HostCallError("CS_VALIDATION_MALFORMED", "the arguments are not JSON, or nested too deep") from None
    if not isinstance(found, list):
        raise HostCallError("CS_VALIDATION_MALFORMED", "the arguments are not a list")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
