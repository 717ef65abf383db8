"""PN counter: concurrent changes add up, copies of one do not."""

from __future__ import annotations

import pytest

from ndml.crdt.counters import PNCounter
from ndml.errors import FieldInvalid


def test_replicas_add_up_and_repetition_does_not() -> None:
    up, down = PNCounter().changed(1, 5), PNCounter().changed(2, -2)
    assert up.joined(down).joined(up).joined(down).value == 3


def test_changes_of_one_replica_follow_each_other() -> None:
    counter = PNCounter()
    for by in (3, -4, 0, 2):
        counter = counter.joined(counter.changed(7, by))
    assert (counter.value, counter.counts) == (1, {7: (5, 4)})


def test_a_change_by_nothing_says_nothing() -> None:
    assert PNCounter().changed(1, 0) == PNCounter()


@pytest.mark.parametrize("count", [(-1, 0), (0, -1), (0, 0)])
def test_counts_that_nobody_made(count: tuple[int, int]) -> None:
    with pytest.raises(FieldInvalid):
        PNCounter({1: count})
