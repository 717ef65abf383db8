"""Who takes part in a simulated suite: what each node says of itself, and how the word gets around, later here than there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from random import Random

from ndml.placement import MemberPhase, MemberState, NodeRecord, Placement, PlacementNode
from ndml.runtime.channel import Dialer
from ndml.runtime.placement import PlacementSettings, PlacementWatcher

_LATEST_S = 1.0
"""Longest that a watcher takes to hear of a change."""


class Roster:
    """The members' records, and everybody who watches them."""

    def __init__(self, members: Iterable[str], factor: int, random: Random) -> None:
        self._records = {name: self.record(name, MemberPhase.ACTIVE) for name in members}
        self._factor = factor
        self._random = random
        self._watchers: list[PlacementWatcher] = []

    @staticmethod
    def record(name: str, phase: MemberPhase) -> NodeRecord:
        return NodeRecord(name, f"{name}:1", "", "general", 1, phase)

    @property
    def placement(self) -> Placement:
        """As it will be for everybody."""
        return Placement([PlacementNode(record, MemberState.ALIVE) for record in self._records.values()], self._factor)

    def watcher(self, name: str) -> PlacementWatcher:
        """A new one, which knows what is so now."""
        made = PlacementWatcher(PlacementSettings(), name, Dialer(), rng=Random(0))
        made._accept(self.placement)
        self._watchers.append(made)
        return made

    def phase(self, name: str) -> MemberPhase:
        """A node's own word; of one that has said nothing yet: that it will join."""
        record = self._records.get(name)
        return MemberPhase.JOINING if record is None else record.phase

    def say(self, name: str, phase: MemberPhase) -> None:
        """The node has said it; the others hear of it one by one."""
        known = self._records.get(name)
        self._records[name] = self.record(name, phase) if known is None else replace(known, phase=phase, incarnation=known.incarnation + 1)
        for watcher in self._watchers:
            asyncio.get_running_loop().call_later(self._random.uniform(0.0, _LATEST_S), watcher._accept, self.placement)

    @property
    def moving(self) -> list[str]:
        """Nodes that have not done what they set out to."""
        return [name for name, record in self._records.items() if record.phase in (MemberPhase.JOINING, MemberPhase.LEAVING)]


class OwnWord:
    """A node's Membership."""

    def __init__(self, roster: Roster, name: str) -> None:
        self._roster = roster
        self._name = name

    @property
    def phase(self) -> MemberPhase:
        return self._roster.phase(self._name)

    async def set_phase(self, phase: MemberPhase) -> None:
        await asyncio.sleep(0.002)
        self._roster.say(self._name, phase)
