"""The suite as its users meet it: promises, what runs, every call."""

from __future__ import annotations

from .panels import Dashboard, Panel, Query, Row
from .promql import PROMPT, PUBLIC, calls
from .queries import BUDGET, CHOSEN, FAILING, HEARD, LIFE, LOAD, WINDOW, over, quantile, quantiles, rate

_PROMISES = Row(
    "What users were promised",
    (
        Panel(
            "Availability budget left, 30 days",
            "percentunit",
            "1 is untouched, 0 is spent: 99.9 % of users' calls may not "
            "fail by our fault. Near 0, roll out nothing and look below what failed.",
            (Query('ndml:availability_budget:left30d{namespace=~"$namespace|"}', "{{namespace}}"),),
            kind="stat",
            width=6,
            height=5,
            steps=BUDGET,
        ),
        Panel(
            "Latency budget left, 30 days",
            "percentunit",
            "1 is untouched, 0 is spent: 99 % of adds, searches and reads "
            "within 250 ms. Near 0, look at the stages on the dashboard Memory.",
            (Query('ndml:latency_budget:left30d{namespace=~"$namespace|"}', "{{namespace}}"),),
            kind="stat",
            width=6,
            height=5,
            steps=BUDGET,
        ),
        Panel(
            "Failed by our fault",
            "percentunit",
            "Share of users' calls. Above 0.1 % the budget does not "
            "last; the runbooks of NdmlAvailabilityBudgetFast and Slow say where to look.",
            (
                Query('ndml:availability_errors:ratio_rate5m{namespace=~"$namespace|"}', "5 minutes"),
                Query('ndml:availability_errors:ratio_rate1h{namespace=~"$namespace|"}', "an hour"),
            ),
            width=6,
            height=5,
            steps=FAILING,
        ),
        Panel(
            "Slower than 250 ms",
            "percentunit",
            "Share of adds, searches and reads. Above 1 % the budget does not last; see the runbook of NdmlLatencyBudgetFast.",
            (
                Query('ndml:slow_calls:ratio_rate5m{namespace=~"$namespace|"}', "5 minutes"),
                Query('ndml:slow_calls:ratio_rate1h{namespace=~"$namespace|"}', "an hour"),
            ),
            width=6,
            height=5,
        ),
    ),
)

_UP = Row(
    "What runs",
    (
        Panel(
            "Ready",
            "short",
            "Processes that take calls, by service. Fewer than you run: ndml status names who is missing, his log says why.",
            (Query(over("ndml_ready", "job"), "{{job}}"),),
            kind="stat",
            width=6,
            height=5,
        ),
        Panel(
            "Memory nodes as consensus sees them",
            "short",
            "Anything in down or suspect: runbook NdmlMemoryNodeDown. Joining and leaving are copying their share.",
            (Query(over("ndml_consensus_members", "state", "max"), "{{state}}"),),
            width=6,
            height=5,
        ),
        Panel(
            "Placement epoch",
            "none",
            "One line is healthy. Processes that stay below do not hear of changes: see that they reach the consensus nodes.",
            (
                Query(
                    over(
                        "ndml_placement_epoch",
                        "job",
                        "min",
                    )
                    + " > 0",
                    "{{job}}, least",
                ),
                Query(over("ndml_placement_epoch", "job", "max") + " > 0", "{{job}}, most"),
            ),
            width=6,
            height=5,
        ),
        Panel(
            "Releases",
            "short",
            "Two during a roll-out, one after it. Two for long: the roll-out stands still.",
            (Query(f"count by (service, version) (ndml_build_info{{{CHOSEN}}})", "{{service}} {{version}}"),),
            kind="table",
            width=6,
            height=5,
        ),
    ),
)

_CALLS = Row(
    "Calls: rate, errors, duration",
    (
        Panel(
            "Calls of users",
            "reqps",
            "Rate by method at the gateways, what was turned away included. A cliff with healthy processes is a client or the network.",
            (Query(calls(f"{CHOSEN},{PUBLIC}", WINDOW, "method"), "{{method}}"),),
            width=12,
            stacked=True,
        ),
        Panel(
            "Failed calls",
            "reqps",
            "By reason; docs/reference/errors.md has each with what to do. INTERNAL is a bug: report it with its trace.",
            (Query(rate("ndml_rpc_errors_total", "job, reason"), "{{job}} {{reason}}"),),
            width=12,
            stacked=True,
        ),
        Panel(
            "Duration of prompt calls",
            "s",
            "Adds, searches, reads. Points are traces: open one, or ndml trace ID. p99 far from p50 is a queue or a slow disk.",
            quantiles("ndml_rpc_duration_seconds", PROMPT),
            width=12,
        ),
        Panel(
            "p99 by method",
            "s",
            "Which call is slow. Calls between services stand here too: follow "
            "the slowest down. Streams last as long as their callers listen.",
            (Query(quantile(0.99, "ndml_rpc_duration_seconds", "method"), "{{method}}"),),
            width=12,
        ),
        Panel(
            "Calls between services",
            "reqps",
            "Rate by method behind the gateways. Execute carries many operations in "
            "one call: the rates of those stand on the dashboard Memory.",
            (Query(rate("ndml_rpc_duration_seconds_count", "method", 'method=~"/ndml[.]internal[.].+"'), "{{method}}"),),
        ),
        Panel(
            "Under way",
            "short",
            "Calls at the same time. Flat at the top is server.max_in_flight: more replicas, or clients that ask less at once.",
            (Query(over("ndml_rpc_in_flight", "job"), "{{job}}"),),
        ),
        Panel(
            "Turned away",
            "reqps",
            "Refused before they were read, for want of time or room. More than a moment: runbook NdmlOverloaded.",
            (Query(rate("ndml_rpc_turned_away_total", "job, method"), "{{job}} {{method}}"),),
        ),
    ),
)

_PROCESSES = Row(
    "Queues and processes",
    (
        Panel(
            "Queues, share of their bound",
            "percentunit",
            "At 100 % calls are refused with OVERLOADED. Runbook NdmlQueueNearlyFull says which setting or replica helps.",
            (Query(f"ndml_queue_depth{{{CHOSEN}}} / (ndml_queue_limit{{{CHOSEN}}} > 0)", "{{job}} {{instance}} {{queue}}"),),
            steps=LOAD,
            most=1,
        ),
        Panel(
            "Memory of processes",
            "bytes",
            "Flat under load is right: everything has a bound. What grows for hours without traces growing is a leak: report it.",
            (Query(f"process_resident_memory_bytes{{{CHOSEN}}}", "{{job}} {{instance}}"),),
        ),
        Panel(
            "Processors in use",
            "short",
            "A process near 1 per core it may use is the limit of its service: add replicas of that one.",
            (Query(f"rate(process_cpu_seconds_total{{{CHOSEN}}}[{WINDOW}])", "{{job}} {{instance}}"),),
        ),
    ),
)

_LEANS_ON = Row(
    "What it leans on: certificates and the Kubernetes API",
    (
        Panel(
            "Certificates end in",
            "s",
            "The first to end, of each service; empty without TLS. Below 30 days renewing is due, below 14 it failed: "
            "runbook NdmlCertificateEnds says why it may.",
            (
                Query(
                    f"min by (job, certificate) (ndml_tls_certificate_expiry_timestamp_seconds{{{CHOSEN}}}) - time()",
                    "{{job}} {{certificate}}",
                ),
            ),
            kind="stat",
            height=6,
            steps=LIFE,
        ),
        Panel(
            "Changes of followed services arrive",
            "short",
            "1 where all processes of a service hear of them, 0 where one does not: runbook NdmlDiscoveryLost. "
            "Empty where addresses are configured.",
            (Query(over("ndml_discovery_following", "job, service", "min"), "{{job}} follows {{service}}"),),
            kind="stat",
            height=6,
            steps=HEARD,
        ),
        Panel(
            "Replicas that processes know of",
            "short",
            "Of each followed service, the least and the most that any process knows. "
            "Lines apart for long: some process no longer hears of changes.",
            (
                Query(over("ndml_discovery_endpoints", "service", "min"), "{{service}}, least"),
                Query(over("ndml_discovery_endpoints", "service", "max"), "{{service}}, most"),
            ),
            height=6,
        ),
    ),
)

SUITE = Dashboard(
    "ndml-suite",
    "NDML suite",
    "What users meet: promises, what runs, rate, errors and duration of every call.",
    (_PROMISES, _UP, _CALLS, _PROCESSES, _LEANS_ON),
)
