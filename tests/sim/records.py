"""The lattice alone, ten thousand times: replicas that hold records, a network that loses nearly everything, disks that are lost, and a
model of what must be left that knows nothing of joins. A seed takes some milliseconds; the whole suite is in world.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from math import ceil, log2
from random import Random

import numpy as np

from ndml.btsp.state import Dynamics, StateBlock
from ndml.crdt.causal import Dot
from ndml.crdt.clock import LOGICAL_BITS
from ndml.crdt.digests import owner_digest
from ndml.crdt.iblt import Decoder, Encoder
from ndml.crdt.record import Contribution, TraceRecord, Version
from tests.sim.checkers.convergence import diverged, rounds_allowed

_SYMBOLS = 256
_IDS = [bytes([i + 1]) * 16 for i in range(4)]
_START_MS = 1_700_000_000_000


@dataclass(slots=True)
class Replica:
    """A store: its number, its records, its clock's error, its own positions, whom it cannot reach now."""

    number: int
    skew_ms: int
    held: dict[bytes, TraceRecord] = field(default_factory=dict)
    position: int = 0
    unreachable: set[int] = field(default_factory=set)

    def get(self, trace_id: bytes) -> TraceRecord:
        return self.held.get(trace_id) or TraceRecord(trace_id)

    def join(self, records: Iterable[TraceRecord]) -> None:
        for each in records:
            self.held[each.trace_id] = self.get(each.trace_id).joined(each)

    def digest(self) -> bytes:
        return owner_digest([each.digest() for each in self.held.values() if not each.is_empty])


@dataclass(slots=True)
class Model:
    """What was done: which dots each write replaced, and which traces were erased. `given`: the last feedback of each store."""

    replaced: dict[bytes, dict[Dot, frozenset[Dot]]] = field(default_factory=dict)
    erased: set[bytes] = field(default_factory=set)
    given: dict[tuple[bytes, int], int] = field(default_factory=dict)

    def expected(self, record: TraceRecord) -> set[Dot]:
        """The versions that a record which knows of its context's dots must have: those that no write in it replaced."""
        writes = {dot: gone for dot, gone in self.replaced.get(record.trace_id, {}).items() if record.context.covers(dot)}
        return writes.keys() - {dot for gone in writes.values() for dot in gone}


class Records:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.replicas = [Replica(i + 1, random.randint(-5000, 5000)) for i in range(random.choice([3, 3, 4, 5, 7]))]
        self.model = Model()
        self.drop = random.choice([0.0, 0.3, 0.7])
        self._number = len(self.replicas)
        self._air: list[tuple[int, TraceRecord]] = []
        self._old: tuple[int, dict[bytes, TraceRecord]] | None = None
        # With a disk a delta may be lost that later ones build on; what travels beside lost disks says all that its author knew.
        self._lasting = random.random() < 0.5
        self._destroyed = self._lasting
        self._now = 0

    def run(self, steps: int = 40) -> list[str]:
        """What is wrong in the end."""
        acts = (self._write, self._write, self._write, self._erase, self._feedback, self._hear, self._hear, self._hear, self._fault)
        for _ in range(steps):
            self._now += self.random.randint(1, 2000)
            self.random.choice(acts)()
        return self._mend()

    # What happens

    def _write(self) -> None:
        at, replica = self._any()
        old = replica.get(self.random.choice(_IDS))
        if old.is_erased:
            return
        dot = old.context.next(replica.number)
        shown = max(old.versions, key=lambda dot: (old.versions[dot].clock, dot), default=None)
        gone = frozenset(old.versions if self.random.random() < 0.1 else () if shown is None else (shown,))
        clock = (_START_MS + max(0, self._now + replica.skew_ms)) << LOGICAL_BITS
        version = Version(clock, f"{dot.replica}.{dot.counter}".encode(), b"", 0.5, 0.5)
        self.model.replaced.setdefault(old.trace_id, {})[dot] = gone
        self._tell(at, old.written(dot, version, gone))

    def _erase(self) -> None:
        at, replica = self._any()
        if replica.held and self.random.random() < 0.2:
            trace_id = self.random.choice(list(replica.held))
            self.model.erased.add(trace_id)
            self._tell(at, TraceRecord(trace_id).erased())

    def _feedback(self) -> None:
        at, replica = self._any()
        live = [each for each in replica.held.values() if each.versions]
        if live:
            record = self.random.choice(live)
            replica.position += 1
            known = record.states.get(replica.number)
            state = _states()[min(len(_states()) - 1, 0 if known is None else 1 + _states().index(known.state))]
            self.model.given[record.trace_id, replica.number] = replica.position
            self._tell(at, record.contributed(replica.number, Contribution(replica.position, state)))

    def _tell(self, at: int, delta: TraceRecord) -> None:
        """Joined here, and on its way to everybody: the delta, or all that is known of the trace."""
        replica = self.replicas[at]
        replica.join([delta])
        message = delta if self._lasting and self.random.random() < 0.7 else replica.get(delta.trace_id)
        self._air += [(to, message) for to in range(len(self.replicas)) if to != at and self._passes(at, to)]

    def _hear(self) -> None:
        """Any message in the air, and maybe once more later."""
        if self._air:
            place = self.random.randrange(len(self._air))
            to, message = self._air[place]
            if self.random.random() >= 0.1:
                self._air.pop(place)
            if self.random.random() >= self.drop:
                self.replicas[to].join([message])

    def _fault(self) -> None:
        self.random.choice((self._cut, self._heal, self._sweep, self._wipe, self._keep_file, self._old_file))()

    def _cut(self) -> None:
        for replica in self.replicas:
            replica.unreachable = {to for to in range(len(self.replicas)) if self.random.random() < 0.3}

    def _heal(self) -> None:
        for replica in self.replicas:
            replica.unreachable = set()

    def _sweep(self) -> None:
        a, b = self.random.sample(range(len(self.replicas)), 2)
        if self._passes(a, b) and self._passes(b, a):
            self._reconcile(self.replicas[a], self.replicas[b])

    def _wipe(self) -> None:
        """A disk is lost; the next store on this machine has another number."""
        if not self._destroyed:
            self._destroyed = True
            at, _ = self._any()
            self.replicas[at] = self._new_store({})

    def _keep_file(self) -> None:
        at, replica = self._any()
        self._old = at, dict(replica.held)

    def _old_file(self) -> None:
        if self._old is not None and not self._destroyed:
            self._destroyed = True
            at, held = self._old
            self.replicas[at] = self._new_store(held)

    def _new_store(self, held: dict[bytes, TraceRecord]) -> Replica:
        self._number += 1
        return Replica(self._number, self.random.randint(-5000, 5000), dict(held))

    # The end

    def _mend(self) -> list[str]:
        self._heal()
        size, rounds = len(self.replicas), 0
        while len({replica.digest() for replica in self.replicas}) > 1 and rounds < rounds_allowed(size):
            # What one knows is known by twice as many after each round.
            step = 1 << rounds % ceil(log2(size))
            for at, replica in enumerate(self.replicas):
                self._reconcile(replica, self.replicas[(at + step) % size])
            rounds += 1
        return self._check(rounds)

    def _check(self, rounds: int) -> list[str]:
        found = diverged({f"owner after {rounds} rounds": {str(each.number): each.digest() for each in self.replicas}})
        for record in (record for replica in self.replicas for record in replica.held.values()):
            name = record.trace_id[:1].hex()
            if record.trace_id in self.model.erased and self._erasure_is_known(record.trace_id) and not record.is_erased:
                found.append(f"{name} is back")
            if not record.is_erased and record.versions.keys() != self.model.expected(record):
                found.append(f"{name} has {sorted(record.versions)}, not {sorted(self.model.expected(record))}")
            for author, held in record.states.items():
                if held.counter > self.model.given.get((record.trace_id, author), 0):
                    found.append(f"{name} has feedback of {author} that nobody gave")
        return found

    def _erasure_is_known(self, trace_id: bytes) -> bool:
        """Not where the only disk that knew it is gone."""
        return any(replica.get(trace_id).is_erased for replica in self.replicas)

    def _reconcile(self, one: Replica, other: Replica) -> None:
        """Both end with what both had. By coded symbols now and then: they have tests of their own, and cost the most."""
        if one.digest() == other.digest():
            return
        ours, theirs = ({each.digest(): each for each in replica.held.values() if not each.is_empty} for replica in (one, other))
        if ours and theirs and self.random.random() < 0.1:
            missing_here, missing_there = self._decoded(list(ours), list(theirs))
        else:
            missing_here, missing_there = list(theirs.keys() - ours.keys()), list(ours.keys() - theirs.keys())
        wanted, given = [theirs[digest] for digest in sorted(missing_here)], [ours[digest] for digest in sorted(missing_there)]
        one.join(wanted)
        other.join(given)

    def _decoded(self, ours: list[bytes], theirs: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        key = self.random.randbytes(16)
        encoder, decoder = Encoder(_rows(theirs), key, _SYMBOLS), Decoder(_rows(ours), key, _SYMBOLS)
        sent = 0
        while not decoder.add(encoder.symbols(sent, 8)):
            sent += 8
        return decoder.missing_here(), decoder.missing_there()

    def _any(self) -> tuple[int, Replica]:
        at = self.random.randrange(len(self.replicas))
        return at, self.replicas[at]

    def _passes(self, source: int, target: int) -> bool:
        return target not in self.replicas[source].unreachable


def _rows(digests: list[bytes]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


@cache
def _states() -> list[bytes]:
    """States of a trace after 0, 1, 2, … grades."""
    block = StateBlock(Dynamics())
    block.append([0.5], [0.5], [1.7e9], [0])
    found = []
    for i in range(8):
        block.grade(np.array([0]), np.array([1.0]), 1.7e9 + i)
        found += block.pack(np.array([0]))
    return found
