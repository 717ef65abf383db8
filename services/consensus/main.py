"""The object graph of a consensus node."""

from __future__ import annotations

import time

from ndml.internal.v1 import consensus_pb2 as pb2
from ndml.runtime.log import get_logger
from ndml.runtime.service import Service
from services.consensus.coordinator import Coordinator, Timing
from services.consensus.feed import PlacementFeed
from services.consensus.membership import Membership, Policy
from services.consensus.remotes import PeerLink
from services.consensus.servicer import ConsensusServicer
from services.consensus.settings import ConsensusSettings
from services.consensus.store import RosterFile

log = get_logger(__name__)


def build(settings: ConsensusSettings, service: Service) -> None:
    cluster, liveness, watch, exchange = settings.cluster, settings.liveness, settings.watch, settings.exchange
    if not cluster.members:
        log.warning(
            "no_members", fix="list the memory nodes: NDML_CONSENSUS__CLUSTER__MEMBERS='[\"memory-0\"]'; until then nobody owns data"
        )
    policy = Policy(
        cluster.members, cluster.replication_factor, liveness.suspect_after_s, liveness.down_after_s, max_standbys=cluster.max_standbys
    )
    now = time.monotonic()
    membership = Membership(policy, now)
    feed = PlacementFeed(membership.placement(now), max_watchers=watch.max_watchers, keep_alive_s=watch.keep_alive_s)
    service.on_drain(feed.close)
    peers = [PeerLink(address, service.instance, exchange.timeout_s) for address in cluster.peers if address != service.address]
    timing = Timing(exchange.interval_s, liveness.tick_s, liveness.stall_s)
    coordinator = service.attach(Coordinator(membership, feed, RosterFile(settings.store.data_dir), peers, timing))
    servicer = ConsensusServicer(coordinator, service.instance, service.version, service.started_at)
    service.expose(pb2.DESCRIPTOR.services_by_name["ConsensusService"], servicer)
