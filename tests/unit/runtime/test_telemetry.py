"""Spans and logs of a real process: exported over OTLP to a collector here, written to a rotating file."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace as otel_trace
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanContext, TraceFlags

from ndml.errors import Code
from ndml.internal.v1 import llm_pb2
from ndml.runtime import semconv
from ndml.runtime.settings import TelemetrySettings
from ndml.runtime.telemetry import format_traceparent, links, metadata_of, parse_baggage, parse_traceparent, sampler_of, tenant_hash
from ndml.testing import Span, TraceSink

SERVICE = "ndml.internal.v1.LlmService"


@pytest.fixture(scope="module")
def sink() -> Iterator[TraceSink]:
    with TraceSink() as running:
        yield running


@pytest.fixture
def process(spawn: Any, sink: TraceSink) -> Any:
    started = spawn(TELEMETRY__OTLP_ENDPOINT=sink.endpoint, TELEMETRY__EXPORT_INTERVAL_MS="20", LOGGING__LEVEL="debug")
    started.stub.GetModelInfo(llm_pb2.GetModelInfoRequest(), wait_for_ready=True, timeout=60)
    return started


class Trace:
    """A context of the caller's own."""

    def __init__(self, sampled: bool = True) -> None:
        self.trace_id, self.parent_id = secrets.token_hex(16), secrets.token_hex(8)
        self.metadata = (("traceparent", f"00-{self.trace_id}-{self.parent_id}-0{int(sampled)}"),)


def embed(process: Any, text: str, trace: Trace) -> None:
    process.stub.Embed(llm_pb2.EmbedRequest(texts=[text]), metadata=trace.metadata, timeout=60)


def server_span(sink: TraceSink, trace: Trace, count: int = 1) -> Span:
    spans = sink.wait_for(trace.trace_id, lambda got: len(got) == count)
    return next(span for span in spans if span.parent_id == trace.parent_id)


def test_spans_nest_across_a_call_to_another_service(process: Any, sink: TraceSink) -> None:
    trace = Trace()
    embed(process, "relay", trace)
    [root] = sink.tree(sink.wait_for(trace.trace_id, lambda got: len(got) == 4)[0].trace_id)
    chain = [root.span]
    node = root
    while node.children:
        [node] = node.children
        chain.append(node.span)
    assert [(span.name, span.kind, span.status) for span in chain] == [
        (f"{SERVICE}/Embed", "server", "UNSET"),
        (semconv.SPAN_EMBED, "internal", "UNSET"),
        (f"{SERVICE}/GetModelInfo", "client", "UNSET"),
        (f"{SERVICE}/GetModelInfo", "server", "UNSET"),
    ]
    assert root.span.parent_id == trace.parent_id
    assert root.span.attributes == {
        semconv.RPC_SYSTEM: "grpc",
        semconv.RPC_SERVICE: SERVICE,
        semconv.RPC_METHOD: "Embed",
        semconv.RPC_GRPC_STATUS_CODE: 0,
        semconv.TENANT_HASH: tenant_hash("default"),
    }
    assert chain[1].attributes == {semconv.BATCH_SIZE: 1}
    assert root.span.service == "ndml-sample"


@pytest.mark.parametrize(
    ("text", "code", "reason", "status"),
    [
        ("fault", Code.INTERNAL, "INTERNAL", "ERROR"),
        ("raise StoreUnavailable", Code.UNAVAILABLE, "STORE_UNAVAILABLE", "ERROR"),
        ("raise NotAvailable", Code.UNIMPLEMENTED, "NOT_AVAILABLE", "ERROR"),
        ("raise FieldInvalid", Code.INVALID_ARGUMENT, "FIELD_INVALID", "UNSET"),
        ("raise TraceNotFound", Code.NOT_FOUND, "TRACE_NOT_FOUND", "UNSET"),
        ("raise VersionConflict", Code.ABORTED, "VERSION_CONFLICT", "UNSET"),
        ("raise Overloaded", Code.RESOURCE_EXHAUSTED, "OVERLOADED", "UNSET"),
        ("raise ModelNotConfigured", Code.FAILED_PRECONDITION, "MODEL_NOT_CONFIGURED", "UNSET"),
    ],
)
def test_a_server_span_is_an_error_only_where_the_server_is_at_fault(
    process: Any, sink: TraceSink, sample: ModuleType, text: str, code: Code, reason: str, status: str
) -> None:
    for unary in (True, False):
        trace = Trace()
        with pytest.raises(grpc.RpcError):
            if unary:
                embed(process, text, trace)
            else:
                request = llm_pb2.GenerateRequest(messages=[{"role": "ROLE_USER", "content": text}])
                list(process.stub.Generate(request, metadata=trace.metadata))
        span = server_span(sink, trace)
        assert (span.attributes[semconv.RPC_GRPC_STATUS_CODE], span.attributes[semconv.ERROR_TYPE], span.status) == (code, reason, status)
        assert sample.SECRET not in span.message
        assert bool(span.message) == (status == "ERROR")


def test_a_client_span_is_an_error_whoever_is_at_fault(process: Any, sink: TraceSink) -> None:
    trace = Trace()
    with pytest.raises(grpc.RpcError):
        embed(process, "relayraise TraceNotFound", trace)
    spans = sink.wait_for(trace.trace_id, lambda got: len(got) == 3)
    assert {(span.kind, span.status) for span in spans} == {("server", "UNSET"), ("client", "ERROR")}
    assert {span.attributes[semconv.ERROR_TYPE] for span in spans} == {"TRACE_NOT_FOUND"}


def test_the_edge_starts_a_trace_and_follows_the_callers_decision(process: Any, sink: TraceSink) -> None:
    process.stub.Embed(llm_pb2.EmbedRequest(texts=["ok"]), timeout=60)
    root = sink.find(lambda span: span.name == f"{SERVICE}/Embed" and not span.parent_id)
    assert root.kind == "server"
    unsampled = Trace(sampled=False)
    embed(process, "ok", unsampled)
    process.end()
    assert sink.spans(unsampled.trace_id) == []


def test_log_lines_carry_the_trace_and_the_stack_only_for_our_faults(process: Any) -> None:
    mistake, fault = Trace(), Trace()
    for text, trace in (("raise TraceNotFound", mistake), ("fault", fault)):
        with pytest.raises(grpc.RpcError):
            embed(process, text, trace)
    process.end()
    rows = [json.loads(line) for line in process.log.read_text().splitlines()]
    assert {(row["service"], row["instance"]) for row in rows} == {("ndml-sample", rows[0]["instance"])}
    by_trace = {row["trace_id"]: row for row in rows if "trace_id" in row}
    refused, failed = by_trace[mistake.trace_id], by_trace[fault.trace_id]
    assert (refused["event"], refused["level"], refused["reason"]) == ("rpc_refused", "info", "TRACE_NOT_FOUND")
    assert "exception" not in refused
    assert (failed["event"], failed["level"]) == ("rpc_fault", "error")
    assert "RuntimeError" in failed["exception"]


def test_the_log_file_rotates_and_keeps_its_bound(spawn: Any) -> None:
    process = spawn(LOGGING__FILE_MAX_BYTES=str(1 << 16), LOGGING__FILE_BACKUPS="2")
    process.stub.GetModelInfo(llm_pb2.GetModelInfoRequest(), wait_for_ready=True, timeout=60)
    for _ in range(160):
        with pytest.raises(grpc.RpcError):
            process.stub.Embed(llm_pb2.EmbedRequest(texts=["fault"]), timeout=60)
    process.end()
    files = sorted(process.directory.glob("log.jsonl*"))
    assert [file.name for file in files] == ["log.jsonl", "log.jsonl.1", "log.jsonl.2"]
    assert all(json.loads(line) for file in files for line in file.read_text().splitlines())


def test_without_an_endpoint_no_span_is_made_and_context_still_passes(spawn: Any) -> None:
    process = spawn(LOGGING__LEVEL="debug")
    process.stub.GetModelInfo(llm_pb2.GetModelInfoRequest(), wait_for_ready=True, timeout=60)
    embed(process, "relay", Trace())
    code, errors = process.end()
    assert code == 0 and "Traceback" not in errors


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.sampled_from([0, 1]))
def test_a_traceparent_comes_back(trace_id: int, span_id: int, flags: int) -> None:
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    assert parse_traceparent(format_traceparent(context)) == context


@settings(max_examples=200, deadline=None)
@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f ]{32}-[0-9a-f+]{16}-[0-9a-f]{2}", fullmatch=True))
def test_any_text_as_traceparent_is_taken_or_left(text: str) -> None:
    context = parse_traceparent(text)
    assert context is None or context.is_valid
    assert len(links([text])) == (context is not None)


def test_baggage_of_a_caller_counts_behind_the_edge_only(process: Any, sink: TraceSink) -> None:
    """This process is an edge: who a call is for is what it authenticated, whatever the caller's baggage says."""
    trace = Trace()
    claimed = (*trace.metadata, ("baggage", f"{semconv.TENANT_HASH}={tenant_hash('somebody else')}"))
    process.stub.Embed(llm_pb2.EmbedRequest(texts=["ok"]), metadata=claimed, timeout=60)
    assert server_span(sink, trace).attributes[semconv.TENANT_HASH] == tenant_hash("default")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (f"{semconv.TENANT_HASH}=0123456789abcdef", "0123456789abcdef"),
        (f"a=b, {semconv.TENANT_HASH} = 0123456789abcdef;ttl=1 ,c=d", "0123456789abcdef"),
        ("", ""),
        (f"{semconv.TENANT_HASH}", ""),
        (f"{semconv.TENANT_HASH}=0123456789ABCDEF", ""),
        (f"{semconv.TENANT_HASH}=0123456789abcde", ""),
        (f"{semconv.TENANT_HASH}=acme-corporation", ""),
        (",".join(["x=y"] * 64 + [f"{semconv.TENANT_HASH}=0123456789abcdef"]), ""),
    ],
)
def test_of_baggage_the_tenants_hash_is_taken_and_nothing_else(header: str, found: str) -> None:
    assert parse_baggage(header) == found


@given(st.text(max_size=200))
def test_no_baggage_breaks_a_call(header: str) -> None:
    assert parse_baggage(header) == "" or len(parse_baggage(header)) == 16


def test_what_is_not_traced_carries_no_baggage() -> None:
    assert metadata_of("", "0123456789abcdef") == ()
    assert metadata_of("00-x", "") == (("traceparent", "00-x"),)
    assert dict(metadata_of("00-x", "0123456789abcdef"))["baggage"] == f"{semconv.TENANT_HASH}=0123456789abcdef"


def test_a_callers_decision_is_followed_and_new_traces_are_kept_by_their_share() -> None:
    def kept(ratio: float, sampled: bool | None) -> bool:
        context = None
        if sampled is not None:
            caller = SpanContext(2**127 + 1, 2, is_remote=True, trace_flags=TraceFlags(int(sampled)))
            context = otel_trace.set_span_in_context(otel_trace.NonRecordingSpan(caller))
        result = sampler_of(TelemetrySettings(sample_ratio=ratio)).should_sample(context, 2**127 + 1, "x")
        return bool(result.decision is Decision.RECORD_AND_SAMPLE)

    assert kept(0.0, True) and not kept(1.0, False)
    assert kept(1.0, None) and not kept(0.0, None)
    share = [sampler_of(TelemetrySettings(sample_ratio=0.1)).should_sample(None, n << 54, "x").decision for n in range(1024)]
    assert 0.08 < share.count(Decision.RECORD_AND_SAMPLE) / 1024 < 0.12
