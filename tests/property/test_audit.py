"""Honest replicas among liars (AT-5b): whatever comes in whatever order, they end with the same updates and the same liars.

Each honest member writes, audits and tells. A liar forks its chain and shows each replica something else; forgers sign as others, take
others' numbers, date into the future and flip bits; everything is repeated and reordered. Then the honest ones exchange what they hold,
as anti-entropy does, until nothing is new.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from ndml.crdt.audit import Admission, Auditor, Kind
from ndml.crdt.chain import MemoryChainStore, Signer, row_of
from ndml.crdt.envelope import Envelope, conflict, leaf, replica_number
from ndml.crdt.evidence import Proof, Vouch, vouch
from ndml.errors import RequestMalformed
from tests.unit.crdt.signed_world import NOW_MS, OWNER, clock_at, envelope_by, key_of, roster_of, signer_of

SEEDS = 90
LIARS = ["liar-1", "liar-2"]
MOST_ROUNDS = 12  # a chain of parked updates moves one link a round at worst; runs end after three to five


@dataclass
class Member:
    """An honest node: signs, audits, and remembers what it joined."""

    name: str
    auditor: Auditor
    store: MemoryChainStore
    signer: Signer
    joined: dict[bytes, Envelope] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def write(self, text: bytes) -> Envelope:
        previous = max((one.counter for one in self.joined.values() if one.node_id == self.name), default=0)
        made = self.signer.seal(*OWNER, previous, previous + 1, clock_at(NOW_MS), [leaf(text)])
        self.store.put(row_of(made))
        self.joined[made.hash] = made
        return made

    def receive(self, data: bytes) -> None:
        try:
            envelope = Envelope.from_bytes(data)
        except RequestMalformed:
            return
        self._note(envelope, self.auditor.admit(envelope))
        for later, _, verdict in self.auditor.drain():
            self._note(later, verdict)

    def _note(self, envelope: Envelope, verdict: Admission) -> None:
        if verdict.joins:
            self.faults += ["joined twice"] if envelope.hash in self.joined else []
            self.joined[envelope.hash] = envelope
        if verdict.kind is Kind.EQUIVOCATION and not (verdict.proof and verdict.proof.verify(self.auditor.roster)):
            self.faults.append("a proof proves nothing")


@dataclass
class World:
    """Members, what is on the wire, and what must never be joined."""

    rng: Random
    members: list[Member]
    wire: list[bytes] = field(default_factory=list)
    forged: set[bytes] = field(default_factory=set)
    lies: list[Envelope] = field(default_factory=list)


def member(name: str, names: list[str]) -> Member:
    store = MemoryChainStore(keep=1000)
    return Member(name, Auditor(roster_of(*names), lambda: NOW_MS, store), store, signer_of(name, store))


def world_of(seed: int) -> World:
    rng = Random(seed)
    honest = [f"node-{number}" for number in range(rng.randint(3, 5))]
    return World(rng, [member(name, [*honest, *LIARS]) for name in honest])


def heads(world: World) -> list[Envelope]:
    """Some updates that are around, at most one a store."""
    around = [envelope for one in world.members for envelope in one.joined.values()]
    picked = {one.replica: one for one in world.rng.sample(around, min(2, len(around)))}
    return [picked[number] for number in sorted(picked)]


def lie(world: World, name: str) -> Envelope:
    """The liar goes on from anything that it signed before, so chains fork, overlap and link past each other."""
    rng = world.rng
    mine = [one for one in world.lies if one.node_id == name]
    before = rng.choice([None, *mine]) if mine else None
    deps = tuple(one.dep for one in heads(world) if one.node_id != name)
    counter = (before.counter if before else 0) + rng.randint(1, 3)
    made = envelope_by(name, counter, before, deps=deps, text=rng.randbytes(4))
    world.lies.append(made)
    return made


def forge(world: World) -> bytes:
    """What nobody must take."""
    rng = world.rng
    victim = rng.choice(world.members)
    known = [one for one in victim.joined.values() if one.node_id == victim.name]
    before = max(known, key=lambda one: one.counter, default=None)
    counter = (before.counter if before else 0) + 1
    text = rng.randbytes(4)
    kinds: list[Callable[[], Envelope]] = [
        lambda: envelope_by(victim.name, counter, before, key="liar-1", text=text),
        lambda: envelope_by("liar-1", counter, before, replica=replica_number(victim.name, 7), text=text),
        lambda: envelope_by("stranger", counter, text=text),
        lambda: envelope_by("liar-2", counter, ms=NOW_MS + 3_600_000, text=text),
    ]
    made = rng.choice(kinds)()
    world.forged.add(made.hash)
    return made.to_bytes()


def flip(world: World, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(world.rng.randint(1, 3)):
        changed[world.rng.randrange(len(changed))] ^= 1 << world.rng.randrange(8)
    return bytes(changed)


def step(world: World) -> None:
    rng = world.rng
    what = rng.random()
    if what < 0.3:
        world.wire.append(rng.choice(world.members).write(rng.randbytes(4)).to_bytes())
    elif what < 0.45:
        world.wire.append(lie(world, rng.choice(LIARS)).to_bytes())
    elif what < 0.55:
        world.wire.append(forge(world))
    elif what < 0.62 and world.wire:
        world.wire.append(flip(world, rng.choice(world.wire)))
    elif world.wire:
        for data in rng.choices(world.wire, k=rng.randint(1, 6)):
            rng.choice(world.members).receive(data)


def exchange(world: World) -> None:
    """Everybody tells everybody what it holds, and gives its word for what came of a liar before it was known as one."""
    for one in world.members:
        for proof in one.auditor.quarantined.values():
            for other in world.members:
                other.auditor.learn(Proof.from_bytes(proof.to_bytes()))
    for one in world.members:
        held = list(one.joined.values())
        world.rng.shuffle(held)
        words = [vouch(key_of(one.name), one.name, held.hash) for held in held if held.node_id in one.auditor.quarantined]
        for other in world.members:
            for word in words:
                other.auditor.take(Vouch.from_bytes(word.to_bytes()))
            for envelope in held:
                other.receive(envelope.to_bytes())


def run(world: World, steps: int = 120) -> int:
    """Rounds of exchange until nothing is new."""
    for _ in range(steps):
        step(world)
    for rounds in range(1, MOST_ROUNDS + 1):
        before = [set(one.joined) for one in world.members]
        exchange(world)
        if [set(one.joined) for one in world.members] == before:
            return rounds
    return MOST_ROUNDS + 1


def faults(world: World, rounds: int) -> list[str]:
    found = [] if rounds <= MOST_ROUNDS else ["no end of exchanging"]
    found += [fault for one in world.members for fault in one.faults]
    first, *others = world.members
    found += ["updates differ"] if any(set(one.joined) != set(first.joined) for one in others) else []
    found += ["liars differ"] if any(set(one.auditor.quarantined) != set(first.auditor.quarantined) for one in others) else []
    found += ["an honest member is quarantined"] if set(first.auditor.quarantined) - set(LIARS) else []
    found += ["a forgery was taken"] if world.forged & set(first.joined) else []
    known = world.forged | {one.hash for one in world.lies}
    honest = {envelope.hash for one in world.members for envelope in one.joined.values() if envelope.node_id == one.name}
    found += ["something was taken that nobody signed"] if set(first.joined) - honest - known else []
    found += ["an honest update is missing"] if honest - set(first.joined) else []
    for name in LIARS:
        said = [one for one in first.joined.values() if one.node_id == name]
        lied = any(conflict(one, other) for one in said for other in said)
        found += [f"{name} is shown with two faces and free"] if lied and name not in first.auditor.quarantined else []
    return found


@pytest.mark.parametrize("start", range(0, SEEDS, 30))
def test_honest_replicas_agree_among_liars(start: int) -> None:
    broken = {}
    for seed in range(start, start + 30):
        world = world_of(seed)
        if found := faults(world, run(world)):
            broken[seed] = found
    assert broken == {}


def test_the_runs_are_full_of_lies() -> None:
    """What the schedules do reach: or the test above would show nothing."""
    seen = {"quarantined": 0, "both faces": 0, "rejected after": 0, "deep": 0}
    for seed in range(20):
        world = world_of(seed)
        rounds = run(world)
        first = world.members[0]
        seen["quarantined"] += len(first.auditor.quarantined)
        seen["both faces"] += any(
            proof.one.hash in first.joined and proof.other.hash in first.joined for proof in first.auditor.quarantined.values()
        )
        seen["rejected after"] += len({one.hash for one in world.lies} - set(first.joined)) > 0
        seen["deep"] += rounds > 2
    assert all(count >= 5 for count in seen.values()), seen


class Deaf(Auditor):
    """Planted fault: nobody's word counts, and a dependency is no word either."""

    def take(self, vouch: Vouch) -> bool:
        return False

    def _exempt_one(self, hashed: bytes) -> None:
        if self.quarantined and hashed in {proof.one.hash for proof in self.quarantined.values()}:
            super()._exempt_one(hashed)


class Trusting(Auditor):
    """Planted fault: signatures are not looked at."""

    def admit(self, envelope: Envelope, payload: bytes = b"", *, verified: bool = False) -> Admission:
        return super().admit(envelope, payload, verified=True)


@pytest.mark.parametrize(("mutant", "what"), [(Deaf, "updates differ"), (Trusting, "a forgery was taken")])
def test_a_planted_fault_is_found(mutant: type[Auditor], what: str) -> None:
    found: set[str] = set()
    for seed in range(20):
        world = world_of(seed)
        for one in world.members:
            one.auditor = mutant(one.auditor.roster, lambda: NOW_MS, one.store)
        found |= set(faults(world, run(world)))
    assert what in found
