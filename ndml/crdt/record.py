"""TraceRecord: all of a trace that is replicated, one product lattice. Replicas that have seen the same updates, in any order and any
number of times, hold equal records.

length     causal length of the id (`existence`): erased is above everything, and keeps nothing but the id
versions   multi-value register of content with dotted versions, and its causal context (`causal`)
states     a contribution for each replica that gave feedback (`strength`), written by that replica alone
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from struct import Struct
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.record import RECORD_BYTES, VERSION, decoded, encoded
from ndml.crdt import existence
from ndml.crdt.blocks import ID_BYTES, bodies, joined_states
from ndml.crdt.causal import NUMBER_LIMIT, CausalContext, Dot, joined_values, lacking_values, parts_of
from ndml.crdt.clock import CLOCK_LIMIT
from ndml.crdt.digests import DIGEST_BYTES
from ndml.errors import FieldInvalid

K = TypeVar("K")
_U32, _PAIR = Struct("<I"), Struct("<QQ")
_NUMBERS = Struct("<Qdd")


@dataclass(frozen=True, slots=True)
class Version:
    """Content as one write left it. `clock`: HybridClock; `vector`: float32 bytes, little-endian; salience and encoding strength 0..1.

    FieldInvalid: a number out of range or NaN.
    """

    clock: int
    content: bytes
    vector: bytes
    salience: float
    encoding: float

    def __post_init__(self) -> None:
        if not 0 <= self.clock < CLOCK_LIMIT:
            raise FieldInvalid(f"clock is {self.clock}: give one of HybridClock", field="clock")
        for name, value in (("salience", self.salience), ("encoding", self.encoding)):
            if not 0 <= value <= 1:
                raise FieldInvalid(f"{name} is {value}: give a number from 0 to 1", field=name)
            object.__setattr__(self, name, abs(float(value)))  # -0 equals 0 and has other bytes

    def order(self) -> tuple[bytes, bytes, bytes]:
        """Which of two versions of one dot is kept: the larger content, then the larger of the rest. Total to the last bit."""
        return self.content, self.vector, _NUMBERS.pack(self.clock, self.salience, self.encoding)


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one replica's feedback added. `counter`: the author's position after it; `state`: a record of `ndml.btsp.record`.

    Its numbers are not looked at here (a join is defined for all): who takes records from outside calls `check_states` once for all.
    FieldInvalid: a counter out of range, a state of another length or version.
    """

    counter: int
    state: bytes

    def __post_init__(self) -> None:
        if not 0 < self.counter < NUMBER_LIMIT:
            raise FieldInvalid(f"counter is {self.counter}: positions are from 1 to 2^63 - 1", field="counter")
        if len(self.state) != RECORD_BYTES or self.state[0] != VERSION:
            raise FieldInvalid(f"state has {len(self.state)} bytes: give {RECORD_BYTES}, the first of them {VERSION}", field="state")


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """A trace, or a delta of one: both have this form, and a delta is joined like a record. Never changed; methods give new records.

    `length`: 0 unknown (a delta may leave it so), 1 present, 2 erased. `versions` with the dots that `context` covers; `states` by replica.
    An erased record drops the three. FieldInvalid: an id of another length than 16 bytes, a length that NDML never makes (with it a liar
    could bring back what was erased), a version whose dot the context does not cover.
    """

    trace_id: bytes
    length: int = existence.UNKNOWN
    versions: Mapping[Dot, Version] = field(default_factory=dict)
    context: CausalContext = field(default_factory=CausalContext)
    states: Mapping[int, Contribution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.trace_id) != ID_BYTES:
            raise FieldInvalid(f"trace_id has {len(self.trace_id)} bytes: give {ID_BYTES}", field="trace_id")
        if not existence.UNKNOWN <= self.length <= existence.REMOVED:
            raise FieldInvalid(f"length is {self.length}: give 0 unknown, 1 present or 2 erased", field="length")
        if self.length == existence.REMOVED:
            for name, nothing in (("versions", {}), ("context", CausalContext()), ("states", {})):
                object.__setattr__(self, name, nothing)
        elif not all(self.context.covers(dot) for dot in self.versions):
            raise FieldInvalid("context does not cover the dot of every version: join it with them", field="context")

    @property
    def is_erased(self) -> bool:
        """Whether the trace was removed: nothing can be added to it, and its id never comes back."""
        return self.length == existence.REMOVED

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing at all: the bottom of the lattice."""
        return self.length == existence.UNKNOWN and not (self.context.vector or self.context.cloud or self.states)

    def joined(self, other: TraceRecord) -> TraceRecord:
        """Least upper bound. FieldInvalid: records of two traces. Many at once: `joined_all`."""
        return joined_all([self], [other])[0]

    def digest(self) -> bytes:
        """16 bytes: `digest_of` this record."""
        counters = ((replica, held.counter) for replica, held in self.states.items())
        return digest_of(self.trace_id, self.length, self.context.to_bytes(), self.versions, counters)

    def canonical(self) -> bytes:
        """All of the record, contents too: equal records, and only those, have equal bytes. Sorted; every part says its length."""
        versions = sorted((dot, version.order()) for dot, version in self.versions.items())
        states = sorted((replica, held.counter, held.state) for replica, held in self.states.items())
        parts = [self.trace_id, bytes([self.length]), _framed(self.context.to_bytes()), _U32.pack(len(versions))]
        for dot, order in versions:
            parts += [_PAIR.pack(*dot), *map(_framed, order)]
        parts.append(_U32.pack(len(states)))
        parts += [_PAIR.pack(replica, counter) + _framed(state) for replica, counter, state in states]
        return b"".join(parts)

    # Updates: each gives the delta, which the replica joins to its own record and sends to others.

    def written(self, dot: Dot, version: Version, replaces: Iterable[Dot]) -> TraceRecord:
        """Delta of a write (the first one: of a new trace). It replaces exactly the versions named; siblings that it did not see stay."""
        return TraceRecord(self.trace_id, existence.PRESENT, {dot: version}, CausalContext.from_dots((dot, *replaces)))

    def contributed(self, replica: int, contribution: Contribution) -> TraceRecord:
        """Delta of feedback at the replica."""
        return TraceRecord(self.trace_id, existence.PRESENT, states={replica: contribution})

    def erased(self) -> TraceRecord:
        """Delta of an erasure."""
        return TraceRecord(self.trace_id, existence.REMOVED)

    # Differences

    def delta_since(self, other: TraceRecord) -> TraceRecord:
        """What the other lacks: joined to it, it gives the join with this one. Empty where it lacks nothing. FieldInvalid: as `joined`."""
        nothing = TraceRecord(self.trace_id)
        together = other.joined(self)
        if together == other:
            return nothing
        if self.is_erased:
            return self
        versions, context = lacking_values(self.versions, self.context, other.versions, other.context, Version.order)
        states = {replica: held for replica, held in self.states.items() if together.states[replica] != other.states.get(replica)}
        return TraceRecord(self.trace_id, self.length, versions, context, states)

    def decompose(self) -> Iterator[TraceRecord]:
        """Join-irreducible parts: existence, a dot each with its version where it has one, a contribution each (an author's follow each
        other, so one is a whole). CapacityReached: more dots than causal.MAX_DOTS."""
        if self.length:
            yield TraceRecord(self.trace_id, self.length)
        for versions, context in parts_of(self.versions, self.context):
            yield TraceRecord(self.trace_id, versions=versions, context=context)
        for replica, held in self.states.items():
            yield TraceRecord(self.trace_id, states={replica: held})


def joined_all(ours: Sequence[TraceRecord], theirs: Sequence[TraceRecord]) -> list[TraceRecord]:
    """Record by record the least upper bound; contributions that stand on both sides are joined in one array operation.

    FieldInvalid: another number of records, records of two traces.
    """
    if [record.trace_id for record in ours] != [record.trace_id for record in theirs]:
        raise FieldInvalid("records of different traces are not joined: give each its own", field="trace_id")
    shared = [
        (at, replica)
        for at, (one, other) in enumerate(zip(ours, theirs, strict=True))
        for replica, held in one.states.items()
        if replica in other.states and held != other.states[replica]
    ]
    settled = _settled([ours[at].states[replica] for at, replica in shared], [theirs[at].states[replica] for at, replica in shared])
    by_record: dict[int, dict[int, Contribution]] = {}
    for (at, replica), contribution in zip(shared, settled, strict=True):
        by_record.setdefault(at, {})[replica] = contribution
    return [_joined(one, other, by_record.get(at, {})) for at, (one, other) in enumerate(zip(ours, theirs, strict=True))]


def check_states(records: Iterable[TraceRecord]) -> None:
    """FieldInvalid: a contribution of one of the records holds numbers that no trace can have."""
    decoded([held.state for record in records for held in record.states.values()])


def _settled(ours: list[Contribution], theirs: list[Contribution]) -> list[Contribution]:
    if not ours:
        return []
    sides = ((_counters(side), bodies([held.state for held in side])) for side in (ours, theirs))
    (our_counters, our_states), (their_counters, their_states) = sides
    counters, states = joined_states(our_counters, our_states, their_counters, their_states)
    return [Contribution(counter, state) for counter, state in zip(counters.tolist(), encoded(states), strict=True)]


def _counters(held: list[Contribution]) -> NDArray[np.uint64]:
    return np.array([each.counter for each in held], np.uint64)


def _joined(ours: TraceRecord, theirs: TraceRecord, settled: dict[int, Contribution]) -> TraceRecord:
    length = existence.joined(ours.length, theirs.length)
    if length == existence.REMOVED:
        return TraceRecord(ours.trace_id, length)
    versions = joined_values(ours.versions, ours.context, theirs.versions, theirs.context, Version.order)
    context = ours.context.joined(theirs.context)
    return TraceRecord(ours.trace_id, length, versions, context, {**ours.states, **theirs.states, **settled})


def digest_of(trace_id: bytes, length: int, context: bytes, dots: Iterable[Dot], counters: Iterable[tuple[int, int]]) -> bytes:
    """Digest, 16 bytes, of a record from its parts, without contents: the causal context's bytes (empty: none), the dots of its versions,
    (replica, counter) of its states; any order. A dot means one content, a counter one state: a liar's two do not show here."""
    held, given = sorted(dots), sorted(counters)
    parts = [trace_id, bytes([length]), _framed(context or CausalContext().to_bytes()), _U32.pack(len(held))]
    parts += [_PAIR.pack(*pair) for pair in (*held, *given)]
    return blake2b(b"".join(parts), digest_size=DIGEST_BYTES).digest()


def distinct(versions: Mapping[Dot, Version], content_key: Callable[[bytes, bytes], K]) -> dict[K, tuple[Dot, ...]]:
    """Dots, sorted, of the versions that say the same: those of equal content_key(content, vector)."""
    groups: dict[K, list[Dot]] = {}
    for dot in sorted(versions):
        groups.setdefault(content_key(versions[dot].content, versions[dot].vector), []).append(dot)
    return {key: tuple(dots) for key, dots in groups.items()}


def _framed(part: bytes) -> bytes:
    return _U32.pack(len(part)) + part
