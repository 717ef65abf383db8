"""Causal contexts against plain sets of dots; their bytes against hostile ones."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.crdt.causal import MAX_DOTS, MAX_ENTRIES, NUMBER_LIMIT, CausalContext, Dot, lacking_values, parts_of
from ndml.errors import CapacityReached, FieldInvalid

DOTS = st.frozensets(st.builds(Dot, st.integers(1, 4), st.integers(1, 6)), max_size=16)


@given(ours=DOTS, theirs=DOTS)
@settings(max_examples=200, deadline=None)
def test_it_is_a_set_of_dots(ours: frozenset[Dot], theirs: frozenset[Dot]) -> None:
    one, other = CausalContext.from_dots(ours), CausalContext.from_dots(theirs)
    everything = {Dot(replica, counter) for replica in range(1, 5) for counter in range(1, 8)}
    assert {dot for dot in everything if one.covers(dot)} == ours
    assert one.joined(other) == CausalContext.from_dots(ours | theirs) == one.with_dots(theirs)
    assert one.beyond(other) == ours - theirs
    assert one.next(2) == Dot(2, 1 + max((dot.counter for dot in ours if dot.replica == 2), default=0))
    assert CausalContext.from_bytes(one.to_bytes()) == one
    assert (one.to_bytes() == other.to_bytes()) == (ours == theirs)


@given(ours=DOTS)
def test_it_is_compact(ours: frozenset[Dot]) -> None:
    context = CausalContext.from_dots(ours)
    assert not any(dot.counter <= context.vector.get(dot.replica, 0) + 1 for dot in context.cloud)
    assert sum(context.vector.values()) + len(context.cloud) == len(ours)


@given(data=st.binary(max_size=120))
@settings(max_examples=300, deadline=None)
def test_hostile_bytes_are_refused_or_canonical(data: bytes) -> None:
    try:
        found = CausalContext.from_bytes(data, "update.context")
    except FieldInvalid as refused:
        assert refused.violations[0].field == "update.context"
    else:
        assert found.to_bytes() == data


PAIR = struct.Struct("<QQ").pack


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack("<II", 1, 0),
        struct.pack("<II", 2, 0) + PAIR(2, 1) + PAIR(1, 1),
        struct.pack("<II", 2, 0) + PAIR(1, 1) + PAIR(1, 2),
        struct.pack("<II", 1, 1) + PAIR(1, 1) + PAIR(1, 2),
        struct.pack("<II", 1, 0) + PAIR(0, 1),
        struct.pack("<II", 1, 0) + PAIR(1, 0),
        struct.pack("<II", 1, 0) + PAIR(1, NUMBER_LIMIT),
        struct.pack("<II", 1, 0) + PAIR(1, 1) + b"\0",
        struct.pack("<II", MAX_ENTRIES + 1, 0) + b"".join(PAIR(i + 1, 1) for i in range(MAX_ENTRIES + 1)),
    ],
    ids=["empty", "cut", "unsorted", "twice", "not compact", "replica 0", "counter 0", "too large", "too long", "too many"],
)
def test_bytes_that_no_context_has(data: bytes) -> None:
    with pytest.raises(FieldInvalid):
        CausalContext.from_bytes(data)


def test_a_liars_numbers_cost_no_time() -> None:
    endless = CausalContext({1: NUMBER_LIMIT - 1})
    assert endless.beyond(CausalContext()) is None
    assert CausalContext({1: MAX_DOTS}).beyond(CausalContext()) is not None
    assert lacking_values({}, endless, {}, CausalContext(), str) == ({}, endless)
    with pytest.raises(CapacityReached):
        endless.next(1)
    with pytest.raises(CapacityReached):
        list(parts_of({}, endless))
