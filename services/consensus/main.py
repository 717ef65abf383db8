"""The object graph of a consensus node."""

from __future__ import annotations

import os
import time

from ndml.crdt import roster
from ndml.internal.v1 import consensus_pb2 as pb2
from ndml.runtime.addresses import Addresses, follow
from ndml.runtime.discovery import follow_service
from ndml.runtime.log import get_logger
from ndml.runtime.service import Service
from services.consensus.coordinator import Coordinator, Timing
from services.consensus.deltas.compaction import Keeping
from services.consensus.deltas.elector import Elector, SmallestName
from services.consensus.deltas.exchange import DeltaExchange
from services.consensus.deltas.guard import OpenGuard, SigningGuard
from services.consensus.deltas.log import DeltaLog, LogBounds
from services.consensus.deltas.mesh import Mesh, MeshTiming
from services.consensus.deltas.ports import Guard, PlacementNow
from services.consensus.deltas.session import SessionBounds
from services.consensus.deltas.store import SqliteDeltaStore
from services.consensus.feed import PlacementFeed
from services.consensus.membership import Membership, Policy
from services.consensus.remotes import PeerDialer, PeerLink
from services.consensus.servicer import ConsensusServicer
from services.consensus.settings import ConsensusSettings
from services.consensus.store import RosterFile

log = get_logger(__name__)


def build(settings: ConsensusSettings, service: Service) -> None:
    """Raises FieldInvalid, RequestMalformed, OSError from the roster of authors."""
    cluster, liveness, watch, exchange = settings.cluster, settings.liveness, settings.watch, settings.exchange
    if not cluster.members and not cluster.admit:
        log.warning(
            "no_members", fix="list the memory nodes: NDML_CONSENSUS__CLUSTER__MEMBERS='[\"memory-0\"]'; until then nobody owns data"
        )
    policy = Policy(
        cluster.members,
        cluster.replication_factor,
        liveness.suspect_after_s,
        liveness.down_after_s,
        cluster.max_standbys,
        cluster.admit,
        cluster.max_members,
    )
    now = time.monotonic()
    membership = Membership(policy, now)
    feed = PlacementFeed(membership.placement(now), max_watchers=watch.max_watchers, keep_alive_s=watch.keep_alive_s)
    service.on_drain(feed.close)
    # A pod is told from its peers by its name, which is its host's: the address that others find it by it cannot know.
    name, configured = settings.kubernetes.consensus_service, [address for address in cluster.peers if address != service.address]
    peers = follow_service(service, name, settings.kubernetes, configured, os.environ.get("HOSTNAME", ""))
    timing = Timing(exchange.interval_s, liveness.tick_s, liveness.stall_s)
    coordinator = service.attach(Coordinator(membership, feed, RosterFile(settings.store.data_dir), [], timing))
    follow(
        peers,
        lambda address: coordinator.add_peer(PeerLink(service.dialer, address, service.instance, exchange.timeout_s)),
        coordinator.drop_peer,
    )
    deltas = service.attach(build_deltas(settings, service, peers, lambda: feed.current))
    service.on_drain(deltas.drain)
    servicer = ConsensusServicer(coordinator, deltas, service.instance, service.version, service.started_at)
    service.expose(pb2.DESCRIPTOR.services_by_name["ConsensusService"], servicer)


def build_deltas(settings: ConsensusSettings, service: Service, peers: Addresses, placement: PlacementNow) -> DeltaExchange:
    """The way of deltas at this node."""
    deltas, mesh = settings.deltas, settings.mesh
    knobs = deltas.model_dump()
    bounds = SessionBounds(**{name: knobs[name] for name in SessionBounds.__slots__})
    guard = _guard(settings)
    store = SqliteDeltaStore(settings.store.data_dir, time.monotonic)
    delta_log = DeltaLog(store, LogBounds(**{name: knobs[name] for name in LogBounds.__slots__}), placement, time.monotonic)
    timing = MeshTiming(mesh.retry_s, mesh.hello_timeout_s, mesh.settle_s)
    nodes = Mesh(service.instance, settings.server.zone, [], delta_log, guard, bounds, timing)
    follow(peers, lambda address: nodes.add_dialer(PeerDialer(service.dialer, address)), nodes.drop_dialer)
    nodes.elect_with(lambda nodes: _elector(settings, nodes))
    keeping = Keeping(deltas.grace_s, deltas.max_age_s, deltas.compact_scan)
    return DeltaExchange(
        delta_log,
        nodes,
        guard,
        bounds,
        keeping,
        max_attached=deltas.max_attached,
        compact_interval_s=deltas.compact_interval_s,
        hello_timeout_s=mesh.hello_timeout_s,
        author_updates_per_s=deltas.author_updates_per_s,
    )


def _guard(settings: ConsensusSettings) -> Guard:
    signing = settings.signing
    if signing.roster is None:
        return OpenGuard()
    operator = bytes.fromhex(signing.operator) if signing.operator else None
    return SigningGuard(roster.load(signing.roster, operator), signing.owners, path=settings.store.data_dir / "proofs.json")


def _elector(settings: ConsensusSettings, mesh: Mesh) -> Elector:
    smallest = SmallestName(mesh.node_id, mesh.neighbours)
    if not settings.mesh.lease_name:
        return smallest
    # The package takes a second to load and is needed in a cluster alone.
    from services.consensus.lease import lease_elector

    return lease_elector(settings.mesh, mesh.node_id, mesh.zone, smallest)
