"""Prometheus metrics of all services; a process exports those it touches, on its metrics port.

The seed's names stand first: counters get the `_total` suffix that Prometheus puts there.
"""

from __future__ import annotations

from wsgiref.simple_server import WSGIServer

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from ndml.runtime import semconv as names

_LATENCY_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# The seed's
MEMORY_TOTAL_TRACES = Gauge(names.METRIC_TOTAL_TRACES, "Traces stored on this memory node")
MEMORY_UTILIZATION = Gauge(names.METRIC_UTILIZATION, "Traces stored / max_traces of this memory node, 0 to 1")
MEMORY_QUERY_LATENCY = Histogram(
    names.METRIC_QUERY_LATENCY, "Seconds from a search's arrival at the memory node to its result", buckets=_LATENCY_S
)
MEMORY_UPDATE_RATE = Counter(names.METRIC_UPDATE_RATE, "Traces added, changed or deleted; take rate() of it", ["action"])
BTSP_UPDATES = Counter(names.METRIC_BTSP_UPDATES, "Decisions of the write gate and changes of trace states", ["kind"])
CONSOLIDATION_EVENTS = Counter(names.METRIC_CONSOLIDATION_EVENTS, "Clusters that consolidation looked at", ["outcome"])
CONSENSUS_OPERATIONS = Counter(names.METRIC_CONSENSUS_OPERATIONS, "Operations of the consensus node", ["operation"])

# RPC: rate, errors, duration
RPC_DURATION = Histogram(names.METRIC_RPC_DURATION, "Seconds a call took in this server", ["method"], buckets=_LATENCY_S)
RPC_ERRORS = Counter(names.METRIC_RPC_ERRORS, "Calls that failed", ["method", "code", "reason"])
RPC_TURNED_AWAY = Counter(
    names.METRIC_RPC_TURNED_AWAY, "Calls refused before their request was read: counted among the errors, not in the duration", ["method"]
)
RPC_IN_FLIGHT = Gauge(names.METRIC_RPC_IN_FLIGHT, "Calls under way in this server")

# The process
BUILD_INFO = Gauge(names.METRIC_BUILD_INFO, "1; the labels say what runs", ["service", "version"])
READY = Gauge(names.METRIC_READY, "1 while this process takes calls, 0 while it starts or drains")

# Queues and batches
BATCH_SIZE = Histogram(names.METRIC_BATCH_SIZE, "Items in a batch", ["queue"], buckets=_SIZES)
QUEUE_DEPTH = Gauge(names.METRIC_QUEUE_DEPTH, "Items waiting", ["queue"])

QUEUE_LIMIT = Gauge(names.METRIC_QUEUE_LIMIT, "Items that may wait: at the bound calls are refused", ["queue"])

# Memory node
COMMIT_DURATION = Histogram(names.METRIC_COMMIT_DURATION, "Seconds of one group commit, fsync included", buckets=_LATENCY_S)
STORE_BYTES = Gauge(names.METRIC_STORE_BYTES, "Bytes of the store on disk, its log included")
STORE_FREE_BYTES = Gauge(names.METRIC_STORE_FREE_BYTES, "Bytes free on the disk that the store lies on")
OPERATION_ERRORS = Counter(
    names.METRIC_OPERATION_ERRORS, "Operations of the gateways' streams that failed", ["operation", "code", "reason"]
)
SEARCH_STAGE = Histogram(names.METRIC_SEARCH_STAGE, "Seconds that a stage of a group of searches took", ["stage"], buckets=_LATENCY_S)
INDEX_BYTES = Gauge(names.METRIC_INDEX_BYTES, "Bytes of vectors and columns in memory")
INDEX_LIMIT_BYTES = Gauge(names.METRIC_INDEX_LIMIT_BYTES, "Bytes of vectors and columns that may be in memory")
INDEX_LOADS = Counter(names.METRIC_INDEX_LOADS, "Owners whose vectors were read from the store into memory")
RESIDENT_TRACES = Gauge(names.METRIC_RESIDENT_TRACES, "Traces whose vectors are in memory")

# Gateway
EMBED_CACHE = Counter(names.METRIC_EMBED_CACHE, "Look-ups in the embedding cache", ["result"])
HEDGES = Counter(names.METRIC_HEDGES, "Second attempts that a hedged read started", ["outcome"])
STALE_EPOCH_RETRIES = Counter(names.METRIC_STALE_EPOCH_RETRIES, "Operations repeated because the placement had moved on")
REPLICA_WRITES = Counter(names.METRIC_REPLICA_WRITES, "Writes carried to an owner's other copies", ["outcome"])
READ_REPAIRS = Counter(names.METRIC_READ_REPAIRS, "Traces in which a quorum read found copies that differed, and mended them")
CHAT_RECALLS = Counter(names.METRIC_CHAT_RECALLS, "Recalls for a chat", ["outcome"])
LEARNED = Counter(names.METRIC_LEARNED, "What became of the sentences that chats said", ["outcome"])

# llm
EMBEDDED_TEXTS = Counter(names.METRIC_EMBEDDED_TEXTS, "Texts embedded")
GENERATED = Counter(names.METRIC_GENERATED, "Tokens of finished generations, as the model counts them", ["kind"])
FIRST_PIECE = Histogram(
    names.METRIC_FIRST_PIECE, "Seconds from a generation's arrival to the first piece of its answer", buckets=_LATENCY_S
)

# Placement
PLACEMENT_EPOCH = Gauge(names.METRIC_PLACEMENT_EPOCH, "Placement epoch as this process sees it")
MEMBERS = Gauge(names.METRIC_MEMBERS, "Memory nodes by liveness, as this consensus node sees them", ["state"])

# Replication in memory nodes
REPLICATION_UNPUBLISHED = Gauge(names.METRIC_REPLICATION_UNPUBLISHED, "Updates of this node that no consensus node has yet")
OWNERS_BEHIND = Gauge(names.METRIC_OWNERS_BEHIND, "Owners whose copies are known to differ from this node's")
RECORDS_JOINED = Counter(names.METRIC_RECORDS_JOINED, "Records from other nodes that said something new", ["source"])
REPAIR_BYTES = Counter(names.METRIC_REPAIR_BYTES, "Bytes by which anti-entropy mended copies", ["way"])
REPLICATION_ROUNDS = Counter(names.METRIC_REPLICATION_ROUNDS, "Rounds of anti-entropy", ["outcome"])
SIBLINGS = Gauge(names.METRIC_SIBLINGS, "Traces with contents that were written without knowledge of each other")
QUARANTINED_AUTHORS = Gauge(names.METRIC_QUARANTINED_AUTHORS, "Authors that signed two things for one place: nothing of theirs is joined")
AUTHORS_SLOWED = Counter(names.METRIC_AUTHORS_SLOWED, "Times that an author, or who spoke for it, had to wait: it writes too much", ["way"])
TRACES_WEIGHED = Counter(names.METRIC_TRACES_WEIGHED, "Traces with siblings that were weighed anew after a change of trust", ["outcome"])

# Deltas in consensus nodes
DELTA_LOG_ENTRIES = Gauge(names.METRIC_DELTA_LOG_ENTRIES, "Updates in the delta log")
DELTA_LOG_BYTES = Gauge(names.METRIC_DELTA_LOG_BYTES, "Bytes of the updates in the delta log")
DELTA_LOG_LIMIT = Gauge(names.METRIC_DELTA_LOG_LIMIT, "What the delta log may hold: past it the oldest go", ["of"])
DELTAS_TAKEN = Counter(names.METRIC_DELTAS_TAKEN, "Updates that were new to this consensus node, on disk")
DELTAS_DELIVERED = Counter(names.METRIC_DELTAS_DELIVERED, "Offers that a memory node answered with having the update on disk")
DELTAS_DROPPED = Counter(names.METRIC_DELTAS_DROPPED, "Updates given up before every copy had them: at a bound, by age, or damaged")
DELTAS_ERASED = Counter(names.METRIC_DELTAS_ERASED, "Updates given up because something in them was erased from memory since")
DELTAS_REFUSED = Counter(names.METRIC_DELTAS_REFUSED, "Updates whose signature does not hold, or whose author is not trusted")
DELTAS_CROSS_ZONE = Counter(names.METRIC_DELTAS_CROSS_ZONE, "Updates sent to consensus nodes of other zones")
DELTA_LAG = Gauge(names.METRIC_DELTA_LAG, "Updates in the log that a memory node has yet to take", ["node"])
DELTA_STREAMS = Gauge(names.METRIC_DELTA_STREAMS, "Exchanges that are open", ["kind"])

# Every service
TLS_EXPIRY = Gauge(names.METRIC_TLS_EXPIRY, "Unix time at which a certificate in use ends", ["certificate"])
DISCOVERED = Gauge(names.METRIC_DISCOVERED, "Replicas that Kubernetes shows of a Service", ["service"])
DISCOVERY_FOLLOWING = Gauge(names.METRIC_DISCOVERY_FOLLOWING, "1: changes of it arrive; 0: the last known ones are used", ["service"])


def exemplar(traceparent: str) -> dict[str, str] | None:
    """What names a request's trace beside its latency; None where it is not sampled, so `traceparent` is ""."""
    return {"trace_id": traceparent[3:35], "span_id": traceparent[36:52]} if traceparent else None


def serve_metrics(host: str, port: int) -> WSGIServer:
    """Serve /metrics on host:port from a daemon thread, with exemplars to who asks for OpenMetrics.

    Returns the server with a `shutdown()` method.
    """
    server, _ = start_http_server(port, addr=host)
    return server
