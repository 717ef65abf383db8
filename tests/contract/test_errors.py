"""One list of reasons: in the proto, in ndml.errors, on the wire, over HTTP and in the reference page."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import BY_REASON, DOMAIN, Code, FieldInvalid, FieldViolation, InternalFault, NdmlError, leaves
from ndml.v1 import errors_pb2
from ndml.wire import error_to_status, status_to_error, to_grpc_status
from services.gateway.rest.problems import HTTP_PROBLEMS, HTTP_STATUS

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "ERROR_REASON_"
ROW = re.compile(r"^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|(?: ([^|]+) \|)?$", re.MULTILINE)


def codes_in_proto() -> dict[str, str]:
    """reason -> canonical code that the comment above it starts with."""
    text = (ROOT / "protos/ndml/v1/errors.proto").read_text()
    return {reason: code for code, reason in re.findall(rf"// ([A-Z_]+): [^\n]*\n  {PREFIX}([A-Z_]+) = \d+;", text)}


def test_the_enum_and_the_tree_name_the_same_reasons() -> None:
    in_enum = {name.removeprefix(PREFIX) for name, number in errors_pb2.ErrorReason.items() if number}
    assert in_enum == set(BY_REASON)
    assert len(BY_REASON) == len(leaves())


def test_a_reason_has_the_code_that_its_comment_says() -> None:
    assert codes_in_proto() == {reason: leaf.code.name for reason, leaf in BY_REASON.items()}


def test_the_reference_page_has_every_reason_with_code_and_status() -> None:
    page = (ROOT / "docs/reference/errors.md").read_text()
    rpc, http = page.split("## What only HTTP can get wrong")
    rows = {reason: (code, int(status)) for reason, code, status, when, fix in ROW.findall(rpc) if when and fix}
    assert rows == {reason: (leaf.code.name, HTTP_STATUS[leaf.code]) for reason, leaf in BY_REASON.items()}
    assert {reason: (int(status), code) for reason, status, code, _, _ in ROW.findall(http)} == {
        reason: (status, code.name) for status, (code, reason, _) in HTTP_PROBLEMS.items()
    }


def test_every_code_has_an_http_status_and_is_a_grpc_code() -> None:
    assert set(HTTP_STATUS) == set(Code)
    assert {code.name: code.value for code in Code}.items() <= {code.name: code.value[0] for code in grpc.StatusCode}.items()


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: leaf.__name__)
def test_a_leaf_crosses_the_wire(leaf: type[NdmlError]) -> None:
    sent = leaf("what and how", violations=[FieldViolation("a.b[1]", "is bad", "rule.id")], retry_after_s=1.25, metadata={"k": "v"})
    got = status_to_error(status_pb2.Status.FromString(error_to_status(sent).SerializeToString()))
    assert type(got) is leaf
    assert (got.message, got.violations, got.retry_after_s, got.metadata) == (sent.message, sent.violations, 1.25, {"k": "v"})
    status = to_grpc_status(sent)
    assert (status.code.name, status.details) == (leaf.code.name, "what and how")


WITHIN_BOUNDS = st.text(max_size=60)
"""Longer texts are cut: the test below."""


@settings(max_examples=50, deadline=None)
@given(
    leaf=st.sampled_from(leaves()),
    message=WITHIN_BOUNDS,
    fields=st.lists(st.tuples(WITHIN_BOUNDS, WITHIN_BOUNDS, WITHIN_BOUNDS), max_size=3),
    retry_ms=st.none() | st.integers(0, 10**7),
    metadata=st.dictionaries(st.text(), st.text(), max_size=3),
)
def test_nothing_is_lost_on_the_wire(
    leaf: type[NdmlError], message: str, fields: list[tuple[str, str, str]], retry_ms: int | None, metadata: dict[str, str]
) -> None:
    violations = [FieldViolation(*each) for each in fields]
    sent = leaf(message, violations=violations, retry_after_s=None if retry_ms is None else retry_ms / 1000, metadata=metadata)
    got = status_to_error(error_to_status(sent))
    assert (type(got), got.message, got.violations, got.metadata) == (leaf, message, tuple(violations), metadata)
    expected = leaf.default_retry_s if retry_ms is None else retry_ms / 1000
    assert got.retry_after_s == (None if expected is None else pytest.approx(expected, abs=0.0011))


@settings(max_examples=100, deadline=None)
@given(
    message=st.integers(0, 20_000),
    letter=st.sampled_from(["a", "é", "語", "😀", "\n"]),
    fields=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 300)), max_size=30),
)
def test_a_status_fits_into_metadata_whatever_it_quotes(message: int, letter: str, fields: list[tuple[int, int, int]]) -> None:
    violations = [FieldViolation(letter * a, letter * b, letter * c) for a, b, c in fields]
    sent = FieldInvalid(letter * message, violations=violations)
    status = error_to_status(sent)
    trailers = len(quote(status.message)) + len(status.SerializeToString()) * 4 / 3
    assert trailers < 8000
    got = status_to_error(status)
    assert len(got.violations) >= min(len(fields), 1)
    assert got.message == sent.message or (got.message.endswith("…") and sent.message.startswith(got.message[:-1]))


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.name)
def test_a_status_that_is_not_ours_becomes_a_leaf_of_its_code_or_a_fault(code: Code) -> None:
    foreign = error_details_pb2.ErrorInfo(reason="TRACE_NOT_FOUND", domain="elsewhere")
    packed = any_pb2.Any()
    packed.Pack(foreign)
    error = status_to_error(status_pb2.Status(code=int(code), message="by grpc", details=[packed]))
    assert error.code == code or isinstance(error, InternalFault)
    assert error.message == "by grpc"
    assert foreign.domain != DOMAIN


def test_a_message_that_grpc_finds_too_large_is_not_worth_a_retry() -> None:
    status = status_pb2.Status(code=8, message="CLIENT: Sent message larger than max (40000000 vs. 33554432)")
    error = status_to_error(status)
    assert isinstance(error, FieldInvalid)
    assert error.retry_after_s is None
