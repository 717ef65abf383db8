"""Heads: over a gap never, over what came too early as soon as the gap is filled; bounded."""

from __future__ import annotations

from random import Random

from ndml.internal.v1 import replication_pb2 as rpb
from services.memory_node.gaps import Gaps, Span
from services.memory_node.positions import advanced
from services.memory_node.records import Owner

OWNER = Owner("t", "u")
AUTHOR, SELF = 7, 1


def update(previous: int, counter: int) -> rpb.OwnerUpdate:
    return rpb.OwnerUpdate(replica=AUTHOR, previous=previous, counter=counter)


def test_any_order_of_an_authors_updates_ends_at_the_last_and_never_jumps() -> None:
    chain = [(0, 3), (3, 4), (4, 9), (9, 12), (12, 13)]
    for seed in range(200):
        order = Random(seed).sample(chain, len(chain))
        gaps, known, arrived = Gaps(), {}, set()
        for previous, counter in order:
            grown, waiting = advanced(known, [update(previous, counter)], [], SELF, lambda replica: gaps.of(OWNER, replica))  # noqa: B023
            arrived.add((previous, counter))
            gaps.note(OWNER, waiting)
            known |= grown
            for replica, head in grown.items():
                gaps.passed(OWNER, replica, head)
            reached = 0
            while step := next((after for before, after in arrived if before == reached), 0):
                reached = step
            assert known.get(AUTHOR, 0) == reached, f"seed {seed}"
        assert known == {AUTHOR: 13} and not gaps.of(OWNER, AUTHOR)


def test_a_reconciliation_fills_a_gap_and_an_own_position_is_no_head() -> None:
    grown, waiting = advanced({}, [update(5, 8)], [], SELF, lambda replica: [])
    assert not grown and waiting == [Span(AUTHOR, 5, 8)]
    heads = [rpb.Head(replica=AUTHOR, counter=5), rpb.Head(replica=SELF, counter=4)]
    assert advanced({}, [], heads, SELF, lambda replica: waiting if replica == AUTHOR else []).grown == {AUTHOR: 8}


def test_what_waits_is_bounded_and_goes_with_its_owner() -> None:
    gaps = Gaps()
    gaps.note(OWNER, [Span(AUTHOR, i, i + 1) for i in range(1, 1000)])
    assert 0 < len(gaps.of(OWNER, AUTHOR)) < 999
    gaps.forget(OWNER)
    assert not gaps.of(OWNER, AUTHOR)
