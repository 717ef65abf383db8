"""Every span name, attribute key and metric name of NDML, once. A test refuses a string of this kind anywhere else.

RPC keys follow the OpenTelemetry RPC conventions, memory spans the GenAI ones.
"""

# Attributes: OpenTelemetry RPC conventions
RPC_SYSTEM = "rpc.system"
RPC_SERVICE = "rpc.service"
RPC_METHOD = "rpc.method"
RPC_GRPC_STATUS_CODE = "rpc.grpc.status_code"
ERROR_TYPE = "error.type"
SERVICE_NAME = "service.name"
SERVICE_INSTANCE_ID = "service.instance.id"
SERVICE_VERSION = "service.version"

# Attributes: GenAI conventions
GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"

# Attributes: ours
MEMORY_COUNT = "ndml.memory.count"
MEMORY_K = "ndml.memory.k"
MEMORY_HITS = "ndml.memory.hits"
BATCH_SIZE = "ndml.batch.size"
NODE_ID = "ndml.node.id"
CACHE_HIT = "ndml.cache.hit"
INDEX_KIND = "ndml.index.kind"
QUEUE_MS = "ndml.queue_ms"

# Spans
SPAN_EMBED = "embed"
SPAN_CREATE_MEMORY = "create_memory"
SPAN_SEARCH_MEMORY = "search_memory"
SPAN_UPDATE_MEMORY = "update_memory"
SPAN_DELETE_MEMORY = "delete_memory"
SPAN_CONSOLIDATE_MEMORY = "consolidate_memory"
SPAN_GET_MEMORY = "get_memory"
SPAN_LIST_MEMORY = "list_memory"
SPAN_MEMORY_STATS = "memory_stats"
SPAN_GENERATE = "chat"

# Metrics: the seed's names
METRIC_TOTAL_TRACES = "ndml_memory_total_traces"
METRIC_UTILIZATION = "ndml_memory_utilization"
METRIC_QUERY_LATENCY = "ndml_memory_query_latency"
METRIC_BTSP_UPDATES = "ndml_btsp_updates"
METRIC_CONSOLIDATION_EVENTS = "ndml_consolidation_events"
METRIC_UPDATE_RATE = "ndml_memory_update_rate"
METRIC_CONSENSUS_OPERATIONS = "ndml_consensus_operations"

# Metrics: ours
METRIC_RPC_DURATION = "ndml_rpc_duration_seconds"
METRIC_RPC_IN_FLIGHT = "ndml_rpc_in_flight"
METRIC_RPC_ERRORS = "ndml_rpc_errors"
METRIC_BATCH_SIZE = "ndml_batch_size"
METRIC_QUEUE_DEPTH = "ndml_queue_depth"
METRIC_COMMIT_DURATION = "ndml_store_commit_seconds"
METRIC_INDEX_BYTES = "ndml_index_bytes"
METRIC_RESIDENT_TRACES = "ndml_memory_resident_traces"
METRIC_EMBED_CACHE = "ndml_embed_cache"
METRIC_EMBEDDED_TEXTS = "ndml_embedded_texts"
METRIC_PLACEMENT_EPOCH = "ndml_placement_epoch"
METRIC_HEDGES = "ndml_hedged_reads"
METRIC_STALE_EPOCH_RETRIES = "ndml_stale_epoch_retries"
METRIC_MEMBERS = "ndml_consensus_members"
