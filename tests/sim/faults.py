"""What goes wrong in a run: which kinds, drawn once a seed, and when, drawn as it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ndml.placement import MemberPhase
from tests.sim.membership import Roster
from tests.sim.network import Network, Weather
from tests.sim.nodes import ConsensusNode, MemoryNode

KINDS = ("crash", "partition", "one_way", "slow", "consensus", "jump", "snapshot", "archive")
LEAD_S = 60.0
"""How far another's clock may lead before what it wrote is refused, as in ndml/crdt/clock.py."""

_FAR_S = (110.0, 200.0)
_MARGIN_S = 15.0
"""A sweep passes, and streams that were given up begin anew."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One seed's faults. `destructive`: wipe a disk, or put an old file back, once. `joins`, `leaves`: a node does, when disks last.
    `far_off`: once a node's clock is off by minutes. `zones`: the consensus nodes stand in two zones, two in each."""

    weather: Weather
    skews: bool
    kinds: tuple[str, ...]
    destructive: str
    joins: bool = False
    leaves: bool = False
    far_off: bool = False
    zones: bool = False

    @classmethod
    def draw(cls, random: Random, seed: int) -> Plan:
        weather = Weather(
            drop=random.choice([0.0, 0.0, 0.05, 0.3]),
            repeat=random.choice([0.0, 0.1]),
            delay_s=random.choice([0.001, 0.005, 0.05]),
        )
        kinds = tuple([kind for kind in KINDS if random.random() < 0.5])
        skews, destructive = random.random() < 0.5, random.choice(["", "", "wipe", "old_file"])
        joins, leaves = Random(f"moves {seed}").choice([(False, False), (False, False), (True, False), (False, True), (True, True)])
        far_off, zones = Random(f"clocks {seed}").random() < 0.1, Random(f"zones {seed}").random() < 0.25
        return cls(weather, skews, kinds, destructive, joins and not destructive, leaves and not destructive, far_off, zones)


class Faults:
    """Makes them happen to the machines of a run, and ends them all."""

    def __init__(
        self,
        plan: Plan,
        network: Network,
        nodes: Sequence[MemoryNode],
        consensus: Sequence[ConsensusNode],
        roster: Roster,
        random: Random,
    ) -> None:
        self._plan = plan
        self._network = network
        self._nodes = nodes
        self._consensus = consensus
        self._machines: list[MemoryNode | ConsensusNode] = [*nodes, *consensus]
        self._roster = roster
        self._random = random
        self._snapshots: dict[str, Path] = {}
        self.leads: dict[str, float] | None = None
        """By how much the others' hybrid clocks were ahead when a clock that was far off was set right; None: none was."""

        self.done: list[str] = []

    async def run(self) -> None:
        """One after the other, until cancelled; those that end by themselves overlap."""
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "crash": self._crash,
            "partition": self._partition,
            "one_way": self._one_way,
            "slow": self._slow,
            "consensus": self._consensus_down,
            "jump": self._jump,
            "snapshot": self._take_snapshot,
            "archive": self._archive,
        }
        destroyed, off = not self._plan.destructive, not self._plan.far_off
        moves = [self._join] * self._plan.joins + [self._leave] * self._plan.leaves
        while True:
            await asyncio.sleep(self._random.expovariate(1.0))
            if not destroyed and self._random.random() < 0.3:
                destroyed = await self._destroy()
            elif not off and self._random.random() < 0.5:
                off = True
                await self._far_off()
            elif moves and self._random.random() < 0.5:
                await moves.pop(0)()
            elif self._plan.kinds:
                kind = self._random.choice(self._plan.kinds)
                self._say(kind)
                await acts[kind]()

    async def heal(self) -> None:
        """Everything runs again, nothing is lost on the way, and no clock is so far off that the others refuse what it wrote."""
        self._network.heal()
        self._network.weather = Weather(delay_s=0.001)
        for machine in self._machines:
            if isinstance(machine, MemoryNode):
                machine.slowness_s = 0.0
            if not machine.process.alive:
                await machine.start()
        if self.leads is not None:
            # A hybrid clock never goes back: what such a node writes is refused until the time of whoever is most behind is there.
            far_s = max(node.lead_s() for node in self._nodes) - min(node.clock.skew_s for node in self._nodes)
            await asyncio.sleep(max(far_s - LEAD_S, 0.0) + _MARGIN_S)

    def _say(self, what: str) -> None:
        self.done.append(f"{asyncio.get_running_loop().time():.2f} {what}")

    async def _crash(self) -> None:
        node = self._random.choice(self._nodes)
        node.crash()
        await asyncio.sleep(self._random.choice([0.0, 0.05, 1.0, 3.0]))
        await node.start()

    async def _destroy(self) -> bool:
        """What is acknowledged stands on two disks at least; this one may go while the others stay."""
        if self._plan.destructive == "old_file" and not self._snapshots:
            await self._take_snapshot()
            return False
        name = self._random.choice(sorted(self._snapshots)) if self._plan.destructive == "old_file" else ""
        node = next((node for node in self._nodes if node.name == name), self._random.choice(self._nodes))
        self._say(f"{self._plan.destructive} of {node.name}")
        node.crash()
        kept = self._snapshots[name].read_bytes() if name else b""
        node.files.wipe()
        await asyncio.sleep(self._random.choice([0.0, 1.0]))
        if not name:
            await node.start()
            return True
        node.files.directory.mkdir(parents=True)
        snapshot = node.files.directory / "old-file.db"
        snapshot.write_bytes(kept)
        await node.start(snapshot)
        return True

    async def _join(self) -> None:
        self._say("join")
        self._roster.say(self._nodes[-1].name, MemberPhase.JOINING)

    async def _leave(self) -> None:
        node = self._random.choice(self._nodes[:3])
        self._say(f"leave of {node.name}")
        await node.replication.set_phase(MemberPhase.LEAVING)

    async def _take_snapshot(self) -> None:
        node = self._random.choice(self._nodes)
        self._snapshots[node.name] = Path(node.store.store.snapshot().path)

    async def _partition(self) -> None:
        names = [machine.name for machine in self._machines] + ["g0", "g1"]
        one = self._random.sample(names, self._random.randint(1, len(names) // 2))
        for a in one:
            for b in names:
                if b not in one:
                    self._network.cut(a, b)
                    self._network.cut(b, a)
        await asyncio.sleep(self._random.uniform(0.5, 6.0))
        self._network.heal()

    async def _one_way(self) -> None:
        names = [machine.name for machine in self._machines] + ["g0", "g1"]
        for _ in range(self._random.randint(1, 3)):
            self._network.cut(*self._random.sample(names, 2))
        await asyncio.sleep(self._random.uniform(0.5, 6.0))
        self._network.heal()

    async def _slow(self) -> None:
        node = self._random.choice(self._nodes)
        node.slowness_s = self._random.choice([0.2, 1.0, 4.0])
        await asyncio.sleep(self._random.uniform(0.5, 3.0))
        node.slowness_s = 0.0

    async def _consensus_down(self) -> None:
        node = self._random.choice(self._consensus)
        node.crash()
        await asyncio.sleep(self._random.uniform(0.1, 5.0))
        await node.start()

    async def _archive(self) -> None:
        """One node forgets, as nodes do for themselves: no other copy may hear of it."""
        node = self._random.choice(self._nodes)
        await node.store.archive_everything()

    async def _jump(self) -> None:
        self._random.choice(self._nodes).clock.skew_s += self._random.uniform(-10.0, 10.0)

    async def _far_off(self) -> None:
        """One clock is minutes ahead, or behind, for some seconds, and is set right.

        Meanwhile, and until the others' clocks have come within 60 s of what it gave, the others refuse what the node wrote (where it is
        behind, it refuses what they wrote): such writes are not acknowledged by more than its own disk, and reads that have to join them
        are refused. What holds all the same: no other clock follows, nothing that was acknowledged is lost, sessions see no less than
        before or are refused, and copies become equal once the clocks are close again.
        """
        node, off_s = self._random.choice(self._nodes), self._random.choice([1.0, -1.0]) * self._random.uniform(*_FAR_S)
        self._say(f"far_off of {node.name} by {off_s:.0f} s")
        node.clock.skew_s += off_s
        try:
            await asyncio.sleep(self._random.uniform(1.0, 6.0))
        finally:
            # Also when the run's clients are done before that.
            node.clock.skew_s -= off_s
            self.leads = {other.name: other.lead_s() for other in self._nodes if other is not node and other.process.alive}
