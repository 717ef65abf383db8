"""The REST door against its own description: for requests made from /openapi.json, right and wrong ones, no fault of ours, no answer that
the description does not know, no memory that stays.

NDML_SCHEMATHESIS_EXAMPLES=300 makes a long run of it, NDML_SCHEMATHESIS_SEED another one (`make fuzz-rest`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from jsonschema import Draft202012Validator, ValidationError
from schemathesis import Case, GenerationMode, Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ndml.client import NdmlClient
from ndml.testing import Suite
from services.gateway.rest import RestSettings
from services.gateway.rest.app import PUBLIC_SERVICES
from services.gateway.rest.openapi import build_document
from services.gateway.rest.streaming import NDJSON
from services.gateway.rest.transcoder import bindings

EXAMPLES = int(os.environ.get("NDML_SCHEMATHESIS_EXAMPLES", "4"))
SEED = int(os.environ.get("NDML_SCHEMATHESIS_SEED", "1"))
USER = "schema-ann"
MOST_GROWTH = 96 << 20
"""Bytes that the gateway may hold more at the end: its caches fill and its allocator keeps what it has; a body may have 32 MiB."""
DOCUMENT = json.loads(json.dumps(build_document(bindings(PUBLIC_SERVICES), RestSettings())))
STATUSES = {row["reason"]: row["status"] for row in DOCUMENT["x-error-reasons"]}
OPERATIONS = [(path, verb) for path, verbs in DOCUMENT["paths"].items() for verb in verbs]
CHECKS = [status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance]
TIMEOUT = "ndml-timeout-ms"

pytestmark = pytest.mark.timeout(180 + 60 * EXAMPLES)


@pytest.fixture(scope="module")
def known(doors: Suite) -> str:
    """A trace of USER, so that requests about one can go well."""
    with NdmlClient(doors.grpc_address, user=USER) as client:
        return client.add("I moved to Lisbon in May.").trace_id


@pytest.fixture(scope="module", autouse=True)
def no_memory_and_no_stack_trace_stays(doors: Suite, known: str) -> Iterator[None]:
    gateway = doors.process("gateway-1")
    assert gateway.pid is not None
    process = psutil.Process(gateway.pid)
    before, logged = process.memory_info().rss, gateway.log_path.read_text(errors="replace").count("Traceback")
    yield
    grown = process.memory_info().rss - before
    print(f"gateway: {before >> 20} MiB before, {grown >> 20} MiB more after")
    assert grown <= MOST_GROWTH
    assert gateway.log_path.read_text(errors="replace").count("Traceback") == logged


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "verb"), OPERATIONS, ids=lambda part: part)
def test_every_answer_is_one_that_is_described(doors: Suite, known: str, path: str, verb: str, mode: GenerationMode) -> None:
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][verb.upper()]

    @seed(SEED)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        if mode is GenerationMode.POSITIVE:
            reach_deeper(case, known)
        response = case.call(base_url=doors.rest_url, timeout=60)
        check_failure(case, response)
        if response.headers["content-type"][0].startswith(NDJSON):
            check_lines(response, DOCUMENT["paths"][path][verb])
        else:
            case.validate_response(response, checks=CHECKS)

    ask()


def reach_deeper(case: Case, known: str) -> None:
    """What a schema cannot say: a user who is there, a trace of theirs, a tenant that is served. Else most calls end at the first check."""
    for headers in (case.headers, case.query):
        headers.pop("ndml-tenant", None)
        headers.pop("scope.tenant", None)
    if "trace_id" in case.path_parameters:
        case.path_parameters["trace_id"] = known
    if "scope.user" in case.query:
        case.query["scope.user"] = USER
    if isinstance(case.body, dict):
        for scope in (case.body.get("scope"), *(part.get("scope") for part in case.body.values() if isinstance(part, dict))):
            if isinstance(scope, dict):
                scope.pop("tenant", None)
                scope["user"] = USER


def check_failure(case: Case, response: Response) -> None:
    """A failure has a reason of the description with that reason's status; ours is none but the deadline that the request set."""
    if response.status_code < 400:
        return
    tree = response.json()
    reason = tree["error"]["reason"] if "error" in tree else tree["reason"]
    assert STATUSES.get(reason) == response.status_code, f"{case.as_curl_command()}\n{response.text}"
    late = reason == "DEADLINE_EXCEEDED" and TIMEOUT in case.headers
    assert response.status_code < 500 or late or reason == "NOT_AVAILABLE", f"{case.as_curl_command()}\n{response.text}"


def check_lines(response: Response, operation: dict[str, Any]) -> None:
    """Every line of a stream is a message of the description, or the failure that ends it."""
    schema = operation["responses"]["200"]["content"][NDJSON]["schema"] | {"components": DOCUMENT["components"]}
    validator = Draft202012Validator(schema)
    for line in response.text.splitlines():
        validator.validate(json.loads(line))


def test_a_wrong_answer_would_be_noticed() -> None:
    """The checks themselves, on a fault of ours and on a line that no message has."""
    operation = schemathesis.openapi.from_dict(DOCUMENT)["/v1/stats"]["GET"]
    case = operation.Case()
    assert STATUSES["OVERLOADED"] == 429 and "SURPRISE" not in STATUSES
    made = Response(
        status_code=500,
        headers={"content-type": ["application/problem+json"]},
        content=b'{"reason": "INTERNAL"}',
        request=requests.Request("GET", "http://127.0.0.1/v1/stats").prepare(),
        elapsed=0.1,
        verify=True,
    )
    with pytest.raises(AssertionError):
        check_failure(case, made)

    with pytest.raises(ValidationError):
        line = Response(200, {"content-type": [NDJSON]}, b'{"surprise": 1}\n', made.request, 0.1, True)
        check_lines(line, DOCUMENT["paths"]["/v1/memories:export"]["get"])
