"""Causal length."""

from __future__ import annotations

from ndml.crdt import existence


def test_steps() -> None:
    assert [existence.present(length) for length in range(5)] == [False, True, False, True, False]
    assert [existence.added(length) for length in range(5)] == [1, 1, 3, 3, 5]
    assert [existence.removed(length) for length in range(5)] == [2, 2, 2, 4, 4]


def test_a_removal_that_comes_before_the_making_holds() -> None:
    removed = existence.removed(existence.UNKNOWN)
    assert not existence.present(existence.joined(removed, existence.PRESENT))
