"""Add-wins set without tombstones."""

from __future__ import annotations

from ndml.crdt.causal import Dot
from ndml.crdt.orset import ORSet


def test_an_add_wins_over_a_remove_that_did_not_see_it() -> None:
    start = ORSet[str]().add("x", Dot(1, 1))
    removed = start.joined(start.remove("x"))
    added = start.joined(start.add("x", Dot(2, 1)))
    assert removed.elements() == frozenset()
    assert removed.joined(added).elements() == added.joined(removed).elements() == {"x"}


def test_a_removed_element_leaves_no_tombstone_and_stays_away() -> None:
    state = start = ORSet[str]()
    for counter in range(1, 101):
        start = state = state.joined(state.add("x", Dot(1, counter)))
        state = state.joined(state.remove("x"))
    assert (state.added, len(state.context.to_bytes())) == ({}, 24)
    assert state.joined(start).elements() == frozenset()


def test_adding_again_does_not_grow() -> None:
    state = ORSet[str]()
    for counter in range(1, 50):
        state = state.joined(state.add("x", Dot(1, counter)))
    assert state.added == {Dot(1, 49): "x"}


def test_removing_what_is_not_there_says_nothing() -> None:
    assert ORSet[str]().remove("x") == ORSet()
