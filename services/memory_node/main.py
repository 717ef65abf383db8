"""The memory node's object graph. Reading this is reading the service."""

from __future__ import annotations

import sys

from ndml.internal.v1 import memory_node_pb2, replication_pb2
from ndml.runtime.addresses import Addresses
from ndml.runtime.discovery import follow_service
from ndml.runtime.placement import PlacementWatcher
from ndml.runtime.service import Service
from services.memory_node.heartbeat import Heartbeat, Identity
from services.memory_node.node import Node
from services.memory_node.ports import OwnsAll
from services.memory_node.replication.assembly import attach_replication, seals_of
from services.memory_node.replication.servicer import ReplicationServicer
from services.memory_node.replication.shares import PausableView
from services.memory_node.rounds import Rounds
from services.memory_node.servicer import NodeServicer
from services.memory_node.settings import NodeSettings
from services.memory_node.streams import Streams


def build(settings: NodeSettings, service: Service) -> None:
    """Raises FieldInvalid, RequestMalformed, OSError from the roster of authors, StoreUnavailable from what is known of them."""
    # The engine's thread computes for milliseconds at a time: the event loop must get the interpreter back sooner than Python's 5 ms.
    sys.setswitchinterval(settings.engine.switch_interval_s)
    node_id = settings.node.node_id
    view = PausableView(OwnsAll())
    watcher: PlacementWatcher | None = None
    zone, dialer, kubernetes = settings.server.zone, service.dialer, settings.kubernetes
    found: Addresses | None = None
    if kubernetes.consensus_service:
        found = follow_service(service, kubernetes.consensus_service, kubernetes, settings.placement.consensus)
    if settings.placement.consensus or settings.placement.fixed or found is not None:
        watcher = service.attach(PlacementWatcher(settings.placement, node_id, dialer, found, zone))
        view = PausableView(watcher.view_of(node_id))
    seals = seals_of(settings)
    node = service.attach(Node(settings, view, signatures=seals))
    rounds = settings.consolidation
    if rounds.interval_s:
        service.attach(Rounds(node, view, rounds.interval_s, rounds.least_new))
    heartbeat: Heartbeat | None = None
    if settings.heartbeat.consensus or found is not None:
        directory, profile = settings.store.data_dir, settings.heartbeat.profile
        identity = Identity(
            *(directory, node_id, service.address, zone, profile, lambda: node.store.replica),
            keeps_zone=kubernetes.zone_from_node,
            rejoin=settings.node.rejoin,
        )
        heartbeat = service.attach(Heartbeat(settings.heartbeat, identity, dialer, found))
    replication = attach_replication(settings, service, node, watcher, heartbeat, view.pause, seals, found)
    streams = Streams(settings.engine.batches_in_flight)
    service.on_drain(streams.end)
    servicer = NodeServicer(node, streams, service.version, service.started_at, replication.describe)
    service.expose(memory_node_pb2.DESCRIPTOR.services_by_name["MemoryNodeService"], servicer, validated=False)
    door = ReplicationServicer(replication)
    service.expose(replication_pb2.DESCRIPTOR.services_by_name["ReplicationService"], door, validated=False)
