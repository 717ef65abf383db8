"""The memory node's object graph. Reading this is reading the service."""

from __future__ import annotations

import sys

from ndml.internal.v1 import memory_node_pb2
from ndml.runtime.placement import PlacementWatcher
from ndml.runtime.service import Service
from services.memory_node.heartbeat import Heartbeat, Identity
from services.memory_node.node import Node
from services.memory_node.ports import OwnsAll, PlacementView
from services.memory_node.rounds import Rounds
from services.memory_node.servicer import NodeServicer
from services.memory_node.settings import NodeSettings
from services.memory_node.streams import Streams


def build(settings: NodeSettings, service: Service) -> None:
    # The engine's thread computes for milliseconds at a time: the event loop must get the interpreter back sooner than Python's 5 ms.
    sys.setswitchinterval(settings.engine.switch_interval_s)
    node_id = settings.node.node_id
    placement: PlacementView = OwnsAll()
    if settings.placement.consensus or settings.placement.fixed:
        placement = service.attach(PlacementWatcher(settings.placement, node_id)).view_of(node_id)
    node = service.attach(Node(settings, placement))
    rounds = settings.consolidation
    if rounds.interval_s:
        service.attach(Rounds(node, placement, rounds.interval_s, rounds.least_new))
    streams = Streams(settings.engine.batches_in_flight)
    service.on_drain(streams.end)
    servicer = NodeServicer(node, streams, service.version, service.started_at)
    service.expose(memory_node_pb2.DESCRIPTOR.services_by_name["MemoryNodeService"], servicer, validated=False)
    if settings.heartbeat.consensus:
        identity = Identity(settings.store.data_dir, node_id, service.address, settings.server.zone, settings.heartbeat.profile)
        service.attach(Heartbeat(settings.heartbeat, identity))
