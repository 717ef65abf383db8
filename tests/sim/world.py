"""A suite in one process: production cores on a virtual clock and a faulty network, clients, faults, and what the checkers say of it."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from unittest.mock import patch

import structlog

from ndml.errors import OwnerUnavailable
from services.consensus.deltas.entries import Via
from services.gateway.liveness import Liveness
from services.gateway.quorum import Quorum
from services.gateway.reads import Reads
from services.gateway.settings import LinkSettings, QuorumSettings
from services.memory_node import renumbering
from services.memory_node.records import Owner
from tests.sim.checkers.clocks import dragged
from tests.sim.checkers.convergence import diverged, rounds_allowed
from tests.sim.checkers.erased import erased_returns
from tests.sim.checkers.lost_acks import lost_acks
from tests.sim.checkers.lost_contents import lost_contents, shown_apart
from tests.sim.checkers.quorum import stale_reads
from tests.sim.checkers.sessions import monotonic_reads, read_your_writes
from tests.sim.clients import REPLICAS, Client, Habits, Notes, Trace, number_of
from tests.sim.faults import LEAD_S, Faults, Plan
from tests.sim.history import GONE, History
from tests.sim.loop import VirtualLoop, run
from tests.sim.membership import OwnWord, Roster
from tests.sim.network import Network
from tests.sim.nodes import Clock, ConsensusNode, MemoryNode, dead
from tests.sim.processes import make_task
from tests.sim.stores import Files, template
from tests.sim.wires import Connection, SimLanes

_LONGEST_S = 600.0
_SETTLE_S = (0.0, 2.0)
"""Between the end of the faults and the first round that is counted: none, or long enough for streams to begin anew."""

_MOVES_S = 120
"""Within which a node that joins or leaves has done so when nothing is in its way."""

_OPERATIONS = 40
"""Of all clients together: many short sessions, or few long ones."""

_ZONED = 4
"""Consensus nodes of a suite in two zones: two in each, so that both have somebody to elect."""

_BLAMING = ("FIELD_INVALID", "INTERNAL")
"""Reasons that no client here gives cause for: what it asks is well formed, and a suite that has lost a machine is not broken."""

_SHM = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a run is."""

    nodes: int
    consensus: int
    clients: int
    owners: int
    operations: int
    """Of each client."""

    @classmethod
    def draw(cls, random: Random) -> Shape:
        clients = random.choice([2, 3, 3, 4, 5, 6, 8])
        return cls(random.choice([3, 3, 3, 4, 5, 7]), random.choice([1, 2, 3]), clients, random.choice([1, 2]), _OPERATIONS // clients)


@dataclass(slots=True)
class Outcome:
    """What became of a seed. `violations`: none, in a suite that keeps its promises. `failures`: refusals by reason."""

    seed: int
    shape: Shape
    plan: Plan
    violations: list[str] = field(default_factory=list)
    rounds: int = 0
    operations: int = 0
    messages: int = 0
    conflicts: int = 0
    """Traces that more than one content was left of."""

    crossed: int = 0
    """Updates sent from one zone to the other."""

    faults: list[str] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)


Change = Callable[[Shape, Plan], tuple[Shape, Plan]]


def _as_drawn(shape: Shape, plan: Plan) -> tuple[Shape, Plan]:
    return shape, plan


class Suite:
    """Everything that runs in one seed."""

    def __init__(self, seed: int, directory: Path, change: Change) -> None:
        self.random = random = Random(seed)
        self.shape, self.plan = change(Shape.draw(random), Plan.draw(random, seed))
        self.network = Network(Random(random.random()), self.plan.weather)
        self.notes = Notes()
        self._directory = directory
        self.owners = [Owner("t", f"u{i}") for i in range(self.shape.owners)]
        names = [f"m{i}" for i in range(self.shape.nodes)]
        self.roster = Roster(names, REPLICAS, Random(random.random()))
        names += ["joining"] if self.plan.joins else []
        consensus = [f"c{i}" for i in range(_ZONED if self.plan.zones else self.shape.consensus)]
        self.consensus = {name: self._consensus_node(name, consensus) for name in consensus}
        self.nodes = {name: self._memory_node(name, consensus) for name in names}
        self.clients = self._clients()
        machines = list(self.nodes.values()), list(self.consensus.values())
        self.faults = Faults(self.plan, self.network, *machines, self.roster, Random(random.random()))

    def new_replica(self, node_id: str = "") -> int:
        return self.random.getrandbits(62) + 1

    @property
    def machines(self) -> list[ConsensusNode | MemoryNode]:
        return [*self.consensus.values(), *self.nodes.values()]

    def _memory_node(self, name: str, consensus: Sequence[str]) -> MemoryNode:
        random = Random(self.random.random())
        clock = Clock(random.uniform(-5.0, 5.0) if self.plan.skews else 0.0)
        files = Files(self._directory / name, name, _template(), self.new_replica, clock.now_ns)
        ways = self._connect, consensus, self._server_of, self._displaced
        return MemoryNode(name, self.network, files, clock, self.roster.watcher(name), *ways, OwnWord(self.roster, name), random)

    def _consensus_node(self, name: str, names: Sequence[str]) -> ConsensusNode:
        watcher, peers = self.roster.watcher(name), [other for other in names if other != name]
        zone = f"z{names.index(name) % 2}" if self.plan.zones else "z"
        return ConsensusNode(name, zone, peers, self._connect, self.network, watcher, Random(self.random.random()))

    def _connect(self, source: str, target: str) -> Connection:
        """A new stream to a consensus node; where it is away, the first message tells."""
        connection = Connection(self.network, source, target)
        asyncio.get_running_loop().call_later(self.network.delay(), self._accept, connection, source, target)
        return connection

    def _accept(self, connection: Connection, source: str, target: str) -> None:
        try:
            if not self.network.arrives(source, target):
                raise OwnerUnavailable("lost")
            self.consensus[target].accept(connection)
        except OwnerUnavailable:
            asyncio.get_running_loop().call_later(self.network.weather.give_up_s, connection.break_)

    def _server_of(self, name: str) -> MemoryNode:
        node = self.nodes[name]
        if not node.process.alive:
            raise dead(name)
        return node

    def _displaced(self, owner: Owner, trace_id: str, texts: Sequence[str]) -> None:
        self.notes.displaced.setdefault(trace_id, set()).update(texts)

    def _clients(self) -> list[Client]:
        gateways = [self._gateway(name) for name in ("g0", "g1")]
        habits = Habits(weak=0.0, blind=False) if self.plan.destructive else Habits(weak=0.3)
        owners = list(self.owners)
        return [Client(f"k{i}", gateways, owners, self.notes, habits, Random(self.random.random())) for i in range(self.shape.clients)]

    def _gateway(self, name: str) -> tuple[Quorum, Reads]:
        clock, random = asyncio.get_running_loop().time, Random(self.random.random())
        watcher, liveness = self.roster.watcher(name), Liveness(clock, 3.0)
        lanes = SimLanes(self.network, name, self._server_of, lambda: watcher.epoch, liveness)
        settings, links = QuorumSettings(), LinkSettings()
        quorum = Quorum(lanes, watcher, liveness, settings, links, clock, random.randbytes)
        return quorum, Reads(lanes, watcher, liveness, settings, links)

    # A run

    async def run(self) -> Outcome:
        for machine in self.machines:
            await machine.start()
        chaos = asyncio.ensure_future(self.faults.run())
        await asyncio.gather(*(client.run(self.shape.operations) for client in self.clients))
        chaos.cancel()
        await asyncio.wait({chaos})
        if not chaos.cancelled():
            chaos.result()
        await self.faults.heal()
        stuck = await self._moved()
        await asyncio.sleep(self.random.choice(_SETTLE_S))
        outcome = Outcome(0, self.shape, self.plan, faults=self.faults.done, failures=self.notes.failures)
        outcome.rounds = await self._rounds()
        texts = self._texts()
        outcome.violations = stuck + self._check(outcome.rounds, texts)
        outcome.conflicts = sum(any(len(set(held)) > 1 for held in copies.values()) for copies in texts.values())
        outcome.operations, outcome.messages = len(self.notes.history.events), self.network.messages
        outcome.crossed = sum(node.exchange.mesh.sent(Via.WIDE) for node in self.consensus.values())
        for machine in self.machines:
            machine.end()
        return outcome

    async def _moved(self) -> list[str]:
        """Wait for nodes that join or leave; says which do not get there."""
        for _ in range(_MOVES_S):
            if not self.roster.moving:
                break
            await asyncio.sleep(1.0)
        await asyncio.sleep(2.0 if self.plan.joins or self.plan.leaves else 0.0)
        return [f"{name} is still {self.roster.phase(name).name} {_MOVES_S} s after all faults" for name in self.roster.moving]

    async def _rounds(self) -> int:
        """Of anti-entropy until all copies are equal; one more than allowed where they are not by then."""
        allowed = max(rounds_allowed(len(self._copies(owner))) for owner in self.owners)
        for done in range(allowed + 1):
            if not diverged(self._digests()):
                return done
            if done < allowed:
                await asyncio.gather(*(node.process.run(node.replication.sweeper.round) for node in self.nodes.values()))
        return allowed + 1

    def _copies(self, owner: Owner) -> list[MemoryNode]:
        return [self.nodes[node.node_id] for node in self.roster.placement.copies(*owner)]

    def _digests(self) -> dict[str, dict[str, bytes]]:
        return {
            owner.user: {node.name: node.store.reader.owner_state(owner).digest for node in self._copies(owner)} for owner in self.owners
        }

    def _check(self, rounds: int, texts: dict[str, dict[str, list[str]]]) -> list[str]:
        history = self.notes.history
        found = [f"a caller that asked for nothing wrong was told {reason}" for reason in _BLAMING if reason in self.notes.failures]
        found += [f"after {rounds - 1} rounds: {each}" for each in diverged(self._digests())]
        found += read_your_writes(history) + monotonic_reads(history) + dragged(self.faults.leads or {}, LEAD_S)
        if not self.plan.destructive:
            # A copy that lost its disk knows nothing and answers, until it is taken for one that joins.
            found += stale_reads(history, REPLICAS)
        for owner in self.owners:
            finals, part = self._finals(owner), self._history_of(owner)
            found += lost_acks(part, finals) + erased_returns(part, finals)
        acked = {key: names for key, names in self.notes.acked_texts.items() if not self.notes.traces[key].deleted}
        displaced = {key: self.notes.displaced.get(self.notes.traces[key].trace_id, set()) for key in acked}
        return found + lost_contents(acked, displaced, texts) + shown_apart(texts)

    def _history_of(self, owner: Owner) -> History:
        return History([event for event in self.notes.history.events if self.notes.traces[event.trace].owner == owner])

    def _finals(self, owner: Owner) -> dict[str, dict[str, int]]:
        """For each copy the number that it has of each trace."""
        return {
            node.name: {trace.key: _number(node, trace) for trace in self.notes.traces.values() if trace.owner == owner}
            for node in self._copies(owner)
        }

    def _texts(self) -> dict[str, dict[str, list[str]]]:
        return {
            trace.key: {node.name: node.store.shown(trace.owner, trace.trace_id) for node in self._copies(trace.owner)}
            for trace in self.notes.traces.values()
            if not trace.deleted
        }


def _number(node: MemoryNode, trace: Trace) -> int:
    if node.store.is_erased(trace.owner, trace.trace_id):
        return GONE
    return max(map(number_of, node.store.shown(trace.owner, trace.trace_id)), default=0)


@cache
def _template() -> bytes:
    with tempfile.TemporaryDirectory(dir=_SHM if _SHM.is_dir() else None) as directory:
        return template(Path(directory))


def quiet() -> None:
    """A simulation's logs are its outcome."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False)


def simulate(seed: int, change: Change = _as_drawn) -> Outcome:
    """One seed, from an empty suite to its verdict. `change`: what is to be otherwise than it was drawn."""
    directory = Path(tempfile.mkdtemp(prefix=f"ndml-sim-{os.getpid()}-", dir=_SHM if _SHM.is_dir() else None))

    async def main(loop: VirtualLoop) -> Outcome:
        loop.set_task_factory(make_task)
        suite = Suite(seed, directory, change)
        with patch.object(renumbering, "new_replica", suite.new_replica):
            async with asyncio.timeout(_LONGEST_S):
                outcome = await suite.run()
        outcome.seed = seed
        return outcome

    try:
        return run(main)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
