"""Replication: the copies of an owner, the log between them, repair and conflicts."""

from __future__ import annotations

from .panels import Dashboard, Panel, Query, Row
from .queries import CHOSEN, LOAD, NONE, over, rate

_LAG = Row(
    "Lag",
    (
        Panel(
            "Updates that a node has yet to take",
            "short",
            "In the log of the consensus nodes. Grows while a node is away and falls when it is back; nothing to do but to start it.",
            (Query(over("ndml_delta_lag", "node", "max"), "{{node}}"),),
        ),
        Panel(
            "Updates that no consensus node has",
            "short",
            "What only its node has on disk, and the copies that the gateways wrote. Above 0 for long: it reaches no consensus node.",
            (Query(over("ndml_replication_unpublished", "instance"), "{{instance}}"),),
        ),
        Panel(
            "Owners whose copies differ",
            "short",
            "0 but for moments. For half an hour: the partner does not answer or refuses, runbook NdmlOwnersBehind.",
            (Query(over("ndml_replication_owners_behind", "instance"), "{{instance}}"),),
        ),
    ),
)

_LOG = Row(
    "The delta log of the consensus nodes",
    (
        Panel(
            "Share of its bounds",
            "percentunit",
            "Past 100 % the oldest updates go, and who lacks "
            "them compares instead. Raise deltas.max_entries or bring the missing node back.",
            (
                Query(
                    f'ndml_delta_log_entries{{{CHOSEN}}} / on (namespace, job, instance) ndml_delta_log_limit{{{CHOSEN},of="entries"}}',
                    "{{instance}} entries",
                ),
                Query(
                    f'ndml_delta_log_bytes{{{CHOSEN}}} / on (namespace, job, instance) ndml_delta_log_limit{{{CHOSEN},of="bytes"}}',
                    "{{instance}} bytes",
                ),
            ),
            steps=LOAD,
            most=1,
        ),
        Panel(
            "Taken and delivered",
            "ops",
            "New updates, and offers that a memory node has on disk: with R copies "
            "about R - 1 times as many. Taken without delivered: nodes do not listen.",
            (
                Query(rate("ndml_deltas_taken_total", "instance"), "{{instance}} taken"),
                Query(rate("ndml_deltas_delivered_total", "instance"), "{{instance}} delivered"),
            ),
        ),
        Panel(
            "Dropped and refused",
            "ops",
            "Dropped: at a bound, mended by comparing. Refused: a signature that does not hold, runbook NdmlDeltasRefused, at once.",
            (
                Query(rate("ndml_deltas_dropped_total", "instance"), "{{instance}} dropped"),
                Query(rate("ndml_deltas_refused_total", "instance"), "{{instance}} refused"),
            ),
            steps=NONE,
        ),
        Panel(
            "Open exchanges",
            "short",
            "member: with memory nodes, zone and wide: with other consensus nodes. Missing ones: the network between zones.",
            (Query(over("ndml_delta_streams", "instance, kind"), "{{instance}} {{kind}}"),),
        ),
        Panel(
            "Across zones",
            "ops",
            "Updates sent to other zones, which clouds charge for: one a zone and update. More are retries.",
            (Query(rate("ndml_deltas_cross_zone_total", "instance"), "{{instance}}"),),
        ),
        Panel(
            "Operations of the consensus nodes",
            "ops",
            "Heartbeats, exchanges, watches. Heartbeats that stop are nodes that are gone.",
            (Query(rate("ndml_consensus_operations_total", "operation"), "{{operation}}"),),
        ),
    ),
)

_REPAIR = Row(
    "Repair",
    (
        Panel(
            "Records joined",
            "ops",
            "By where they came from: stream is normal; fetched and pushed are repairs, a peak after a node was away.",
            (Query(rate("ndml_replication_records_joined_total", "source"), "{{source}}"),),
            stacked=True,
        ),
        Panel(
            "Bytes of repair",
            "bytes",
            "A second. For hours: a node that loses its disk again and again, or two that disagree and cannot say so.",
            (Query(rate("ndml_replication_repair_bytes_total", "way"), "{{way}}"),),
            stacked=True,
        ),
        Panel(
            "Rounds of comparison",
            "ops",
            "clean found nothing. Always behind: NdmlOwnersBehind.",
            (Query(rate("ndml_replication_rounds_total", "outcome"), "{{outcome}}"),),
        ),
        Panel(
            "Writes to other copies",
            "ops",
            "failed is fetched later; dropped met quorum.merges; short is a write whose caller was told no, runbook NdmlWritesShort.",
            (Query(rate("ndml_replica_writes_total", "outcome"), "{{outcome}}"),),
            stacked=True,
        ),
        Panel(
            "Mended by reads, repeated, hedged",
            "ops",
            "Read repairs: copies that differed when they were read. Stale epochs: placement moved on. Hedges: a copy was slow.",
            (
                Query(rate("ndml_read_repairs_total", "job"), "read repairs"),
                Query(rate("ndml_stale_epoch_retries_total", "job"), "stale epochs"),
                Query(rate("ndml_hedged_reads_total", "outcome"), "hedges {{outcome}}"),
            ),
        ),
    ),
)

_TRUST = Row(
    "Conflicts and trust",
    (
        Panel(
            "Memories with siblings",
            "short",
            "Contents written without knowledge of each other; ndml resolve ends one. Many: a cut, or clients without expected_version.",
            (Query(over("ndml_memory_siblings", "instance", "max"), "{{instance}}"),),
        ),
        Panel(
            "Quarantined authors",
            "short",
            "Signed two things for one place; nothing of theirs is joined. Any: runbook NdmlAuthorQuarantined, at once.",
            (Query(over("ndml_replication_quarantined_authors", "instance", "max"), "{{instance}}"),),
            steps=NONE,
        ),
        Panel(
            "Authors slowed, traces weighed anew",
            "ops",
            "An author writes more than is taken of one; or trust changed, and another version is shown for what counts as changed.",
            (
                Query(rate("ndml_replication_authors_slowed_total", "way"), "slowed, {{way}}"),
                Query(rate("ndml_replication_traces_weighed_total", "outcome"), "weighed, {{outcome}}"),
            ),
        ),
    ),
)

REPLICATION = Dashboard(
    "ndml-replication",
    "NDML replication",
    "Copies of an owner: lag, the log between them, repair, conflicts.",
    (_LAG, _LOG, _REPAIR, _TRUST),
)
