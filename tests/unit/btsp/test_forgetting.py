"""Forgetting: who goes first, the same on every node, and never a protected trace."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp.forgetting import ForgettingOptions, WaterMarks, choose, pressure, ranks, tie_keys
from ndml.errors import FieldInvalid

KEYS = tie_keys([i.to_bytes(16, "big") for i in range(8)])
ALL_FREE = np.zeros(8, bool)


def test_salience_leads() -> None:
    salience = np.arange(8.0)
    favoured = np.linspace(1, 0, 8)  # the least salient are the most used, yet go first only among neighbours in rank
    out = choose(pressure(salience, strength=0.1 * favoured), 3, ALL_FREE, KEYS)
    assert out.tolist() == [0, 1, 2]


def test_strength_and_capture_keep_what_is_as_salient() -> None:
    same = np.full(8, 2.0)
    strength, z = np.zeros(8), np.zeros(8)
    strength[3], z[5] = 0.9, 0.9
    assert set(choose(pressure(same, strength=strength, z=z), 6, ALL_FREE, KEYS).tolist()) == {0, 1, 2, 4, 6, 7}


def test_only_near_duplicates_are_redundant() -> None:
    same = np.full(8, 2.0)
    near = np.array([0.1, 0.89, 0.2, 0.97, 0.3, 0.4, 0.97, 0.5])
    assert set(choose(pressure(same, redundancy=near), 2, ALL_FREE, KEYS).tolist()) == {3, 6}
    assert (pressure(same, redundancy=near)[[0, 1, 2, 4, 5, 7]] == pressure(same)[0]).all()


def test_recency_counts_only_where_it_is_switched_on() -> None:
    same, turns = np.full(8, 2.0), np.arange(8.0)
    assert (pressure(same, turns_since=turns) == pressure(same)).all()
    on = ForgettingOptions(recency=0.3)
    assert choose(pressure(same, turns_since=turns, options=on), 2, ALL_FREE, KEYS).tolist() == [7, 6]


def test_protected_rows_stay_though_nothing_else_is_left() -> None:
    protected = np.array([True] * 6 + [False] * 2)
    assert sorted(choose(pressure(np.zeros(8)), 5, protected, KEYS).tolist()) == [6, 7]
    assert choose(pressure(np.zeros(8)), 0, ALL_FREE, KEYS).size == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=30), st.integers(0, 30), st.randoms())
def test_the_choice_is_of_traces_not_of_their_order(rows: list[tuple[int, bool]], count: int, random) -> None:  # type: ignore[no-untyped-def]
    """Many ties: salience takes four values. The definition is a sort of the unprotected by (-pressure, key)."""
    ids = [bytes([i]) * 16 for i in range(len(rows))]

    def chosen(order: list[int]) -> list[bytes]:
        salience = np.array([float(rows[i][0]) for i in order])
        protected = np.array([rows[i][1] for i in order])
        keys = tie_keys([ids[i] for i in order])
        return [ids[order[row]] for row in choose(pressure(salience), count, protected, keys)]

    shuffled = list(range(len(rows)))
    random.shuffle(shuffled)
    result = chosen(list(range(len(rows))))
    assert chosen(shuffled) == result
    salience = pressure(np.array([float(row[0]) for row in rows]))
    keys = tie_keys(ids)
    free = sorted((i for i, row in enumerate(rows) if not row[1]), key=lambda i: (-salience[i], keys[i]))
    assert result == [ids[i] for i in free[:count]]


def test_equal_values_have_equal_ranks() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == pytest.approx([2 / 3, 0, 2 / 3, 1 / 3])
    assert ranks(np.array([5.0])).tolist() == [0.0]
    assert ranks(np.array([])).size == 0


def test_eviction_starts_at_the_high_mark_and_ends_at_the_low() -> None:
    marks = WaterMarks(1000)
    assert [marks.excess(n) for n in (0, 999, 1000, 1001, 1500)] == [0, 0, 0, 101, 600]
    assert WaterMarks(10, high=0.8, low=0.5).excess(9) == 4
    assert WaterMarks(1, low=0.9).excess(2) == 2


@pytest.mark.parametrize("wrong", [{"capacity": 0}, {"capacity": 9, "low": 0.0}, {"capacity": 9, "low": 0.9, "high": 0.8}])
def test_water_marks_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(FieldInvalid):
        WaterMarks(**wrong)  # type: ignore[arg-type]


def test_bad_columns_are_refused_by_name() -> None:
    with pytest.raises(FieldInvalid, match="strength"):
        pressure(np.zeros(3), strength=np.zeros(2))
    with pytest.raises(FieldInvalid, match="salience"):
        pressure(np.array([1.0, np.nan]))
    with pytest.raises(FieldInvalid, match="weights must"):
        ForgettingOptions(salience=-1.0)
