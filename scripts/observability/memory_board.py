"""Memory: what is stored, written, searched, consolidated and forgotten."""

from __future__ import annotations

from .panels import Dashboard, Panel, Query, Row
from .queries import CHOSEN, LOAD, over, quantile, quantiles, rate

_STORED = Row(
    "What is stored",
    (
        Panel(
            "Traces",
            "short",
            "By node. Uneven after a node joined is copying; uneven for days is a tenant much larger than others.",
            (Query(over("ndml_memory_total_traces", "instance") + " > 0", "{{instance}}"),),
        ),
        Panel(
            "Utilisation",
            "percentunit",
            "Of store.max_traces. From 85 % on add a node, raise the bound, or let more be forgotten: runbook NdmlCapacityNear.",
            (Query(over("ndml_memory_utilization", "instance", "max") + " > 0", "{{instance}}"),),
            steps=LOAD,
            most=1,
        ),
        Panel(
            "Disk",
            "bytes",
            "The store, and what is free beside it. At 0 free the store refuses writes: runbook NdmlDiskNearlyFull.",
            (
                Query(over("ndml_store_bytes", "instance") + " > 0", "{{instance}} store"),
                Query(over("ndml_store_free_bytes", "instance") + " > 0", "{{instance}} free"),
            ),
        ),
        Panel(
            "Index memory",
            "percentunit",
            "Of engine.index_memory_limit. At 100 % owners are dropped and read again: compare with the loads beside this.",
            (Query(f"ndml_index_bytes{{{CHOSEN}}} / (ndml_index_limit_bytes{{{CHOSEN}}} > 0)", "{{instance}}"),),
            steps=LOAD,
            most=1,
        ),
        Panel(
            "Owners loaded into memory",
            "ops",
            "A peak after a restart is right. Many all the time: the owners at work do not fit, runbook NdmlIndexThrash.",
            (Query(rate("ndml_index_loads_total", "instance"), "{{instance}}"),),
        ),
        Panel(
            "Traces whose vectors are in memory",
            "short",
            "Of all traces above. Far below them with few loads means that most owners sleep, which is right.",
            (Query(over("ndml_memory_resident_traces", "instance") + " > 0", "{{instance}}"),),
        ),
    ),
)

_WRITING = Row(
    "Writing",
    (
        Panel(
            "Added, changed, deleted",
            "ops",
            "Traces a second. Deletes in a burst are ForgetScope or forgetting; if nobody asked, look at the audit log.",
            (Query(rate("ndml_memory_update_rate_total", "action"), "{{action}}"),),
            stacked=True,
        ),
        Panel(
            "Decisions of the write gate",
            "ops",
            "Mostly duplicate: a client repeats itself, send request_id. Mostly novel on "
            "chat: is the embedding model the one it was tuned for?",
            (Query(rate("ndml_btsp_updates_total", "kind", 'kind=~"novel|duplicate|update|related"'), "{{kind}}"),),
            stacked=True,
        ),
        Panel(
            "Plasticity",
            "ops",
            "Plateaus, feedback, credit, restatements. No reinforced at all: clients do not send feedback, so use does not strengthen.",
            (Query(rate("ndml_btsp_updates_total", "kind", 'kind=~"plateau|reinforced|credited|restated"'), "{{kind}}"),),
        ),
        Panel(
            "Group commits",
            "s",
            "Fsync included; every write waits for one. p99 above 250 ms: a slow or shared disk, runbook NdmlCommitsSlow.",
            quantiles("ndml_store_commit_seconds"),
        ),
        Panel(
            "Traces in a commit",
            "short",
            "Grows with load: what queued while the last commit was under way. Always 1 under load: callers write one after the other.",
            tuple(
                Query(quantile(q, "ndml_batch_size", "queue", 'queue=~"commit|link"'), f"{{{{queue}}}} {name}")
                for q, name in ((0.5, "p50"), (0.99, "p99"))
            ),
        ),
        Panel(
            "Operations that failed in the node",
            "ops",
            "STORE_UNAVAILABLE: the disk. CAPACITY_REACHED: full. OVERLOADED: more nodes. Others are callers' mistakes.",
            (Query(rate("ndml_operation_errors_total", "operation, reason"), "{{operation}} {{reason}}"),),
            stacked=True,
        ),
    ),
)

_SEARCHING = Row(
    "Searching",
    (
        Panel(
            "Search in the node",
            "s",
            "From arrival at the node to its result. Points are traces. Compare with the stages beside it, the rest is waiting.",
            quantiles("ndml_memory_query_latency"),
        ),
        Panel(
            "Stages, p95",
            "s",
            "embed: the llm service; index: vectors; lexical, late, fuse: signals beside "
            "them; fetch: the store. The widest one is where to look.",
            (Query(quantile(0.95, "ndml_search_stage_seconds", "stage"), "{{stage}}"),),
        ),
        Panel(
            "Searches and their batches",
            "ops",
            "Searches a second, and how many shared one matrix search (p99): under load the batch grows instead of the wait.",
            (
                Query(rate("ndml_memory_query_latency_count", "instance") + " > 0", "{{instance}} a second"),
                Query(quantile(0.99, "ndml_batch_size", more='queue="search"'), "batch p99"),
            ),
        ),
    ),
)

_LIFE = Row(
    "Consolidation and forgetting",
    (
        Panel(
            "Clusters that consolidation looked at",
            "ops",
            "merged became a semantic trace; rejected said too different things. "
            "All rejected: memories of one owner have little in common.",
            (Query(rate("ndml_consolidation_events_total", "outcome"), "{{outcome}}"),),
            stacked=True,
            width=12,
        ),
        Panel(
            "Archived by forgetting",
            "ops",
            "Traces that searches no longer see; ndml get still does. "
            "More than before without more traces: has the lifecycle's pressure changed?",
            (Query(rate("ndml_btsp_updates_total", "instance", 'kind="archived"'), "{{instance}}"),),
            width=12,
        ),
    ),
)

MEMORY = Dashboard(
    "ndml-memory",
    "NDML memory",
    "What is stored, how it is written, searched, consolidated and forgotten.",
    (_STORED, _WRITING, _SEARCHING, _LIFE),
)
