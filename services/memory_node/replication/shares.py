"""The placement as replication looks at it."""

from __future__ import annotations

from collections.abc import Sequence

from ndml.placement import MemberPhase, MemberState, Placement, PlacementNode
from ndml.runtime.placement import PlacementWatcher
from services.memory_node.ports import PlacementView
from services.memory_node.replication.ports import Member

_LEAVING = frozenset({MemberPhase.LEAVING, MemberPhase.LEFT})


class PlacementShares:
    """Shares by a watched placement. Look-ups may come from any thread."""

    def __init__(self, watcher: PlacementWatcher, node_id: str) -> None:
        self._watcher = watcher
        self.node_id = node_id

    @property
    def epoch(self) -> int:
        return self._watcher.epoch

    @property
    def replication_factor(self) -> int:
        placement = self._watcher.placement
        return 1 if placement is None else placement.replication_factor

    @property
    def phase(self) -> MemberPhase | None:
        placement = self._watcher.placement
        node = None if placement is None else placement.node(self.node_id)
        return node.phase if node is not None and node.is_member else None

    def owners(self, tenant: str, user: str) -> Sequence[str]:
        placement = self._watcher.placement
        return () if placement is None else tuple([node.node_id for node in placement.owners(tenant, user)])

    def copies(self, tenant: str, user: str) -> Sequence[str]:
        placement = self._watcher.placement
        return () if placement is None else placement.copy_ids(tenant, user)

    def partners(self) -> Sequence[Member]:
        placement = self._watcher.placement
        return () if placement is None else partners_of(placement, self.node_id)


def partners_of(placement: Placement, node_id: str) -> list[Member]:
    """Every other member that has an address. One that left gives what it has by its own rounds: nobody shares an owner with it."""
    others = (node for node in placement.members if node.node_id != node_id and node.address and node.phase is not MemberPhase.LEFT)
    return [_member(node) for node in others]


def _member(node: PlacementNode) -> Member:
    # Suspicion is not death: a partner that does not answer says so itself.
    return Member(node.node_id, node.address, node.state is not MemberState.DOWN, node.phase not in _LEAVING)


class AloneShares:
    """Shares of a node that has no others: it has the only copy of everything."""

    epoch = 0
    replication_factor = 1
    phase = MemberPhase.ACTIVE

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id

    def owners(self, tenant: str, user: str) -> Sequence[str]:
        return (self.node_id,)

    def copies(self, tenant: str, user: str) -> Sequence[str]:
        return (self.node_id,)

    def partners(self) -> Sequence[Member]:
        return ()


class PausableView:
    """A node's view of the placement that can be made to look as if all its owners had just moved: callers are told STALE_EPOCH, and come
    back to whoever owns them then. What other copies wrote is still taken.

    For the instant in which a node that leaves hands over what came last. The epoch is the one that its leaving brings, so callers wait
    for exactly that.
    """

    def __init__(self, view: PlacementView) -> None:
        self._view = view
        self._paused = False

    def pause(self, paused: bool) -> None:
        """From now on. Any thread."""
        self._paused = paused

    @property
    def epoch(self) -> int:
        return self._view.epoch + self._paused

    def owns(self, tenant: str, user: str) -> bool:
        return not self._paused and self._view.owns(tenant, user)

    def takes(self, tenant: str, user: str) -> bool:
        return self._view.takes(tenant, user)

    def copies(self, tenant: str, user: str) -> tuple[str, ...]:
        return self._view.copies(tenant, user)
