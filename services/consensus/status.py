"""What a consensus node says of itself."""

from __future__ import annotations

from ndml.internal.v1 import consensus_pb2 as pb2
from services.consensus.coordinator import Coordinator
from services.consensus.deltas.exchange import DeltaExchange


def describe(coordinator: Coordinator, deltas: DeltaExchange) -> pb2.GetConsensusStatusResponse:
    """Placement and deltas; not the process."""
    log = deltas.log
    return pb2.GetConsensusStatusResponse(
        watchers=coordinator.feed.watchers,
        epoch=coordinator.epoch,
        roster_digest=coordinator.digest,
        peers_reachable=coordinator.peers_reachable,
        peers_total=coordinator.peers_total,
        log_entries=len(log.index),
        log_bytes=log.index.bytes,
        updates_taken=log.taken,
        attached=len(deltas.attached),
        quarantined=deltas.guard.quarantined,
        zone_gateway=deltas.mesh.leads,
        lag=deltas.compaction.lag,
    )
