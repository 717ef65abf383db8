"""Which copy to ask first: what consensus says of the nodes, and what this gateway met itself a moment ago. Pure but for its clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ndml.placement import MemberState, PlacementNode
from services.gateway.profiles import GENERAL

_LATE, _GONE, _NO_ADDRESS = 1, 2, 3
_RANKS = {MemberState.SUSPECT: _LATE, MemberState.DOWN: _GONE, MemberState.STANDBY: _GONE}


class Liveness:
    """Orders copies. A node that did not answer is asked last for `avoid_s` seconds: about as long as consensus needs to notice."""

    def __init__(self, clock: Callable[[], float], avoid_s: float) -> None:
        self._clock = clock
        self._avoid_s = avoid_s
        self._avoided: dict[str, float] = {}

    def answered(self, node_id: str) -> None:
        if self._avoided:
            self._avoided.pop(node_id, None)

    def failed(self, node_id: str) -> None:
        self._avoided[node_id] = self._clock() + self._avoid_s

    def ordered(self, nodes: Sequence[PlacementNode], profile: str = "") -> list[PlacementNode]:
        """Likely ones first, among these the ones of the node profile that is wanted, then general ones; among equals their order stays,
        so that everybody who sees the same asks the same."""
        if len(nodes) == 1:
            return list(nodes)
        now = self._clock()
        return sorted(nodes, key=lambda node: (self._rank(node, now), _apart(node, profile)))

    def _rank(self, node: PlacementNode, now: float) -> int:
        if not node.address:
            return _NO_ADDRESS
        return max(_RANKS.get(node.state, 0), _LATE if self._avoided.get(node.node_id, now) > now else 0)


def _apart(node: PlacementNode, profile: str) -> int:
    """How far the node's profile is from the one that is wanted; "": any is as good."""
    return 0 if profile in ("", node.record.profile) else 1 if node.record.profile == GENERAL else 2


def ids(nodes: Iterable[PlacementNode]) -> frozenset[str]:
    return frozenset(node.node_id for node in nodes)
