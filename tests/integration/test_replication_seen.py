"""What an operator sees of replication: one run of three real memory nodes, of which one is killed, comes back, and loses its disk."""

from __future__ import annotations

import secrets
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ndml.client import ClusterStatus, NdmlClient, ServiceStatus
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.internal.v1.memory_node_pb2_grpc import MemoryNodeServiceStub
from ndml.internal.v1.replication_pb2_grpc import ReplicationServiceStub
from ndml.runtime import semconv
from ndml.runtime.telemetry import owner_hash
from ndml.testing import Span, Suite, SuiteOptions, TraceSink
from ndml.v1 import types_pb2

BOUND_S = 90.0  # of every wait; none needs a tenth of it on a quiet machine
NODES = [f"memory-node-{n}" for n in (1, 2, 3)]
AWAY, WIPED, TENANT, USER = "memory-node-3", "memory-node-2", "default", "ada"
WAYS = {semconv.SPAN_JOIN, semconv.SPAN_DIGEST, semconv.SPAN_REPAIR, semconv.SPAN_TAKE_DELTAS}


def eventually(reached: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + BOUND_S
    while not (found := reached()):
        assert time.monotonic() < until, f"never happened: {what}"
        time.sleep(0.1)
    return found


def vector(seed: int) -> list[float]:
    drawn = np.random.default_rng(seed).standard_normal(384)
    return [float(x) for x in drawn / np.linalg.norm(drawn)]


@dataclass
class Seen:
    """The suite, and what was noted on the way.

    traces    of writes: before, while the node was away, after it had lost its disk
    idle      spans of replication that a while without anything to mend has left
    lag       largest lag of the node while it was away
    """

    suite: Suite
    sink: TraceSink
    client: NdmlClient
    traces: dict[str, str] = field(default_factory=dict)
    idle: list[Span] = field(default_factory=list)
    down: ClusterStatus | None = None
    back: ClusterStatus | None = None
    lag: float = 0.0
    siblings: list[float | None] = field(default_factory=list)
    epochs: tuple[float, float] = (0.0, 0.0)

    def write(self, name: str, text: str) -> str:
        self.traces[name] = secrets.token_hex(16)
        headers = {"traceparent": f"00-{self.traces[name]}-{secrets.token_hex(8)}-01"}
        return self.client.add(text, embedding=vector(len(self.traces)), headers=headers).trace_id

    def metric(self, process: str, name: str, **labels: str) -> float | None:
        """None: the process does not export it, or not with these labels."""
        port = self.suite.layout.by_name(process).metrics_port
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = (sample for family in families for sample in family.samples)
        return next((sample.value for sample in samples if sample.name == name and sample.labels == labels), None)

    def most(self, role: Any, name: str, **labels: str) -> float:
        """Over the processes of the role that run."""
        running = [spec.name for spec in self.suite.layout.of_role(role) if self.suite.process(spec.name).running]
        return max(self.metric(process, name, **labels) or 0.0 for process in running)

    def agreed_epoch(self, above: float = 0.0) -> float:
        """Waits until all processes export one epoch, later than `above`: a restart reaches them one after the other."""

        def agreed() -> float:
            running = [spec.name for spec in self.suite.layout.processes if self.suite.process(spec.name).running]
            exported = {self.metric(name, semconv.METRIC_PLACEMENT_EPOCH) or 0.0 for name in running}
            return exported.pop() if len(exported) == 1 and min(exported) > above else 0.0

        return float(eventually(agreed, f"one epoch everywhere, later than {above}"))

    def told_away(self) -> ClusterStatus | None:
        """The status, once the suspicion and the count of what waits for the node have reached it."""
        status = self.client.cluster_status()
        lag = row_of(status, "consensus-1").details["lag"]
        return status if not status.healthy and f"{AWAY}=3" in lag and "memory-node-1=0" in lag else None

    def digest(self, node: str) -> bytes:
        with grpc.insecure_channel(self.suite.layout.by_name(node).address) as channel:
            request = rpb.StreamSymbolsRequest(tenant=TENANT, user=USER, key=secrets.token_bytes(16), limit=1)
            answer = next(iter(ReplicationServiceStub(channel).StreamSymbols(request, timeout=20)))
        return bytes(answer.owner.digest)

    def equal(self) -> bool:
        found = {self.digest(node) for node in NODES}
        return len(found) == 1 and b"" not in found

    def update_at(self, node: str, trace_id: str, text: str) -> pb.OperationResult:
        """At this node alone, as if the gateway had reached no other."""
        update = pb.UpdateAction(trace=types_pb2.MemoryTrace(trace_id=trace_id, text=text, embedding=_embedding(text)), fields=["text"])
        trace = self.traces[text] = secrets.token_hex(16)
        traceparent = f"00-{trace}-{secrets.token_hex(8)}-01"
        operation = pb.Operation(tenant=TENANT, user=USER, want_update=True, update=update, traceparent=traceparent)
        with grpc.insecure_channel(self.suite.layout.by_name(node).address) as channel:
            (answer,) = MemoryNodeServiceStub(channel).Execute(iter([pb.ExecuteRequest(batch_id=1, operations=[operation])]), timeout=20)
        return answer.results[0]

    def spans(self, *names: str) -> list[Span]:
        return [span for span in self.sink.spans() if span.name in names]

    def linked(self, name: str, trace: str, instance: str = "") -> list[Span]:
        """Spans of this name in traces in which something is linked to a write's."""
        traces = {span.trace_id for span in self.sink.spans() if self.traces[trace] in span.links}
        return [span for span in self.spans(name) if span.trace_id in traces and instance in ("", span.instance)]


def _embedding(text: str) -> types_pb2.Embedding:
    values = np.asarray(vector(sum(text.encode())), np.float32)
    return types_pb2.Embedding(vector=values.tobytes())


def contradict(seen: Seen) -> None:
    """Two nodes change one memory without knowledge of each other. The stream may be quicker than the second: then once more."""
    for attempt in range(10):
        trace_id = seen.write(f"contradicted {attempt}", f"Ada lives in town number {attempt}.")
        eventually(seen.equal, "equal before they contradict each other")
        with ThreadPoolExecutor(2) as both:
            done = list(both.map(lambda node: seen.update_at(node, trace_id, f"Ada has moved, says {node}, {attempt}."), NODES[:2]))  # noqa: B023
        assert not any(result.HasField("error") for result in done), done
        eventually(seen.equal, "equal again")
        if seen.client.get(trace_id, include_siblings=True).siblings:
            eventually(lambda: all(seen.metric(node, semconv.METRIC_SIBLINGS) == 1 for node in NODES), "every copy counts it")
            seen.siblings = [seen.metric(node, semconv.METRIC_SIBLINGS) for node in NODES]
            seen.client.resolve(trace_id)
            eventually(lambda: all(seen.metric(node, semconv.METRIC_SIBLINGS) == 0 for node in NODES), "resolved, nothing is counted")
            return
    pytest.fail("the second update always knew of the first")


def live(seen: Seen) -> None:
    seen.write("before", "Ada keeps bees.")
    eventually(seen.equal, "three equal copies")
    contradict(seen)
    time.sleep(1.5)  # rounds that the start asked for, and their spans, have come by now
    quiet = len(seen.spans(*WAYS))
    rounds = seen.most("memory-node", f"{semconv.METRIC_REPLICATION_ROUNDS}_total", outcome="clean")
    eventually(
        lambda: seen.most("memory-node", f"{semconv.METRIC_REPLICATION_ROUNDS}_total", outcome="clean") > rounds, "a round finds nothing"
    )
    time.sleep(0.5)  # exporters' interval
    seen.idle = seen.spans(*WAYS)[quiet:]
    seen.suite.kill(AWAY)
    for n in range(3):
        seen.write(f"away {n}", f"Ada found queen number {n}.")
    eventually(lambda: seen.most("consensus", semconv.METRIC_DELTA_LAG, node=AWAY) >= 3, "what it lacks is counted")
    seen.lag = seen.most("consensus", semconv.METRIC_DELTA_LAG, node=AWAY)
    seen.down = eventually(seen.told_away, "the status says that the node is away and what waits for it")
    seen.suite.restart(AWAY)
    eventually(seen.equal, "equal copies again")
    eventually(lambda: seen.most("consensus", semconv.METRIC_DELTA_LAG, node=AWAY) == 0, "nothing waits for it any more")
    eventually(lambda: seen.client.cluster_status().healthy, "healthy")
    seen.back = seen.client.cluster_status()
    before = seen.agreed_epoch()
    seen.suite.kill(WIPED)
    shutil.rmtree(seen.suite.layout.data_dir / WIPED)
    seen.write("wiped", "Ada sold a hive.")
    seen.suite.restart(WIPED)
    eventually(seen.equal, "the new store has everything")
    seen.epochs = before, seen.agreed_epoch(above=before)
    time.sleep(0.5)  # exporters' interval


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    quick = {"TELEMETRY__EXPORT_INTERVAL_MS": "100"}
    node = {**quick, "REPLICATION__SWEEP__LEAST_INTERVAL_S": "2", "REPLICATION__SWEEP__MOST_INTERVAL_S": "3"}
    consensus = {**quick, "LIVENESS__SUSPECT_AFTER_S": "1.5", "LIVENESS__DOWN_AFTER_S": "3"}
    directory: Path = tmp_path_factory.mktemp("seen")
    with TraceSink() as sink:
        options = SuiteOptions(
            data_dir=directory,
            memory_nodes=3,
            consensus_nodes=2,
            llm=False,
            otlp_endpoint=sink.endpoint,
            settings={"gateway": quick, "memory-node": node, "consensus": consensus},
        )
        with Suite(options) as suite, NdmlClient(suite.grpc_address, user=USER, timeout_s=30.0) as client:
            made = Seen(suite, sink, client)
            live(made)
            yield made


def test_what_comes_by_stream_is_a_join_that_is_linked_to_the_write(seen: Seen) -> None:
    joins = seen.spans(semconv.SPAN_JOIN)
    alone = {trace for name, trace in seen.traces.items() if name.startswith("Ada has moved")}
    assert any(alone & set(span.links) for span in joins), "what the gateway gave to one node only"
    assert {trace for span in joins for trace in span.links} <= set(seen.traces.values())
    for span in joins:
        assert span.parent_id == "" and span.trace_id not in seen.traces.values()
        assert span.attributes[semconv.OWNER_HASH] == owner_hash(TENANT, USER) and USER not in str(span.attributes)
        assert span.attributes[semconv.AUTHOR_ID] in NODES and span.attributes[semconv.REASON] == "stream"
        assert span.attributes[semconv.BYTES] > 0 and span.attributes[semconv.MEMORY_COUNT] >= span.attributes[semconv.BATCH_SIZE] >= 1


def test_what_a_node_missed_is_found_from_the_write_and_the_other_way(seen: Seen) -> None:
    for n in range(3):
        mended = seen.linked(semconv.SPAN_JOIN, f"away {n}", AWAY) + seen.linked(semconv.SPAN_REPAIR, f"away {n}")
        assert mended, f"nothing is linked to write {n}"
        assert {span.trace_id for span in mended} & set(seen.traces.values()) == set(), "and stands in no trace of it"


def test_a_repair_says_what_it_moved_between_whom_and_why(seen: Seen) -> None:
    repairs = seen.spans(semconv.SPAN_REPAIR)
    by_id = {span.span_id: span for span in seen.sink.spans()}
    moved = [span for span in repairs if span.attributes.get(semconv.FETCHED, 0) + span.attributes.get(semconv.PUSHED, 0)]
    assert any({span.instance, span.attributes[semconv.PARTNER_ID]} >= {WIPED} for span in moved), "the wiped node's copy is a repair"
    for span in moved:
        parent = by_id[span.parent_id]
        assert parent.name == semconv.SPAN_DIGEST and parent.parent_id == "", "a comparison is a trace of its own"
        assert parent.attributes[semconv.DIFFERING] >= 1 and parent.attributes[semconv.PARTNER_ID] == span.attributes[semconv.PARTNER_ID]
        assert span.attributes[semconv.BYTES] > 0 and span.attributes[semconv.OWNER_HASH] == owner_hash(TENANT, USER)
        assert span.attributes[semconv.REASON] in {"started", "placement_changed", "interval", "unfinished", "updates_lost"}
        answered = {each.instance for each in by_id.values() if each.parent_id == span.span_id and each.kind == "server"}
        assert answered == {span.attributes[semconv.PARTNER_ID]}, "what the partner did for it stands below it"


def test_the_log_says_whose_updates_it_took(seen: Seen) -> None:
    for name in ("before", "away 0", "wiped"):
        taken = [span for span in seen.spans(semconv.SPAN_TAKE_DELTAS) if seen.traces[name] in span.links]
        assert {span.service for span in taken} == {"ndml-consensus"} and len(taken) <= 2, "once at each consensus node"
        assert all(span.parent_id == "" and span.attributes[semconv.AUTHOR_ID] in NODES for span in taken)


def test_rounds_that_find_nothing_leave_no_span(seen: Seen) -> None:
    assert seen.idle == []
    always = ("/CompareBuckets", "/Heartbeat", "/ExchangeRoster", "/ExchangeDeltas")
    assert [span for span in seen.sink.spans() if span.name.endswith(always)] == [], "nor do calls that are made all the time"


def test_lag_siblings_epochs_and_quarantines_are_measured(seen: Seen) -> None:
    assert seen.lag == 3, "what was written while it was away"
    assert seen.siblings == [1.0] * 3, "until it was resolved"
    before, after = seen.epochs
    assert after > before > 0, "one epoch everywhere, and another store is a change"
    assert [seen.metric(node, semconv.METRIC_QUARANTINED_AUTHORS) for node in NODES] == [0.0] * 3
    assert [seen.metric(node, semconv.METRIC_OWNERS_BEHIND) for node in NODES] == [0.0] * 3
    assert seen.most("memory-node", f"{semconv.METRIC_REPAIR_BYTES}_total", way="fetched") > 0


def row_of(status: ClusterStatus | None, name: str) -> ServiceStatus:
    assert status is not None
    return next(row for row in status.services if row.instance == name)


def test_the_status_tells_an_operator_who_is_away_and_what_waits_for_him(seen: Seen) -> None:
    row = row_of(seen.down, AWAY)
    assert not row.reachable and row.error == "nobody listens at its address: does the process run?"
    assert seen.down is not None and not seen.down.healthy
    assert seen.back is not None and seen.back.healthy and row_of(seen.back, AWAY).reachable
