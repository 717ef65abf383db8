"""Replication put together around a node: its store, its placement, its heartbeat, its partners."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ndml.crdt import keys, roster
from ndml.crdt.rates import AuthorRates
from ndml.errors import FieldInvalid
from ndml.runtime.addresses import Addresses
from ndml.runtime.placement import PlacementWatcher
from ndml.runtime.service import Service
from services.memory_node.heartbeat import Heartbeat
from services.memory_node.node import Node
from services.memory_node.replication.chains import ChainFile
from services.memory_node.replication.component import Replication, World
from services.memory_node.replication.node_store import NodeStore
from services.memory_node.replication.ports import Shares
from services.memory_node.replication.remotes import ConsensusSession, Partners
from services.memory_node.replication.sealing import Seals
from services.memory_node.replication.shares import AloneShares, PlacementShares
from services.memory_node.replication.signing import Notary, SigningGuard
from services.memory_node.replication.weighing import Weighing

if TYPE_CHECKING:
    from services.memory_node.settings import NodeSettings


def attach_replication(
    settings: NodeSettings,
    service: Service,
    node: Node,
    watcher: PlacementWatcher | None,
    heartbeat: Heartbeat | None,
    pause: Callable[[bool], None],
    seals: Seals | None = None,
    discovered: Addresses | None = None,
) -> Replication:
    """Attach the parts after those given, which they need. Without a placement the node answers backups and nothing else.

    discovered: the consensus nodes, where the settings do not list those that take updates
    """
    replication, node_id = settings.replication, settings.node.node_id
    shares: Shares = AloneShares(node_id) if watcher is None else PlacementShares(watcher, node_id)
    store = service.attach(NodeStore(node, replication.readers))
    partners = service.attach(Partners(service.dialer, shares, replication.sweep.silence_s))
    guard = None
    if seals is not None:
        notary = seals.notary
        guard = service.attach(SigningGuard(store, seals.notary, accepts_records=replication.signing.accept_restore))
        service.attach(Weighing(lambda: notary.weights, store.weigh, replication.signing.rumours_s))
    world = World(store, shares, partners, partial(ConsensusSession.open, service.dialer), guard)
    consensus: Sequence[str] = []
    if watcher is not None:
        consensus = replication.consensus or (settings.placement.consensus if discovered is None else discovered)
    made = Replication(replication, world, consensus, settings.server.zone, heartbeat, pause)
    if watcher is not None:
        watcher.on_change(made.placement_changed)
    return service.attach(made)


def seals_of(settings: NodeSettings) -> Seals | None:
    """Signatures as the settings say; None: off. Raises FieldInvalid, RequestMalformed, OSError, StoreUnavailable."""
    signing, directory = settings.replication.signing, settings.store.data_dir
    if signing.roster is None:
        return None
    authors = roster.load(signing.roster, bytes.fromhex(signing.operator) if signing.operator else None)
    directory.mkdir(parents=True, exist_ok=True)
    key, node_id = keys.load_or_create(signing.key or directory / "author.pem"), settings.node.node_id
    author = authors.authors.get(node_id)
    if author is None or author.public_key != keys.public_bytes(key):
        raise FieldInvalid(
            f"{signing.roster} does not name {node_id!r} with the key {keys.public_bytes(key).hex()}: add it with `ndml roster add`",
            field="replication.signing.roster",
        )
    rates = AuthorRates(signing.author_updates_per_s, time.monotonic)
    notary = Notary(ChainFile(directory / "authors.db"), authors, key, node_id, signing.most_waiting, rates=rates)
    return Seals(notary, accepts_records=signing.accept_restore)
