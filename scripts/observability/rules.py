"""Recording rules of the SLOs, and every alert. Thresholds have their reason in the alert's runbook, docs/operations/runbooks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .promql import OUR_FAULT, PROMPT, PUBLIC, calls, failures, grew, quantile

RUNBOOKS = "docs/operations/runbooks"
AVAILABILITY = 0.999
"""Share of users' calls that do not fail by our fault, over 30 days: 43 minutes of nothing, or a thousandth of the calls."""
FAST_SHARE = 0.99
FAST_S = "0.25"
"""Share of prompt calls answered within so many seconds: a p99. It is a bucket of the histogram."""
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
LEAST_CALLS = "0.02"
"""A second: below 72 calls an hour a single failure would be a burning budget."""


@dataclass(frozen=True)
class Alert:
    """One alert. `held` is how long it must be so; `severity` is critical (wake somebody), warning (this day) or info (look when there)."""

    name: str
    expr: str
    held: str
    severity: str
    summary: str
    description: str

    def rule(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.held,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOKS}/{self.name}.md",
            },
        }


def groups() -> dict[str, Any]:
    """The rule file: `{"groups": […]}`."""
    return {
        "groups": [
            {"name": "ndml-slo", "rules": [*_recorded()]},
            {"name": "ndml-slo-month", "interval": "5m", "rules": [*_month()]},
            *({"name": f"ndml-{name}", "rules": [alert.rule() for alert in alerts]} for name, alerts in ALERTS.items()),
        ]
    }


def _recorded() -> Iterator[dict[str, Any]]:
    for window in WINDOWS:
        yield {"record": f"ndml:availability_errors:ratio_rate{window}", "expr": _availability_errors(window)}
        yield {"record": f"ndml:slow_calls:ratio_rate{window}", "expr": _slow(window)}
    yield {"record": "ndml:public_calls:rate1h", "expr": calls(PUBLIC, "1h", "namespace")}


def _month() -> Iterator[dict[str, Any]]:
    """What is left of the budgets of 30 days, 1 to below 0."""
    for name, source, budget in (
        ("availability", "availability_errors", 1 - AVAILABILITY),
        ("latency", "slow_calls", 1 - FAST_SHARE),
    ):
        spent = f"avg_over_time(ndml:{source}:ratio_rate1h[30d])"
        yield {"record": f"ndml:{name}_budget:left30d", "expr": f"1 - {spent} / {budget:g}"}


def _availability_errors(window: str) -> str:
    return f"{failures(PUBLIC, OUR_FAULT, window, 'namespace')} / {calls(PUBLIC, window, 'namespace')}"


def _slow(window: str) -> str:
    counted = f"sum by (namespace) (rate(ndml_rpc_duration_seconds_count{{{PROMPT}}}[{window}]))"
    fast = f'sum by (namespace) (rate(ndml_rpc_duration_seconds_bucket{{{PROMPT},le="{FAST_S}"}}[{window}]))'
    return f"1 - {fast} / {counted}"


def _burn(source: str, budget: float, pairs: tuple[tuple[float, str, str], ...]) -> str:
    """A budget burns so many times too fast over a long window, and still does over a short one."""
    burning = (
        f"(ndml:{source}:ratio_rate{long} > {times * budget:g} and ndml:{source}:ratio_rate{short} > {times * budget:g})"
        for times, long, short in pairs
    )
    return f"({' or '.join(burning)}) and on (namespace) ndml:public_calls:rate1h > {LEAST_CALLS}"


# Google's SRE workbook, "multiwindow, multi-burn-rate": 2 % of the month's budget in an hour, 5 % in six; then 10 % in a day, or in three.
_FAST = ((14.4, "1h", "5m"), (6.0, "6h", "30m"))
_SLOW = ((3.0, "1d", "2h"), (1.0, "3d", "6h"))
_LATENCY_FAST = ((14.4, "1h", "5m"), (6.0, "6h", "30m"))

_SLO = (
    Alert(
        "NdmlAvailabilityBudgetFast",
        _burn("availability_errors", 1 - AVAILABILITY, _FAST),
        "2m",
        "critical",
        "Users' calls fail, at a rate that spends the month's budget in days",
        "{{ $value | humanizePercentage }} of the calls to the public API fail by the suite's fault; the promise is 99.9 %.",
    ),
    Alert(
        "NdmlAvailabilityBudgetSlow",
        _burn("availability_errors", 1 - AVAILABILITY, _SLOW),
        "15m",
        "warning",
        "A small share of users' calls keeps failing",
        "{{ $value | humanizePercentage }} of the calls fail by the suite's fault over days: the month's budget will not last.",
    ),
    Alert(
        "NdmlLatencyBudgetFast",
        _burn("slow_calls", 1 - FAST_SHARE, _LATENCY_FAST),
        "2m",
        "critical",
        "Many calls take longer than 250 ms",
        "{{ $value | humanizePercentage }} of adds, searches and reads take longer than 250 ms; the promise is 1 %.",
    ),
    Alert(
        "NdmlLatencyBudgetSlow",
        _burn("slow_calls", 1 - FAST_SHARE, _SLOW),
        "15m",
        "warning",
        "More calls than promised take longer than 250 ms, for days",
        "{{ $value | humanizePercentage }} of adds, searches and reads take longer than 250 ms; the promise is 1 %.",
    ),
)

_SERVICES = (
    Alert(
        "NdmlServiceGone",
        'sum by (namespace, job) (up{job=~".*ndml.*"}) == 0',
        "1m",
        "critical",
        "No process of {{ $labels.job }} answers",
        "All processes of {{ $labels.job }} are gone. Without gateways nobody is served, and nobody is left to count failed calls.",
    ),
    Alert(
        "NdmlTargetDown",
        'up{job=~".*ndml.*"} == 0',
        "2m",
        "warning",
        "{{ $labels.job }} {{ $labels.instance }} does not answer Prometheus",
        "Two minutes without a scrape of {{ $labels.instance }}: the process is gone, stuck, or cut off.",
    ),
    Alert(
        "NdmlMemoryNodeDown",
        'max by (namespace) (ndml_consensus_members{state="down"}) > 0',
        "1m",
        "critical",
        "{{ $value }} memory nodes are down",
        "The consensus nodes have heard nothing of them for longer than liveness.down_after_s: users without a second copy have no memory.",
    ),
    Alert(
        "NdmlNotReady",
        "ndml_ready == 0",
        "10m",
        "warning",
        "{{ $labels.job }} {{ $labels.instance }} runs and takes no calls",
        "Ten minutes between start and ready: a model or an index that loads takes less.",
    ),
    Alert(
        "NdmlOverloaded",
        "sum by (namespace, job) (rate(ndml_rpc_turned_away_total[5m])) "
        "/ (sum by (namespace, job) (rate(ndml_rpc_turned_away_total[5m])) "
        "+ sum by (namespace, job) (rate(ndml_rpc_duration_seconds_count[5m]))) > 0.01",
        "5m",
        "warning",
        "{{ $labels.job }} turns calls away",
        "{{ $value | humanizePercentage }} of the calls are refused for want of capacity, before they are read.",
    ),
    Alert(
        "NdmlQueueNearlyFull",
        "max_over_time(ndml_queue_depth[2m]) / (ndml_queue_limit > 0) > 0.8",
        "5m",
        "warning",
        "The queue {{ $labels.queue }} of {{ $labels.instance }} is {{ $value | humanizePercentage }} full",
        "At its bound calls are refused with OVERLOADED; for learning, chats are refused with LEARNING_BACKLOG.",
    ),
    Alert(
        "NdmlInternalFaults",
        "sum by (namespace, job, method) (" + grew('ndml_rpc_errors_total{reason="INTERNAL"}', "10m") + ") > 0",
        "0m",
        "warning",
        "{{ $labels.method }} fails by a fault of NDML",
        "A call ended in INTERNAL: a bug. The log line rpc_fault has the stack, and its trace id the way there.",
    ),
    Alert(
        "NdmlCertificateEnds",
        "min by (namespace, job, certificate) (ndml_tls_certificate_expiry_timestamp_seconds) - time() < 14 * 86400",
        "15m",
        "critical",
        "A certificate ({{ $labels.certificate }}) of {{ $labels.job }} ends in {{ $value | humanizeDuration }}",
        "Renewing was due two weeks ago where tls.certManager makes them. When it ends no service talks to this one.",
    ),
    Alert(
        "NdmlDiscoveryLost",
        "ndml_discovery_following == 0",
        "15m",
        "warning",
        "{{ $labels.instance }} does not hear of changes of {{ $labels.service }}",
        "The API server is away or refuses: replicas known last are used, and new ones get no calls.",
    ),
    Alert(
        "NdmlVersionsDiffer",
        "count by (namespace) (count by (namespace, version) (ndml_build_info)) > 1",
        "1h",
        "info",
        "{{ $value }} releases run beside each other",
        "Adjacent releases work together, for the time of a roll-out; an hour says that one has stopped half-way.",
    ),
)

_MEMORY = (
    Alert(
        "NdmlCapacityNear",
        "ndml_memory_utilization > 0.85",
        "15m",
        "warning",
        "{{ $labels.instance }} holds {{ $value | humanizePercentage }} of the traces that it may",
        "At 100 % new memories are refused with CAPACITY_REACHED; what is there stays readable.",
    ),
    Alert(
        "NdmlCapacityReached",
        "ndml_memory_utilization >= 0.98",
        "1m",
        "critical",
        "{{ $labels.instance }} is full, or nearly",
        "New memories of its users are refused with CAPACITY_REACHED, or will be within hours.",
    ),
    Alert(
        "NdmlStoreRefusesWrites",
        "sum by (namespace, instance) (" + grew('ndml_operation_errors_total{reason="STORE_UNAVAILABLE"}', "5m") + ") > 0",
        "0m",
        "critical",
        "The store of {{ $labels.instance }} does not take writes",
        "Its disk is full or fails (STORE_UNAVAILABLE). Reads go on; nothing that was acknowledged is lost.",
    ),
    Alert(
        "NdmlDiskNearlyFull",
        "ndml_store_free_bytes / (ndml_store_free_bytes + (ndml_store_bytes > 0)) < 0.15",
        "15m",
        "warning",
        "The disk of {{ $labels.instance }} has {{ $value | humanizePercentage }} of what the store and free space are together",
        "A store needs room for its log, for snapshots, and to grow; at 0 it refuses writes.",
    ),
    Alert(
        "NdmlCommitsSlow",
        f"{quantile(0.99, 'ndml_store_commit_seconds', '', '10m', 'namespace, instance')} > 0.25",
        "10m",
        "warning",
        "Commits of {{ $labels.instance }} take {{ $value | humanizeDuration }} (p99)",
        "Every write waits for its commit, fsync included: a slow or shared disk, or one that fails.",
    ),
    Alert(
        "NdmlIndexThrash",
        "rate(ndml_index_loads_total[10m]) > 5 and ndml_index_bytes / (ndml_index_limit_bytes > 0) > 0.9",
        "15m",
        "warning",
        "{{ $labels.instance }} reads {{ $value | humanize }} owners a second back into memory",
        "The vectors of the users at work do not fit into engine.index_memory_limit: each search waits for a load.",
    ),
)

_REPLICATION = (
    Alert(
        "NdmlEpochsDiffer",
        "max by (namespace) (ndml_placement_epoch > 0) - min by (namespace) (ndml_placement_epoch > 0) > 0",
        "10m",
        "warning",
        "Processes disagree about who owns what",
        "{{ $value }} placement epochs lie between the newest and the oldest in use; moments are normal, ten minutes are not.",
    ),
    Alert(
        "NdmlUnpublishedUpdates",
        "ndml_replication_unpublished > 1000",
        "10m",
        "warning",
        "{{ $value }} updates of {{ $labels.instance }} have reached no consensus node",
        "What only one node has on disk is lost with its disk, where the gateways' quorum did not carry it to another.",
    ),
    Alert(
        "NdmlDeltaLag",
        "max by (namespace, node) (ndml_delta_lag) > 10000",
        "10m",
        "warning",
        "{{ $labels.node }} has {{ $value }} updates yet to take",
        "It is away or slow. Past the bounds of the delta log the oldest go, and it mends itself by comparing, which costs more.",
    ),
    Alert(
        "NdmlDeltaLogNearlyFull",
        '(ndml_delta_log_entries / on (namespace, job, instance) ndml_delta_log_limit{of="entries"} > 0.8) '
        'or (ndml_delta_log_bytes / on (namespace, job, instance) ndml_delta_log_limit{of="bytes"} > 0.8)',
        "10m",
        "warning",
        "The delta log of {{ $labels.instance }} is {{ $value | humanizePercentage }} full",
        "Somebody has not taken his updates for long; past the bound the oldest are dropped.",
    ),
    Alert(
        "NdmlDeltasDropped",
        "increase(ndml_deltas_dropped_total[15m]) > 0",
        "0m",
        "warning",
        "{{ $labels.instance }} dropped updates that not every copy has",
        "Nothing is lost: who lacks them is told, and compares. Until then its copies are behind.",
    ),
    Alert(
        "NdmlDeltasRefused",
        "increase(ndml_deltas_refused_total[15m]) > 0",
        "0m",
        "critical",
        "{{ $labels.instance }} refused updates whose signature does not hold",
        "A node without a place in the roster, a wrong key, or somebody who forges updates.",
    ),
    Alert(
        "NdmlAuthorQuarantined",
        "max by (namespace) (ndml_replication_quarantined_authors) > 0",
        "0m",
        "critical",
        "{{ $value }} authors signed two things for one place",
        "Nothing of theirs is joined any more. A disk that was copied or set back, a bug, or a node in somebody else's hands.",
    ),
    Alert(
        "NdmlOwnersBehind",
        "ndml_replication_owners_behind > 0",
        "30m",
        "warning",
        "{{ $value }} owners of {{ $labels.instance }} have differed from their other copies for half an hour",
        "Repair takes seconds where the partner answers: it does not, or it is refused.",
    ),
    Alert(
        "NdmlSiblings",
        "max by (namespace) (ndml_memory_siblings) > 100",
        "1h",
        "info",
        "{{ $value }} memories have contents that contradict each other",
        "They were changed on both sides of a cut, or by clients that do not send expected_version.",
    ),
    Alert(
        "NdmlWritesShort",
        "sum by (namespace) (" + grew('ndml_replica_writes_total{outcome="short"}', "10m") + ") > 0",
        "5m",
        "warning",
        "Writes reach fewer copies in time than was asked for",
        "Their callers were told OWNER_UNAVAILABLE, with how many copies have them; those copies keep them.",
    ),
)

_EMBED = 'method="/ndml.internal.v1.LlmService/Embed"'
_MODELS = (
    Alert(
        "NdmlEmbeddingFails",
        f'sum by (namespace) (rate(ndml_rpc_errors_total{{{_EMBED},reason!~"CANCELLED|FIELD_INVALID"}}[5m])) '
        f"/ sum by (namespace) (rate(ndml_rpc_duration_seconds_count{{{_EMBED}}}[5m])) > 0.05",
        "5m",
        "critical",
        "{{ $value | humanizePercentage }} of the calls for embeddings fail",
        "Texts cannot be written or searched for; callers who bring their vectors are not touched.",
    ),
    Alert(
        "NdmlModelUnavailable",
        "sum by (namespace, method) (" + grew('ndml_rpc_errors_total{reason="MODEL_UNAVAILABLE"}', "5m") + ") > 0",
        "5m",
        "warning",
        "{{ $labels.method }} does not reach a model",
        "The llm service, or the upstream behind it, does not answer.",
    ),
    Alert(
        "NdmlChatWithoutMemory",
        'increase(ndml_chat_recalls_total{outcome="failed"}[10m]) > 0',
        "5m",
        "warning",
        "Chats of {{ $labels.instance }} are answered without memory",
        "The recall failed and the model answered from what it knows: users are forgotten without an error.",
    ),
    Alert(
        "NdmlLearningLost",
        'increase(ndml_learned_statements_total{outcome="failed"}[15m]) > 0',
        "0m",
        "warning",
        "What users said to {{ $labels.instance }} was given up",
        "The outbox tried for learning.retry_for_s, or was stopped, and could not write it.",
    ),
)

ALERTS: dict[str, tuple[Alert, ...]] = {
    "slo-alerts": _SLO,
    "services": _SERVICES,
    "memory": _MEMORY,
    "replication": _REPLICATION,
    "models": _MODELS,
}
