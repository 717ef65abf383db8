"""One request is one trace: gateway to memory node and llm, parents right, outcomes as the conventions want them."""

from __future__ import annotations

import secrets
import urllib.request

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ndml.client import ClientOptions, NdmlClient, Retry
from ndml.errors import Code, ModelUnknown, TraceNotFound, Unavailable
from ndml.runtime import semconv
from ndml.runtime.telemetry import tenant_hash
from ndml.testing import Span, Suite, TraceSink, tree

GATEWAY, NODE, LLM = "ndml-gateway", "ndml-memory-node", "ndml-llm"


class Request:
    """A trace context of our own for one request."""

    def __init__(self) -> None:
        self.trace_id = secrets.token_hex(16)
        self.parent = secrets.token_hex(8)
        self.headers = {"traceparent": f"00-{self.trace_id}-{self.parent}-01"}

    def spans(self, sink: TraceSink, *services: str, code: Code | None = None) -> list[Span]:
        """All spans, once there is one root and a span of every service; with `code`, of each a call that ended with it.

        A service exports a batch of spans at a time: that there are some of it does not say that the last one has come.
        """
        wanted = set(services)

        def complete(got: list[Span]) -> bool:
            served = [span for span in got if span.kind == "server"]
            ended = {span.service for span in served if code is None or span.attributes.get(semconv.RPC_GRPC_STATUS_CODE) == code}
            return wanted <= ended and len(tree(got)) == 1

        return sink.wait_for(self.trace_id, complete)


def server_span(spans: list[Span], service: str) -> Span:
    return next(span for span in spans if span.service == service and span.kind == "server")


def ancestry(spans: list[Span], span: Span) -> list[Span]:
    """The span's parent, its parent's parent, … up to the root."""
    by_id = {each.span_id: each for each in spans}
    found: list[Span] = []
    while (parent := by_id.get((found[-1] if found else span).parent_id)) is not None:
        found.append(parent)
    return found


@pytest.fixture(scope="module")
def client(suite: Suite) -> NdmlClient:
    return NdmlClient(suite.grpc_address, user="telemetry", timeout_s=30.0)


@pytest.mark.parametrize("operation", ["search", "add"])
def test_a_request_is_one_trace_through_gateway_llm_and_memory_node(client: NdmlClient, trace_sink: TraceSink, operation: str) -> None:
    request = Request()
    text = f"The lighthouse keeper paints number {request.trace_id}."
    call = {"search": client.search, "add": client.add}[operation]
    call(text, headers=request.headers)  # type: ignore[operator]
    spans = request.spans(trace_sink, GATEWAY, LLM, NODE)
    (root,) = tree(spans)
    method = {"search": "SearchMemories", "add": "AddMemory"}[operation]
    assert (root.span.service, root.span.kind, root.span.parent_id) == (GATEWAY, "server", request.parent)
    assert root.span.name == f"ndml.v1.MemoryService/{method}"
    assert root.span.attributes[semconv.RPC_SERVICE] == "ndml.v1.MemoryService" and root.span.attributes[semconv.RPC_METHOD] == method
    for service in (LLM, NODE):
        above = ancestry(spans, server_span(spans, service))
        assert {span.service for span in above} == {GATEWAY}
        assert above[-1] == root.span
    assert {span.status for span in spans} <= {"UNSET", "OK"}


def test_a_request_by_rest_is_one_trace_too(suite: Suite, trace_sink: TraceSink) -> None:
    request = Request()
    body = {"scope": {"user": "telemetry"}, "text": f"Who paints number {request.trace_id}?", "k": 1}
    answer = httpx.post(f"{suite.rest_url}/v1/memories:search", json=body, headers=request.headers, timeout=30.0)
    assert answer.status_code == 200, answer.text
    spans = request.spans(trace_sink, GATEWAY, LLM, NODE)
    (root,) = tree(spans)
    assert (root.span.service, root.span.name, root.span.parent_id) == (GATEWAY, "ndml.v1.MemoryService/SearchMemories", request.parent)
    for service in (LLM, NODE):
        assert ancestry(spans, server_span(spans, service))[-1] == root.span


def test_a_callers_mistake_keeps_its_code_and_is_no_server_error(client: NdmlClient, trace_sink: TraceSink) -> None:
    request = Request()
    with pytest.raises(TraceNotFound):
        client.get("0" * 32, headers=request.headers)
    spans = request.spans(trace_sink, GATEWAY, NODE, code=Code.NOT_FOUND)
    for service in (GATEWAY, NODE):
        span = server_span(spans, service)
        assert span.attributes[semconv.ERROR_TYPE] == "TRACE_NOT_FOUND"
        assert span.status == "UNSET"


def test_an_aborted_stream_keeps_its_code(client: NdmlClient, trace_sink: TraceSink) -> None:
    request = Request()
    with pytest.raises(ModelUnknown):
        list(client.chat("Hello?", model="gpt-x", headers=request.headers))
    request.spans(trace_sink, GATEWAY, LLM, code=Code.NOT_FOUND)


def test_a_dead_owner_is_a_server_error(spare_suite: Suite, trace_sink: TraceSink) -> None:
    request = Request()
    with NdmlClient(spare_suite.grpc_address, user="telemetry", options=ClientOptions(retry=Retry(attempts=1))) as client:
        (owner,) = client.placement(user="telemetry").owners
        spare_suite.kill(owner)
        with pytest.raises(Unavailable):
            client.search(embedding=[1.0] * 384, headers=request.headers)
    span = server_span(request.spans(trace_sink, GATEWAY), GATEWAY)
    assert span.attributes[semconv.RPC_GRPC_STATUS_CODE] == Code.UNAVAILABLE
    assert span.status == "ERROR"
    assert span.message


def test_every_service_that_a_request_meets_knows_its_tenant_by_hash(client: NdmlClient, trace_sink: TraceSink) -> None:
    """As baggage from hop to hop; the name itself is in no span."""
    searched, asked = Request(), Request()
    client.add(f"The tenant of this is hashed, says {searched.trace_id}.", headers=searched.headers)
    client.cluster_status(headers=asked.headers)
    hashed = tenant_hash("default")
    for request, services in ((searched, (GATEWAY, LLM, NODE)), (asked, (GATEWAY, LLM, NODE, "ndml-consensus"))):
        spans = [span for span in request.spans(trace_sink, *services) if span.kind == "server"]
        assert {span.service for span in spans} >= set(services)
        assert {span.attributes.get(semconv.TENANT_HASH) for span in spans} == {hashed}
        assert not any(value == "default" for span in spans for value in span.attributes.values())


def test_what_a_chat_leaves_behind_is_linked_and_knows_its_tenant(suite: Suite, trace_sink: TraceSink) -> None:
    request = Request()
    with NdmlClient(suite.grpc_address, user="telemetry-chat", timeout_s=60.0) as client:
        list(client.chat("My sister Ines lives in Porto.", learning="wait", headers=request.headers))
    learn = trace_sink.find(lambda span: span.name == semconv.SPAN_LEARN and request.trace_id in span.links)
    assert learn.parent_id == "" and learn.trace_id != request.trace_id
    assert learn.attributes[semconv.TENANT_HASH] == tenant_hash("default")


def scraped(suite: Suite, process: str, accept: str) -> str:
    port = suite.layout.by_name(process).metrics_port
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def exemplars(text: str, histogram: str) -> dict[str, str]:
    """Trace id -> span id of a histogram's exemplars in an OpenMetrics scrape."""
    families = text_string_to_metric_families(text)
    found = [sample.exemplar.labels for family in families if family.name == histogram for sample in family.samples if sample.exemplar]
    return {labels["trace_id"]: labels["span_id"] for labels in found}


def test_a_latency_names_the_trace_of_its_request_to_who_asks_for_openmetrics(
    suite: Suite, client: NdmlClient, trace_sink: TraceSink
) -> None:
    request = Request()
    client.search(f"Who looks after the orchard, asks {request.trace_id}?", headers=request.headers)
    spans = request.spans(trace_sink, GATEWAY, LLM, NODE)
    owner = next(span.instance for span in spans if span.service == NODE)
    for process, service, histogram in (
        ("gateway-1", GATEWAY, semconv.METRIC_RPC_DURATION),
        ("llm", LLM, semconv.METRIC_RPC_DURATION),
        (owner, NODE, semconv.METRIC_QUERY_LATENCY),
    ):
        of = exemplars(scraped(suite, process, "application/openmetrics-text; version=1.0.0"), histogram)
        assert of.get(request.trace_id) in {span.span_id for span in spans}, f"{service} names {of}"
        assert request.trace_id not in scraped(suite, process, "text/plain")


def test_a_request_that_is_not_sampled_leaves_no_exemplar(suite: Suite, client: NdmlClient) -> None:
    trace_id = secrets.token_hex(16)
    client.search("Who looks after the orchard?", headers={"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-00"})
    assert trace_id not in scraped(suite, "gateway-1", "application/openmetrics-text; version=1.0.0")
