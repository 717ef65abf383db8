"""Spans survive the way through OTLP JSON; what is no trace is said to be none, whatever it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.runtime.spans import KINDS, STATUSES, Span
from ndml.runtime.trace_json import NotTraces, documents, spans_of, to_otlp_json

ids = st.integers(1, 2**64 - 1).map(lambda n: f"{n:016x}")
trace_ids = st.integers(1, 2**128 - 1).map(lambda n: f"{n:032x}")
scalars = st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
spans = st.builds(
    Span,
    service=st.text(max_size=8),
    instance=st.text(max_size=8),
    name=st.text(max_size=8),
    kind=st.sampled_from(sorted(KINDS.values())),
    trace_id=trace_ids,
    span_id=ids,
    parent_id=ids | st.just(""),
    start_ns=st.integers(0, 2**63),
    end_ns=st.integers(0, 2**63),
    status=st.sampled_from(sorted(STATUSES.values())),
    message=st.text(max_size=8),
    attributes=st.dictionaries(st.text(min_size=1, max_size=8), scalars | st.lists(scalars, max_size=3), max_size=3),
    links=st.lists(trace_ids, max_size=2).map(tuple),
)


def by_id(found: list[Span]) -> list[Span]:
    return sorted(found, key=lambda span: (span.service, span.instance, span.trace_id, span.span_id, span.name))


@given(st.lists(spans, max_size=4, unique_by=lambda span: span.span_id))
def test_spans_come_back_as_they_went(given_spans: list[Span]) -> None:
    for wrapped in (to_otlp_json(given_spans), {"result": to_otlp_json(given_spans)}, {"trace": to_otlp_json(given_spans)}):
        assert by_id(spans_of(json.dumps(wrapped))) == by_id(given_spans)


json_values: Any = st.recursive(
    st.none() | scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3), max_leaves=8
)
known_keys = st.sampled_from(
    ["result", "trace", "resourceSpans", "batches", "data", "spans", "scopeSpans", "resource", "traceId", "spanId"]
)


@settings(max_examples=300)
@given(st.dictionaries(known_keys | st.text(max_size=4), json_values, max_size=4) | json_values)
def test_no_answer_breaks_the_reader(document: Any) -> None:
    try:
        assert isinstance(spans_of(json.dumps(document)), list)
    except NotTraces as error:
        assert str(error)


@given(st.text(max_size=40))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        assert isinstance(spans_of(text), list)
    except NotTraces as error:
        assert str(error)


def test_documents_may_follow_each_other() -> None:
    assert documents(' {"a": 1}\n\n{"b": [2]}  ') == [{"a": 1}, {"b": [2]}]
    assert documents("") == []
    for text in ('{"a": 1} oops', "[" * 100_000, "{"):
        with pytest.raises(NotTraces, match="no JSON"):
            documents(text)
    with pytest.raises(NotTraces):
        spans_of('{"result":' * 900 + "1" + "}" * 900)
