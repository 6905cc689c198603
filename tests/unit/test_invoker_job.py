"""The job that a cell gets: limits by trigger and deadline, and the handler's context."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from codesous.control.v1.version_pb2 import Version
from codesous.queue.v1.invocation_pb2 import InvocationRequest
from codesous.runtime.v1.version_config_pb2 import IsolationLevel
from codesous.type.v1.function_ref_pb2 import FunctionRef
from codesous.type.v1.principal_pb2 import Principal
from codesous.type.v1.trigger_pb2 import ApiTrigger, CadenceTrigger, HttpTrigger, ScheduleTrigger, Trigger

from cs_core.clock import to_timestamp
from cs_invoker.job import describe_trigger, expired, make_job, wall_limit, warm_key
from cs_invoker.results import Sizes
from cs_sandbox.job import MIB, Bundle

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SIZES = Sizes(result=1, error=2, stack=3, log=4)
BUNDLE = Bundle("s", "index.js", {})

HTTP = Trigger(http=HttpTrigger(method="GET", path="/x"))
API = Trigger(api=ApiTrigger(asynchronous=True))
SCHEDULE = Trigger(schedule=ScheduleTrigger(schedule="nightly", tick=7))
CADENCE = Trigger(cadence=CadenceTrigger(worker="main"))


def make_version(**config: object) -> Version:
    version = Version()
    for name, value in config.items():
        if isinstance(value, timedelta):
            getattr(version.config, name).FromTimedelta(value)
        else:
            setattr(version.config, name, value)
    return version


def make_request(trigger: Trigger, deadline: datetime | None = None) -> InvocationRequest:
    return InvocationRequest(
        activation_id="a1",
        function=FunctionRef(tenant="t_abcdef", namespace="shop", function="pay", version=3, ref="live"),
        principal=Principal(subject="me", tenant="t_abcdef", roles=["dev"]),
        trigger=trigger,
        event=b'{"n":1}',
        deadline=None if deadline is None else to_timestamp(deadline),
    )


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [(HTTP, 2), (API, 2), (SCHEDULE, 60), (CADENCE, 60)],
    ids=["http", "api", "schedule", "cadence"],
)
def test_the_wall_limit_follows_the_trigger(trigger: Trigger, expected: int) -> None:
    version = make_version(timeout=timedelta(seconds=2), worker_timeout=timedelta(seconds=60))
    assert wall_limit(make_request(trigger), version, NOW) == timedelta(seconds=expected)


def test_the_deadline_cuts_the_wall_limit() -> None:
    version = make_version(timeout=timedelta(seconds=20))
    assert wall_limit(make_request(HTTP, NOW + timedelta(seconds=5)), version, NOW) == timedelta(seconds=5)
    assert wall_limit(make_request(HTTP, NOW + timedelta(seconds=50)), version, NOW) == timedelta(seconds=20)


def test_a_request_expires_at_its_deadline_and_never_without_one() -> None:
    assert not expired(make_request(HTTP), NOW)
    assert not expired(make_request(HTTP, NOW + timedelta(microseconds=1)), NOW)
    assert expired(make_request(HTTP, NOW), NOW)


def test_the_job_carries_the_versions_limits_and_environment() -> None:
    version = make_version(timeout=timedelta(seconds=2), memory_mb=64)
    version.config.env["MODE"] = "test"
    job = make_job(make_request(API), version, BUNDLE, attempt=1, now=NOW, sizes=SIZES)
    assert (job.tenant, job.event, job.env) == ("t_abcdef", b'{"n":1}', {"MODE": "test"})
    assert job.limits.memory_bytes == 64 * MIB
    assert job.limits.wall == timedelta(seconds=2)
    assert (job.limits.result_bytes, job.limits.error_bytes, job.limits.stack_bytes, job.limits.log_bytes) == (
        1,
        2,
        3,
        4,
    )


def test_a_version_that_keeps_its_context_has_a_key_made_of_all_that_it_is() -> None:
    assert warm_key(make_version()) == ""
    one, same, other_env, other_number = (make_version() for _ in range(4))
    for version in (one, same, other_env, other_number):
        version.config.isolation = IsolationLevel.ISOLATION_LEVEL_VERSION
    other_env.config.env["MODE"] = "test"
    other_number.version += 1
    keys = [warm_key(version) for version in (one, other_env, other_number)]
    assert warm_key(same) == keys[0]
    assert len(set(keys)) == 3
    assert make_job(make_request(API), one, BUNDLE, attempt=1, now=NOW, sizes=SIZES).warm_key == keys[0]


def test_the_context_says_who_what_why_and_until_when() -> None:
    version = make_version(timeout=timedelta(seconds=2))
    job = make_job(make_request(API), version, BUNDLE, attempt=2, now=NOW, sizes=SIZES)
    assert job.context == {
        "activation_id": "a1",
        "deadline_ms": int(NOW.timestamp() * 1000) + 2000,
        "tenant": "t_abcdef",
        "namespace": "shop",
        "function": "pay",
        "version": 3,
        "ref": "live",
        "trigger": {"kind": "api", "asynchronous": True},
        "principal": {"subject": "me", "tenant": "t_abcdef", "roles": ["dev"], "scopes": []},
        "attempt": 2,
        "traceparent": "",
    }


def test_a_trigger_tells_its_kind_and_fields() -> None:
    assert describe_trigger(HTTP) == {"kind": "http", "method": "GET", "path": "/x"}
    schedule = describe_trigger(SCHEDULE)
    assert (schedule["kind"], schedule["schedule"], schedule["tick"]) == ("schedule", "nightly", 7)
