"""Laws of every lattice, and their replicas under 1,000 schedules with loss, repetition, reordering and partitions (AT-5a)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.kinds import KINDS, LYING, MUTANTS, RECORD_KIND
from tests.property.schedules import Kind, broken_laws, faults, first_faults, reached, run

SCHEDULES = 1000
MOVES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1 << 16), st.integers(0, 4)), max_size=12)


def named(kind: Kind[Any]) -> str:
    return kind.name


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_replicas_agree_after_any_schedule(kind: Kind[Any]) -> None:
    assert list(first_faults(kind, range(SCHEDULES))) == []


@pytest.mark.parametrize("kind", KINDS, ids=named)
@given(moves=MOVES)
@settings(max_examples=40, deadline=None)
def test_laws_hold(kind: Kind[Any], moves: list[tuple[int, int, int]]) -> None:
    assert broken_laws(kind, *reached(kind, moves)) == []


@pytest.mark.parametrize("kind", MUTANTS, ids=named)
def test_the_checker_finds_a_broken_join(kind: Kind[Any]) -> None:
    assert next(first_faults(kind, range(50)), None) is not None


def test_equal_records_have_equal_digests() -> None:
    for seed in range(200):
        assert len({state.digest() for state in run(RECORD_KIND, seed).states}) == 1


def test_a_schedule_is_its_seed() -> None:
    first, again = run(LYING, 7), run(LYING, 7)
    assert [state.canonical() for state in first.states] == [state.canonical() for state in again.states]
    assert faults(LYING, 7) == []
