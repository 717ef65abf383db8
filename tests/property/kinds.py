"""Every lattice of ndml.crdt as a `schedules.Kind`: how its replicas change it, and what its updates amount to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from random import Random
from typing import Any

import numpy as np

from ndml.btsp import timescales
from ndml.btsp.record import RECORD, decoded, encoded
from ndml.crdt import existence
from ndml.crdt.blocks import LevelBlock, StateColumns, empty_columns
from ndml.crdt.causal import CausalContext, Dot
from ndml.crdt.counters import PNCounter
from ndml.crdt.orset import ORSet
from ndml.crdt.record import Contribution, TraceRecord, Version
from ndml.crdt.register import MVRegister
from tests.property.schedules import Kind

IDS = [bytes([i]) * 15 + b"\0" for i in range(3)]  # a zero at the end: numpy's strings cut it off


def born() -> np.ndarray[Any, Any]:
    """A state without an event."""
    rows = np.zeros(1, RECORD)
    rows["levels"], rows["stability"], rows["difficulty"] = -np.inf, 1.0, 5.0
    return rows


def fed(rng: Random, state: bytes | None) -> bytes:
    """An author's next state: one more event."""
    rows = born() if state is None else decoded([state]).copy()
    at = timescales.ORIGIN_S + rng.uniform(0, 1e7)
    rows["levels"] = timescales.event(rows["levels"], at, rng.uniform(0.1, 1.0))
    rows["uses"] += 1
    rows["changes"] += 1
    rows["weight"], rows["last_graded_s"] = rng.random(), at
    return encoded(rows)[0]


def alive(deltas: Iterable[tuple[Iterable[Dot], CausalContext]]) -> frozenset[Dot]:
    """Dots that were written and that no write replaced, from (dots with a value, context) of each delta."""
    written: set[Dot] = set()
    replaced: set[Dot] = set()
    for values, context in deltas:
        dots = context.beyond(CausalContext()) or frozenset()
        written |= set(values)
        replaced |= dots - set(values)
    return frozenset(written - replaced)


def dotted(values: Mapping[Dot, object], context: CausalContext) -> bytes:
    return context.to_bytes() + repr(sorted(values.items())).encode()


def some(rng: Random, values: Iterable[Any]) -> list[Any]:
    return [value for value in values if rng.random() < 0.7]


# Changes


def write_register(rng: Random, state: MVRegister[int], replica: int) -> MVRegister[int]:
    return state.write(state.context.next(replica), rng.randrange(5), some(rng, sorted(state.versions)))


def change_set(rng: Random, state: ORSet[str], replica: int) -> ORSet[str]:
    element = rng.choice("abcd")
    return state.add(element, state.context.next(replica)) if rng.random() < 0.6 else state.remove(element)


def version(rng: Random) -> Version:
    return Version(rng.randrange(1 << 60), bytes([rng.randrange(4)]), bytes([rng.randrange(2)]) * 4, rng.random(), 0.5)


def change_record(rng: Random, state: TraceRecord, replica: int) -> TraceRecord:
    chance = rng.random()
    if chance < 0.03:
        return state.erased()
    if chance < 0.3:
        held = state.states.get(replica)
        counter = held.counter + rng.randint(1, 3) if held else 1
        return state.contributed(replica, Contribution(counter, fed(rng, held.state if held else None)))
    return state.written(state.context.next(replica), version(rng), some(rng, sorted(state.versions)))


def lie(rng: Random, state: TraceRecord, replica: int) -> TraceRecord:
    """As a member may that gives dots and positions twice, replaces what it never saw and skips numbers."""
    if rng.random() < 0.3:
        rows = decoded([fed(rng, None)]).copy()
        rows["levels"][0, rng.randrange(8)] = rng.choice([-0.0, 0.0, -np.inf])
        rows["early"], rows["uses"] = rng.choice([-0.0, 0.0, 1.0]), rng.randrange(3)
        return TraceRecord(state.trace_id, rng.randrange(2), states={rng.randint(1, 2): Contribution(rng.randint(1, 2), encoded(rows)[0])})
    dots = [Dot(rng.randint(1, 3), rng.randint(1, 4)) for _ in range(rng.randint(1, 4))]
    held = {dot: replace(version(rng), salience=rng.choice([-0.0, 0.0])) for dot in some(rng, dots)}
    return TraceRecord(state.trace_id, rng.randrange(2), held, CausalContext.from_dots(dots))


def change_columns(rng: Random, state: StateColumns, replica: int) -> StateColumns:
    trace = rng.choice(IDS)
    held = {row[:2]: row[2:] for row in state.rows()}.get((trace, replica))
    return StateColumns.of([trace], [replica], [held[0] + 1 if held else 1], [fed(rng, held[1] if held else None)])


def change_levels(rng: Random, state: LevelBlock, replica: int) -> LevelBlock:
    levels = timescales.silent(1)
    trace = rng.choice(IDS)
    found, owned = state.ids == np.bytes_(trace), state.replicas == replica
    if found.any() and owned.any():
        levels = state.levels[found][:, owned].reshape(1, -1)
    levels = timescales.event(levels, timescales.ORIGIN_S + rng.uniform(0, 1e7), rng.random())
    return LevelBlock(np.array([trace], "S16"), np.array([replica], np.uint64), levels[None])


# What updates amount to


def told_record(deltas: Sequence[TraceRecord]) -> tuple[object, ...]:
    length = max((delta.length for delta in deltas), default=0)
    if length == existence.REMOVED:
        return length, frozenset(), {}
    counters: dict[int, int] = {}
    for delta in deltas:
        for replica, held in delta.states.items():
            counters[replica] = max(counters.get(replica, 0), held.counter)
    return length, alive((delta.versions, delta.context) for delta in deltas), counters


def read_record(state: TraceRecord) -> tuple[object, ...]:
    return state.length, frozenset(state.versions), {replica: held.counter for replica, held in state.states.items()}


def told_counts(deltas: Sequence[PNCounter]) -> dict[int, tuple[int, int]]:
    ups: dict[int, tuple[int, int]] = {}
    for delta in deltas:
        for replica, (up, down) in delta.counts.items():
            held = ups.get(replica, (0, 0))
            ups[replica] = max(up, held[0]), max(down, held[1])
    return ups


def told_columns(deltas: Sequence[StateColumns]) -> dict[tuple[bytes, int], tuple[int, bytes]]:
    return {row[:2]: row[2:] for delta in deltas for row in delta.rows()}


def read_columns(state: StateColumns) -> dict[tuple[bytes, int], tuple[int, bytes]]:
    return {row[:2]: row[2:] for row in state.rows()}


def level_bytes(state: LevelBlock) -> bytes:
    return b"|".join(part.tobytes() for part in (state.ids, state.replicas, state.levels))


def dots_of(state: CausalContext) -> frozenset[Dot]:
    return state.beyond(CausalContext()) or frozenset()


def union(sets: Iterable[frozenset[Dot]]) -> frozenset[Dot]:
    return reduce(frozenset.union, sets, frozenset())


CONTEXT = Kind[CausalContext](
    "context",
    CausalContext(),
    lambda rng, state, replica: CausalContext.from_dots(
        [state.next(replica), *([Dot(9, rng.randint(1, 9))] if rng.random() < 0.5 else [])]
    ),
    CausalContext.joined,
    CausalContext.to_bytes,
    lambda one, other: CausalContext.from_dots(one.beyond(other) or ()),
    lambda state: [CausalContext.from_dots([dot]) for dot in dots_of(state)],
    lambda deltas: union(map(dots_of, deltas)),
    dots_of,
)
REGISTER = Kind[MVRegister[int]](
    "register",
    MVRegister(),
    write_register,
    MVRegister.joined,
    lambda state: dotted(state.versions, state.context),
    MVRegister.delta_since,
    MVRegister.decompose,
    lambda deltas: alive((delta.versions, delta.context) for delta in deltas),
    lambda state: frozenset(state.versions),
)
SET = Kind[ORSet[str]](
    "set",
    ORSet(),
    change_set,
    ORSet.joined,
    lambda state: dotted(state.added, state.context),
    ORSet.delta_since,
    ORSet.decompose,
    lambda deltas: alive((delta.added, delta.context) for delta in deltas),
    lambda state: frozenset(state.added),
)
COUNTER = Kind[PNCounter](
    "counter",
    PNCounter(),
    lambda rng, state, replica: state.changed(replica, rng.randint(-3, 3)),
    PNCounter.joined,
    lambda state: repr(sorted(state.counts.items())).encode(),
    PNCounter.delta_since,
    PNCounter.decompose,
    told_counts,
    lambda state: dict(state.counts),
)
EXISTENCE = Kind[int](
    "existence",
    existence.UNKNOWN,
    lambda rng, state, _: existence.added(state) if rng.random() < 0.5 else existence.removed(state),
    existence.joined,
    lambda state: str(state).encode(),
    lambda one, other: one if one > other else existence.UNKNOWN,
    lambda state: [state],
    lambda deltas: max(deltas, default=0),
    lambda state: state,
)
RECORD_KIND = Kind[TraceRecord](
    "record",
    TraceRecord(IDS[0]),
    change_record,
    TraceRecord.joined,
    TraceRecord.canonical,
    TraceRecord.delta_since,
    TraceRecord.decompose,
    told_record,
    read_record,
)
LYING = replace(RECORD_KIND, name="record of liars", change=lie, told=None)
COLUMNS = Kind[StateColumns](
    "columns of states",
    empty_columns(),
    change_columns,
    StateColumns.joined,
    lambda state: b"|".join(part.tobytes() for part in (state.keys, state.counters, state.states)),
    told=told_columns,
    read=read_columns,
)
LEVELS = Kind[LevelBlock](
    "block of levels",
    LevelBlock(np.empty(0, "S16"), np.empty(0, np.uint64), np.empty((0, 0, 8))),
    change_levels,
    LevelBlock.joined,
    level_bytes,
)
KINDS: list[Kind[Any]] = [CONTEXT, REGISTER, SET, COUNTER, EXISTENCE, RECORD_KIND, LYING, COLUMNS, LEVELS]


# Joins with a mistake each, which the checker must find


def forgets_context(dots: Callable[[Any], Iterable[Dot]], join: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A join that leaves the other side's context out, but for the dots whose values it took."""

    def mutant(one: Any, other: Any) -> Any:
        whole = join(one, other)
        return replace(whole, context=one.context.with_dots(dots(whole)))

    return mutant


def keeps_every_version(one: MVRegister[int], other: MVRegister[int]) -> MVRegister[int]:
    return MVRegister({**one.versions, **other.versions}, one.context.joined(other.context))


def adds_counts(one: PNCounter, other: PNCounter) -> PNCounter:
    counts = dict(one.counts)
    for replica, (up, down) in other.counts.items():
        held = counts.get(replica, (0, 0))
        counts[replica] = held[0] + up, held[1] + down
    return PNCounter(counts)


def brings_back(one: TraceRecord, other: TraceRecord) -> TraceRecord:
    """A present copy beats an erased one."""
    if one.is_erased != other.is_erased and (one.length, other.length) != (0, 0):
        return other if one.is_erased and other.length else one
    return one.joined(other)


def takes_theirs(one: StateColumns, other: StateColumns) -> StateColumns:
    rows = [(*key, *value) for key, value in {**read_columns(one), **read_columns(other)}.items()]
    return StateColumns.of(*(list(column) for column in zip(*rows, strict=True))) if rows else one


def sums_levels(one: LevelBlock, other: LevelBlock) -> LevelBlock:
    whole = one.joined(other)
    if np.array_equal(one.ids, other.ids) and np.array_equal(one.replicas, other.replicas):
        return replace(whole, levels=np.logaddexp(one.levels, other.levels))
    return whole


def mutant(kind: Kind[Any], name: str, join: Callable[[Any, Any], Any]) -> Kind[Any]:
    return replace(kind, name=f"{kind.name}: {name}", join=join)


MUTANTS: list[Kind[Any]] = [
    mutant(REGISTER, "forgets the other context", forgets_context(lambda state: state.versions, MVRegister.joined)),
    mutant(SET, "forgets the other context", forgets_context(lambda state: state.added, ORSet.joined)),
    mutant(RECORD_KIND, "forgets the other context", forgets_context(lambda state: state.versions, TraceRecord.joined)),
    mutant(REGISTER, "keeps every version", keeps_every_version),
    mutant(REGISTER, "the last one wins", lambda one, other: other if other.versions else one),
    mutant(COUNTER, "adds what it has", adds_counts),
    mutant(EXISTENCE, "an add beats a remove", lambda one, other: max(one, other, key=lambda length: (length % 2, length))),
    mutant(RECORD_KIND, "an erased trace comes back", brings_back),
    mutant(COLUMNS, "takes theirs", takes_theirs),
    mutant(LEVELS, "adds levels up", sums_levels),
]
