"""The description of the REST surface: served, valid, complete; and what it describes holds, whatever is sent."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import httpx
import pytest
import schemathesis
from google.api import annotations_pb2
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.acceptance.conftest import Mesh
from tests.support.contracts import all_rpcs
from tests.support.scale import long_test, report, scaled

# What the others check does not hold by design: a name may be well-formed and unknown, and a method that a path does
# not have is answered as a path that is not there.
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = scaled(short=3, full=200)
SEED = 20261125
FUZZED = "t_openapi1"
KNOWN = {"tenant": FUZZED, "namespace": "default", "function": "fuzzed"}


@pytest.fixture(scope="module")
def document(mesh: Mesh) -> Any:
    """The document, as anyone gets it."""
    answer = httpx.get(f"{mesh.url}/v1/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    return answer.json()


def test_the_document_is_valid(document: Any) -> None:
    validate(document)


def test_every_method_with_a_path_is_described(document: Any) -> None:
    described = Counter(
        operation["operationId"].split("_")[1]
        for operations in document["paths"].values()
        for operation in operations.values()
    )
    served = {
        rpc.method.name: rpc.method.GetOptions().Extensions[annotations_pb2.http]
        for rpc in all_rpcs()
        if rpc.service.startswith(("codesous.control.", "codesous.gateway."))
    }
    assert set(described) == {name for name, rule in served.items() if rule.WhichOneof("pattern")}


def test_every_reference_leads_somewhere(document: Any) -> None:
    """What `validate` does not look at: that nothing is left over either."""
    text = json.dumps(document)
    for kind in ("schemas", "responses"):
        for name in document["components"][kind]:
            assert f'"#/components/{kind}/{name}"' in text, name


@long_test
def test_nothing_that_fits_the_document_makes_the_servers_fail_or_answer_otherwise(mesh: Mesh, document: Any) -> None:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=mesh.url)
    headers = {"authorization": f"Bearer {mesh.token(FUZZED, 'admin')}"}
    made = mesh.rest(
        "POST",
        f"/v1/tenants/{FUZZED}/namespaces/default/functions",
        token=headers["authorization"].removeprefix("Bearer "),
        json={"function": KNOWN["function"]},
    )
    assert made.status_code in (201, 409), made.text
    sent: Counter[int] = Counter()

    for operation in [result.ok() for result in schema.get_all_operations()]:
        if "_Watch" in operation.definition.raw["operationId"]:
            continue  # It goes on for as long as somebody listens.

        @seed(SEED)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(
            case=operation.as_strategy(),
            known=st.sets(st.sampled_from(["namespace", "function"])),
            own=st.sampled_from([True] * 7 + [False]),
        )
        def try_it(case: Any, known: set[str], own: bool) -> None:
            # Names at random would lead nowhere: every other one is one that is there.
            known |= {"tenant"} if own else set()
            case.path_parameters.update({name: KNOWN[name] for name in known if name in case.path_parameters})
            case.query.pop("timeout", None)
            response = case.call(headers=headers, timeout=90)
            sent[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        try_it()
    report("openapi", cases=sent.total(), statuses=dict(sorted(sent.items())))
    assert sent[200] > 0
    assert sent.total() >= EXAMPLES * 40
