"""Which of several concurrent contents of a trace is shown: a pure function of their set, in integers, the same at every replica.

Versions written without knowledge of each other stand beside each other as siblings. Oscillators and thresholds propose coalitions that
agree; the integer scorer decides: the coalition with the largest sum of scores, and the content in its middle. The result is read, never
written back: only `ResolveConflict` makes one version of several. It says who agrees, not who is right: colluding authors outvote honest
ones unless their scores carry less trust.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from ndml.crdt.oscillator import COSINE_ONE, I64, OscillatorOptions, Relax, simulate
from ndml.crdt.oscillator_native import fastest
from ndml.errors import EmbeddingNotFinite, FieldInvalid

I8 = NDArray[np.int8]

LARGEST_SCORE = 1 << 40
"""With it, sums of score times similarity over 2**14 siblings stay inside int64."""
_FULL = 127
_FRACTION_BITS = 30
PHASE_ONE = 1000
"""Phases are told in thousandths of a period."""


@dataclass(frozen=True, slots=True, eq=False)
class Sibling:
    """One of several contents: SHA-256 of its bytes, its vector by `quantised`, what speaks for it, when it was written (HLC)."""

    key: bytes
    embedding: I8
    score: int
    clock: int

    def __post_init__(self) -> None:
        if self.embedding.dtype != np.int8 or self.embedding.ndim != 1:
            raise FieldInvalid("embedding must be int8 [d]: make it by ndml.crdt.resolve.quantised", field="embedding")
        if not 0 <= self.score <= LARGEST_SCORE:
            raise FieldInvalid(f"score must be 0 to 2**40, is {self.score}: scale it down", field="score")


@dataclass(frozen=True, slots=True)
class Resolution:
    """What is shown, and why. Numbers are places in the input."""

    winner: int
    coalition: tuple[int, ...]
    """The contents that agree with the winner, some by way of others, and itself; of equal contents one."""
    support: int
    """Sum of score times similarity to the winner in 1/256, over the coalition: what one sibling alone has is 256 times its score."""
    phases: tuple[int, ...]
    """Of every input, in thousandths of a period after the winner's: 0 in step with it, 500 opposite. Empty where no oscillators ran."""
    why: str
    """For people."""


@dataclass(frozen=True, slots=True)
class ResolveOptions:
    """Bounds of the work, and the two constants of reading phases. All replicas must have the same."""

    oscillator: OscillatorOptions = field(default_factory=OscillatorOptions)
    most_cells: int = 16
    """Siblings up to which oscillators run; their work grows with the square (some 7 ms for 16), and a conflict has two or three."""
    most_judged: int = 256
    """Siblings that are looked at, the best by score and clock: more than so many concurrent edits of one trace are an attack."""
    tolerance: int = 6
    """Two cells are in step when they are less than this part of a period apart: groups of three settle a third apart."""

    def __post_init__(self) -> None:
        for name, low, high in (("most_cells", 1, 64), ("most_judged", 1, 4096), ("tolerance", 3, 64)):
            if not low <= getattr(self, name) <= high:
                raise FieldInvalid(f"{name} must be {low} to {high}, is {getattr(self, name)}", field=name)
        if self.most_judged <= self.most_cells:  # so that every sibling has a phase where any has
            raise FieldInvalid(f"most_judged must be above most_cells, {self.most_cells}", field="most_judged")


@dataclass(frozen=True, slots=True)
class Proposal:
    """Some contents of a conflict that may agree, by their ranks, and who proposes them."""

    members: tuple[int, ...]
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class Conflict:
    """The distinct contents of a sibling set in the order of their keys; `places` in the input, `sim` [n, n] in 1/256 of a cosine."""

    places: tuple[int, ...]
    keys: tuple[bytes, ...]
    scores: tuple[int, ...]
    clocks: tuple[int, ...]
    sim: I64

    @property
    def size(self) -> int:
        return len(self.places)

    def better(self, i: int) -> tuple[int, int, int]:
        """What decides between equal supports: score, clock, and of equals the smaller key."""
        return self.scores[i], self.clocks[i], -i

    def weight(self, members: Sequence[int]) -> int:
        """Sum of their scores."""
        return sum(self.scores[j] for j in members)

    def support(self, i: int, members: Sequence[int]) -> int:
        """Sum of their scores times their similarity to i."""
        return sum(self.scores[j] * int(self.sim[i, j]) for j in members)

    def medoid(self, members: Sequence[int]) -> int:
        """The member with the most support among them, of equals the better content."""
        return max(members, key=lambda i: (self.support(i, members), self.better(i)))


def resolve(siblings: Sequence[Sibling], options: ResolveOptions | None = None) -> Resolution:
    """Resolution of one sibling set. FieldInvalid where it is empty. Order and repetition of the siblings do not matter."""
    return resolve_all([siblings], options)[0]


def resolve_all(
    sets: Sequence[Sequence[Sibling]], options: ResolveOptions | None = None, relaxing: Relax | None = None
) -> list[Resolution]:
    """`resolve` of many sets, which is cheaper than one by one where `relaxing`, a port of the oscillators, works on batches."""
    options = options or ResolveOptions()
    conflicts = [conflict_of(siblings, options) for siblings in sets]
    phases: list[tuple[I64, int] | None] = [None] * len(conflicts)
    for size in sorted({conflict.size for conflict in conflicts if 1 < conflict.size <= options.most_cells}):
        alike = [at for at, conflict in enumerate(conflicts) if conflict.size == size]
        found, periods = simulate(np.stack([conflicts[at].sim for at in alike]), options.oscillator, relaxing or fastest())
        for at, phase, period in zip(alike, found, periods.tolist(), strict=True):
            phases[at] = (phase, period) if period else None
    return [_judged(*each, options) for each in zip(sets, conflicts, phases, strict=True)]


def quantised(vector: bytes) -> I8:
    """A stored vector, float32 little-endian, as int8 [d] with 127 for the largest component; halves round away from 0.

    The floats are only scaled by a power of two, which is exact; the rounding is integers', so it is the same on every machine.
    EmbeddingNotFinite for NaN and infinity, FieldInvalid for bytes that are no float32 values.
    """
    if len(vector) % 4:
        raise FieldInvalid(f"a vector is float32 values, 4 bytes each; these are {len(vector)} bytes", field="vector")
    values = np.frombuffer(vector, "<f4").astype(np.float64)
    if not np.isfinite(values).all():
        raise EmbeddingNotFinite("the vector has NaN or infinity in it: embed the text again", field="vector")
    largest = np.abs(values).max(initial=0.0)
    if largest == 0.0:
        return np.zeros(len(values), np.int8)
    exponent = int(np.frexp(largest)[1])
    whole = np.ldexp(values, _FRACTION_BITS - exponent).astype(np.int64)  # below 2**30 in size
    most = int(np.abs(whole).max())
    sizes = (2 * _FULL * np.abs(whole) + most) // (2 * most)
    found: I8 = (np.sign(whole) * sizes).astype(np.int8)
    return found


def conflict_of(siblings: Sequence[Sibling], options: ResolveOptions) -> Conflict:
    """One entry a content, its best by score and clock; the best `most_judged` contents, in the order of their keys."""
    if not siblings:
        raise FieldInvalid("there is nothing to choose from: give at least one sibling", field="siblings")
    best: dict[bytes, int] = {}
    for place, sibling in enumerate(siblings):
        held = best.get(sibling.key)
        if held is None or _evidence(sibling) > _evidence(siblings[held]):
            best[sibling.key] = place
    ranked = sorted(best)
    ranked.sort(key=lambda key: (siblings[best[key]].score, siblings[best[key]].clock), reverse=True)  # stable: smaller keys first
    keys = sorted(ranked[: options.most_judged])
    kept = [siblings[best[key]] for key in keys]
    return Conflict(
        places=tuple(best[key] for key in keys),
        keys=tuple(keys),
        scores=tuple(each.score for each in kept),
        clocks=tuple(each.clock for each in kept),
        sim=similarities([each.embedding for each in kept]),
    )


def similarities(embeddings: Sequence[I8]) -> I64:
    """Cosines [n, n] in 1/256, floored. Vectors of different length, and vectors of zeros, are alike to themselves alone."""
    n = len(embeddings)
    found = np.zeros((n, n), np.int64)
    for width in sorted({len(each) for each in embeddings}):
        same = [i for i, each in enumerate(embeddings) if len(each) == width]
        rows = np.stack([embeddings[i] for i in same]).astype(np.int64)
        found[np.ix_(same, same)] = _cosines(rows @ rows.T)
    np.fill_diagonal(found, COSINE_ONE)
    return found


def _cosines(products: I64) -> I64:
    squares = [int(square) for square in np.diag(products)]
    lengths = [[max(1, isqrt(a * b)) for b in squares] for a in squares]
    cosines: I64 = np.clip(products * COSINE_ONE // np.array(lengths, np.int64), -COSINE_ONE, COSINE_ONE)
    return cosines


def in_step(phases: I64, period: int, sim: I64, options: ResolveOptions) -> Iterator[Proposal]:
    """For each cell those near it in phase whose content agrees: a third group can have the phase of another, there are only so many."""
    reach = period // options.tolerance
    for i, own in enumerate(phases.tolist()):
        apart = (phases - own) % period
        near = (np.minimum(apart, period - apart) <= reach) & (sim[i] >= options.oscillator.threshold)
        near[i] = True
        yield Proposal(tuple(np.flatnonzero(near).tolist()), "in step")


def components(sim: I64, options: ResolveOptions) -> Iterator[Proposal]:
    """Contents that a chain of agreeing pairs connects."""
    agree = sim >= options.oscillator.threshold
    left = set(range(len(sim)))
    while left:
        reached, edge = set[int](), {min(left)}
        while edge:
            reached |= edge
            edge = set(np.flatnonzero(agree[sorted(edge)].any(axis=0)).tolist()) - reached
        left -= reached
        yield Proposal(tuple(sorted(reached)), "alike")


def decide(conflict: Conflict, proposals: Sequence[Proposal]) -> tuple[int, Proposal]:
    """(rank, proposal): the proposal with the largest sum of scores, then the larger, that of the better content, the earlier one; and its
    weighted medoid. Coalitions in step lie within components, so they win where they are whole ones."""

    def strength(proposal: Proposal) -> tuple[int, int, tuple[int, int, int]]:
        members = proposal.members
        return conflict.weight(members), len(members), max(conflict.better(i) for i in members)

    chosen = max(proposals, key=strength)  # of equals the first
    return conflict.medoid(chosen.members), chosen


def _judged(siblings: Sequence[Sibling], conflict: Conflict, phases: tuple[I64, int] | None, options: ResolveOptions) -> Resolution:
    if conflict.size == 1:
        return Resolution(conflict.places[0], conflict.places, conflict.scores[0] * COSINE_ONE, (), "the only content")
    proposals = [*(in_step(*phases, conflict.sim, options) if phases else ()), *components(conflict.sim, options)]
    rank, chosen = decide(conflict, proposals)
    return Resolution(
        winner=conflict.places[rank],
        coalition=tuple(sorted(conflict.places[i] for i in chosen.members)),
        support=conflict.support(rank, chosen.members),
        phases=_told(siblings, conflict, rank, *phases) if phases else (),
        why=_reason(chosen, proposals, conflict.size),
    )


def _told(siblings: Sequence[Sibling], conflict: Conflict, winner: int, phases: I64, period: int) -> tuple[int, ...]:
    ahead = (phases[winner] - phases) % period * PHASE_ONE // period
    of = dict(zip(conflict.keys, ahead.tolist(), strict=True))
    return tuple(of[sibling.key] for sibling in siblings)


def _reason(chosen: Proposal, proposals: Sequence[Proposal], size: int) -> str:
    if len(chosen.members) > 1:
        return f"{len(chosen.members)} of {size} agree, {chosen.source}"
    agreed = any(len(each.members) > 1 for each in proposals)
    return f"one of {size}, stronger than those that agree" if agreed else f"the strongest of {size}; no two agree"


def _evidence(sibling: Sibling) -> tuple[int, int, bytes]:
    """Of equal contents the one with the most evidence counts; the vector's bytes make the order total."""
    return sibling.score, sibling.clock, sibling.embedding.tobytes()
