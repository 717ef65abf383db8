"""Replicas of any lattice under a random schedule, and what must hold of them. A test gives a `Kind` and seeds, and prints what is broken.

The network loses, repeats and reorders messages and is cut in two for a while; at the end it is whole, and each replica sends its state
to every other once. `faults` asks for equal states, for nothing lost (by a count of the updates that uses no join) and for the laws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Generic, TypeVar

S = TypeVar("S")
LOSS, REPEAT = 0.2, 0.15
LOOKED_AT = 0.3
"""Share of the joins that are looked at one by one: three quarters of a run's time otherwise."""


@dataclass(frozen=True)
class Kind(Generic[S]):
    """A lattice: how replicas change it and how two states are joined.

    change     (rng, state of the replica, replica number 1..) -> delta of one local update
    canonical  bytes that are equal for equal states only
    since      delta that the second state lacks of the first;  parts: irreducible parts of a state
    told       what all updates together amount to, from their deltas, without a join;  read: the same from a state
    """

    name: str
    bottom: S
    change: Callable[[Random, S, int], S]
    join: Callable[[S, S], S]
    canonical: Callable[[S], bytes]
    since: Callable[[S, S], S] | None = None
    parts: Callable[[S], Iterable[S]] | None = None
    told: Callable[[Sequence[S]], Any] | None = None
    read: Callable[[S], Any] | None = None


@dataclass
class Run(Generic[S]):
    """Replicas on a faulty network. `broken`: joins after which a replica knew less than before."""

    kind: Kind[S]
    rng: Random
    states: list[S]
    deltas: list[S] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    mail: list[tuple[int, int, S]] = field(default_factory=list)
    """(from, to, delta), in no order."""
    side: frozenset[int] = frozenset()
    """One side of the cut; empty: no cut."""

    def receive(self, replica: int, delta: S) -> None:
        """Join, and look that nothing was lost by it."""
        kind, before = self.kind, self.states[replica]
        after = self.states[replica] = kind.join(before, delta)
        if self.rng.random() > LOOKED_AT:
            return
        known = kind.canonical(after)
        if kind.canonical(kind.join(after, before)) != known or kind.canonical(kind.join(after, delta)) != known:
            self.broken.append("a join lost what one side knew")

    def update(self) -> None:
        """One local update, sent to all others."""
        author = self.rng.randrange(len(self.states))
        delta = self.kind.change(self.rng, self.states[author], author + 1)
        self.deltas.append(delta)
        self.receive(author, delta)
        self.mail += [(author, to, delta) for to in range(len(self.states)) if to != author and self.rng.random() > LOSS]

    def deliver(self) -> None:
        """Any message; it stays for a second time now and then, and gets nowhere across the cut."""
        if not self.mail:
            return
        at = self.rng.randrange(len(self.mail))
        sender, to, delta = self.mail[at]
        if (sender in self.side) != (to in self.side):
            return
        if self.rng.random() > REPEAT:
            self.mail[at] = self.mail[-1]
            self.mail.pop()
        self.receive(to, delta)

    def cut(self) -> None:
        """The network falls in two, or becomes whole."""
        sides = [replica for replica in range(len(self.states)) if self.rng.random() < 0.5]
        self.side = frozenset() if self.side else frozenset(sides)

    def catch_up(self) -> None:
        """One replica gets from another what it lacks."""
        if self.kind.since is None:
            return
        sender, to = self.rng.sample(range(len(self.states)), 2)
        if (sender in self.side) == (to in self.side):
            self.receive(to, self.kind.since(self.states[sender], self.states[to]))

    def exchange(self) -> None:
        """Everybody's state to everybody, in an order of its own for each."""
        sent = list(self.states)
        for to in range(len(sent)):
            others = [state for at, state in enumerate(sent) if at != to]
            for state in self.rng.sample(others, len(others)):
                self.receive(to, state)


def run(kind: Kind[S], seed: int, steps: int = 18) -> Run[S]:
    """A schedule of 3 to 5 replicas, up to the end of its full exchange. Equal seeds give equal runs."""
    rng = Random(seed)
    replicas = Run(kind, rng, [kind.bottom] * rng.randint(3, 5))
    actions = [replicas.update] * 8 + [replicas.deliver] * 8 + [replicas.cut] + [replicas.catch_up]
    for _ in range(steps):
        rng.choice(actions)()
    replicas.exchange()
    return replicas


def faults(kind: Kind[S], seed: int, steps: int = 18) -> list[str]:
    """What is wrong with a lattice under the schedule of this seed; nothing: an empty list."""
    done = run(kind, seed, steps)
    found = list(done.broken)
    if len({kind.canonical(state) for state in done.states}) != 1:
        found.append("replicas differ after a full exchange")
    if kind.told and kind.read and any(kind.read(state) != kind.told(done.deltas) for state in done.states):
        found.append("a replica does not know what all updates told")
    return found


def broken_laws(kind: Kind[S], a: S, b: S, c: S) -> list[str]:
    """Laws of a lattice with deltas that three states break, by name."""
    join = kind.join

    def same(one: S, other: S) -> bool:
        return kind.canonical(one) == kind.canonical(other)

    laws = {
        "commutative": same(join(a, b), join(b, a)),
        "associative": same(join(join(a, b), c), join(a, join(b, c))),
        "idempotent": same(join(a, a), a) and same(join(join(a, b), b), join(a, b)),
        "inflationary": same(join(join(a, b), a), join(a, b)),
        "bottom is neutral": same(join(kind.bottom, a), a) and same(join(a, kind.bottom), a),
        "delta joins as the state": kind.since is None or same(join(b, kind.since(a, b)), join(b, a)),
        "nothing lacking is nothing sent": kind.since is None or same(kind.since(a, join(a, b)), kind.bottom),
        "parts join back": kind.parts is None or same(_all(kind, kind.parts(a)), a),
    }
    return [law for law, holds in laws.items() if not holds]


def _all(kind: Kind[S], parts: Iterable[S]) -> S:
    whole = kind.bottom
    for part in parts:
        whole = kind.join(part, whole)
    return whole


def reached(kind: Kind[S], moves: Sequence[tuple[int, int, int]], replicas: int = 3) -> list[S]:
    """States of some replicas after moves (replica, seed of its update, another one from which it then takes the state, or none)."""
    states = [kind.bottom] * replicas
    for replica, seed, source in moves:
        states[replica] = kind.join(states[replica], kind.change(Random(seed), states[replica], replica + 1))
        if source < replicas:
            states[replica] = kind.join(states[replica], states[source])
    return states


def first_faults(kind: Kind[S], seeds: Iterable[int]) -> Iterator[tuple[int, list[str]]]:
    """(seed, faults) of the seeds that have some: the seed of the first is what to run again."""
    for seed in seeds:
        if found := faults(kind, seed):
            yield seed, found
