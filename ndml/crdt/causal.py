"""Dots, sets of dots, and the join of dotted values.

A dot names one write: the replica that made it and its number there. A causal context is the set of the dots that a state knows of. A
value whose dot the other side knows of and no longer holds was replaced there: that is all a removal leaves behind, so there are no
tombstones. Dots of one replica have no gaps at the replica itself; the vector holds what is known without a gap, the cloud the rest.

Sources: P. Almeida, A. Shoker, C. Baquero, "Delta state replicated data types", JPDC 111:162 (2018); V. Enes et al., "Efficient
synchronization of state-based CRDTs", ICDE 2019 (join decompositions).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, NamedTuple, Self, TypeVar

from ndml.errors import CapacityReached, FieldInvalid

NUMBER_LIMIT = 1 << 63
"""Replicas and counters are 1 .. NUMBER_LIMIT - 1: SQLite's integers have a sign, and its 0 stands for the store itself."""

MAX_ENTRIES = 4096
"""Replicas, or dots of the cloud, that one context may bring from outside: 64 KiB each. A trace is written by the 1 to 7 copies of its
owner; a new replica number comes with a wiped or restored store."""

MAX_DOTS = 65_536
"""Dots that are spelled out one by one, for a delta or a decomposition. A trace is rewritten some dozen times."""

_COUNTS = Struct("<II")
_PAIR = Struct("<QQ")
V = TypeVar("V")


class Dot(NamedTuple):
    """One write: `counter` is its number, from 1, among those of `replica` to the same trace."""

    replica: int
    counter: int


@dataclass(frozen=True, slots=True)
class CausalContext:
    """A set of dots. `vector`: replica -> all dots up to this one are in. `cloud`: dots beyond a gap. Always compact, never changed."""

    vector: Mapping[int, int] = field(default_factory=dict)
    cloud: frozenset[Dot] = frozenset()

    def __post_init__(self) -> None:
        if self.cloud or 0 in self.vector.values():
            vector, cloud = _compacted(self.vector, self.cloud)
            object.__setattr__(self, "vector", vector)
            object.__setattr__(self, "cloud", cloud)

    @classmethod
    def from_dots(cls, dots: Iterable[Dot]) -> Self:
        """The context of exactly these dots."""
        return cls({}, frozenset(dots))

    def covers(self, dot: Dot) -> bool:
        """Whether the dot is in the set."""
        return dot.counter <= self.vector.get(dot.replica, 0) or dot in self.cloud

    def next(self, replica: int) -> Dot:
        """The dot of the replica's next write. CapacityReached: it has no number left (a liar gave away the largest)."""
        known = max((dot.counter for dot in self.cloud if dot.replica == replica), default=0)
        dot = Dot(replica, 1 + max(known, self.vector.get(replica, 0)))
        if dot.counter >= NUMBER_LIMIT:
            raise CapacityReached(f"replica {replica} has used every counter of this trace: write a new trace instead of changing it")
        return dot

    def joined(self, other: CausalContext) -> CausalContext:
        """The union."""
        vector = dict(self.vector)
        for replica, counter in other.vector.items():
            if counter > vector.get(replica, 0):
                vector[replica] = counter
        return CausalContext(vector, self.cloud | other.cloud)

    def with_dots(self, dots: Iterable[Dot]) -> CausalContext:
        """The union with some dots."""
        return CausalContext(self.vector, self.cloud | frozenset(dots))

    def beyond(self, other: CausalContext, limit: int = MAX_DOTS) -> frozenset[Dot] | None:
        """Dots of this set that the other has not. None: there may be more than `limit`, so they are not spelled out."""
        gaps = [(replica, other.vector.get(replica, 0), counter) for replica, counter in self.vector.items()]
        if sum(max(high - low, 0) for _, low, high in gaps) + len(self.cloud) > limit:
            return None
        ranged = (Dot(replica, counter) for replica, low, high in gaps for counter in range(low + 1, high + 1))
        return frozenset(dot for dots in (ranged, self.cloud) for dot in dots if not other.covers(dot))

    def to_bytes(self) -> bytes:
        """Canonical: equal sets, and only those, have equal bytes. Two 32-bit counts, then (replica, counter) 64 bits each, sorted."""
        pairs = (*sorted(self.vector.items()), *sorted(self.cloud))
        return _COUNTS.pack(len(self.vector), len(self.cloud)) + b"".join(_PAIR.pack(*pair) for pair in pairs)

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "context") -> CausalContext:
        """What `to_bytes` gave. FieldInvalid (`name`): anything else, more than MAX_ENTRIES, or numbers out of range."""
        if len(data) < _COUNTS.size:
            raise _unreadable(name, f"{len(data)} bytes")
        replicas, dots = _COUNTS.unpack_from(data)
        if max(replicas, dots) > MAX_ENTRIES or len(data) != _COUNTS.size + (replicas + dots) * _PAIR.size:
            raise _unreadable(name, f"{len(data)} bytes for {replicas} replicas and {dots} dots, at most {MAX_ENTRIES} each")
        pairs = list(_PAIR.iter_unpack(data[_COUNTS.size :]))
        if not all(0 < replica < NUMBER_LIMIT and 0 < counter < NUMBER_LIMIT for replica, counter in pairs):
            raise _unreadable(name, "a replica or a counter that is not from 1 to 2^63 - 1")
        found = cls(dict(pairs[:replicas]), frozenset(Dot(*pair) for pair in pairs[replicas:]))
        if found.to_bytes() != data:
            raise _unreadable(name, "entries that are not sorted, stand twice or are not compact")
        return found


def _compacted(vector: Mapping[int, int], cloud: Iterable[Dot]) -> tuple[dict[int, int], frozenset[Dot]]:
    reached = {replica: counter for replica, counter in vector.items() if counter > 0}
    left = set()
    for dot in sorted(cloud):
        known = reached.get(dot.replica, 0)
        if dot.counter == known + 1:
            reached[dot.replica] = dot.counter
        elif dot.counter > known:
            left.add(dot)
    return reached, frozenset(left)


def _unreadable(name: str, what: str) -> FieldInvalid:
    return FieldInvalid(f"{name} has {what}: send it as CausalContext.to_bytes wrote it", field=name)


# Values with dots, as register, set and record hold them. A dot that stands on both sides with two values (its author lied, or gave a dot
# twice) keeps the larger by `order`: without that the join would depend on which side is asked.


def joined_values(
    ours: Mapping[Dot, V], our_context: CausalContext, theirs: Mapping[Dot, V], their_context: CausalContext, order: Callable[[V], Any]
) -> dict[Dot, V]:
    """The values that both sides hold, or that one holds and the other has never heard of."""
    kept = {}
    for dot, value in ours.items():
        if dot in theirs:
            kept[dot] = larger(value, theirs[dot], order)
        elif not their_context.covers(dot):
            kept[dot] = value
    for dot, value in theirs.items():
        if dot not in ours and not our_context.covers(dot):
            kept[dot] = value
    return kept


def larger(one: V, other: V, order: Callable[[V], Any]) -> V:
    """The larger of two values of one dot."""
    return one if one == other else max(one, other, key=order)


def lacking_values(
    ours: Mapping[Dot, V], our_context: CausalContext, theirs: Mapping[Dot, V], their_context: CausalContext, order: Callable[[V], Any]
) -> tuple[dict[Dot, V], CausalContext]:
    """The smallest (values, context) that brings (theirs, their_context) up to the join with ours; all of ours where the dots are too many
    to be spelled out."""
    unseen = our_context.beyond(their_context)
    if unseen is None:
        return dict(ours), our_context
    values = {dot: value for dot, value in ours.items() if not their_context.covers(dot)}
    for dot in ours.keys() & theirs.keys():
        if larger(ours[dot], theirs[dot], order) != theirs[dot]:
            values[dot] = ours[dot]
    replaced = {dot for dot in theirs if dot not in ours and our_context.covers(dot)}
    return values, CausalContext.from_dots({*unseen, *replaced, *values})


def parts_of(values: Mapping[Dot, V], context: CausalContext) -> Iterator[tuple[dict[Dot, V], CausalContext]]:
    """Join-irreducible parts: a dot each, with its value where it has one. CapacityReached: more than MAX_DOTS."""
    dots = context.beyond(CausalContext())
    if dots is None:
        raise CapacityReached(f"a context of more than {MAX_DOTS} dots is not taken apart: send the whole state")
    for dot in sorted(dots):
        yield ({dot: values[dot]} if dot in values else {}), CausalContext.from_dots((dot,))
