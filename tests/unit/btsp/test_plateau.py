"""Calcium per stream: what makes a plateau, what never does, bounds on rate and memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp.plateau import F32, CalciumOptions, CalciumTable
from ndml.errors import EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid


def unit(seed: int, dimension: int = 32) -> F32:
    vector = np.random.default_rng(seed).normal(size=dimension)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


SAME = unit(0)


def test_calcium_adds_up_and_decays() -> None:
    table = CalciumTable()
    first = table.observe("s", SAME, 0.5, 0.5, 0.0)
    assert first.boundary and first.calcium == pytest.approx(0.4 * 0.5 + 0.3 * 0.5 + 0.3 / 3)
    second = table.observe("s", SAME, 0.0, 0.0, 10.0)
    assert not second.boundary and second.calcium == pytest.approx(first.calcium / math.e)
    assert table.observe("other", SAME, 0.0, 0.0, 10.0).calcium == pytest.approx(0.1)


def test_a_novel_salient_trace_makes_a_plateau_and_a_dull_one_does_not() -> None:
    table = CalciumTable()
    strong, dull = table.observe("s", SAME, 1.0, 1.0, 0.0), table.observe("t", SAME, 0.1, 0.1, 0.0)
    assert strong.plateau and strong.strength == 1.0 and "plateau" in strong.reason
    assert not dull.plateau and 0.25 <= dull.strength < 0.45 and "no plateau" in dull.reason


def test_a_change_of_topic_is_a_boundary() -> None:
    table, random = CalciumTable(), np.random.default_rng(1)
    for i in range(15):
        table.observe("s", SAME + 0.02 * random.normal(size=32).astype(np.float32), 0.0, 0.0, 60.0 * i)
    changed = table.observe("s", unit(99), 0.0, 0.0, 1000.0)
    assert changed.boundary and changed.surprise == 1.0
    assert changed.calcium == pytest.approx(0.3, abs=0.01)


def test_repetition_is_no_surprise() -> None:
    table = CalciumTable()
    last = [table.observe("s", SAME, 0.0, 0.0, float(i)) for i in range(50)][-1]
    assert not last.boundary and last.surprise < 1e-4


def test_an_import_does_not_write_everything_at_full_strength() -> None:
    """Twenty thousand wholly novel traces at one time: the burst, no more; later the ration of one per refill time."""
    table = CalciumTable()
    made = [table.observe("s", SAME, 1.0, 1.0, 0.0) for _ in range(20_000)]
    assert [e.plateau for e in made].count(True) == 4 and all(e.plateau for e in made[:4])
    assert made[-1].strength == 0.45 and "ration" in made[-1].reason
    hour = [table.observe("s", SAME, 1.0, 1.0, 10.0 * i).plateau for i in range(360)]
    assert hour.count(True) == 3600 // 30 - 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(-100, 100)), max_size=12))
def test_every_clock_gives_finite_calcium_and_strength(steps: list[tuple[float, float, float]]) -> None:
    table, now, previous = CalciumTable(), 0.0, 0.0
    for i, (novelty, salience, step) in enumerate(steps):
        now += step
        found = table.observe("s", unit(i), novelty, salience, now)
        assert 0 <= found.calcium <= previous + 1.0
        assert 0.25 <= found.strength <= 1.0 and found.plateau == (found.strength == 1.0)
        previous = found.calcium


def test_streams_are_bounded_and_can_be_forgotten() -> None:
    table = CalciumTable(CalciumOptions(max_streams=2))
    for name in ("a", "b", "a", "c"):
        table.observe(name, SAME, 0.5, 0.5, 0.0)
    assert len(table) == 2
    assert table.observe("b", SAME, 0.0, 0.0, 0.0).boundary  # the oldest went, and starts anew
    table.forget("b")
    assert len(table) == 1


def test_a_zero_vector_surprises_nobody() -> None:
    table, nothing = CalciumTable(), np.zeros(32, np.float32)
    for i in range(8):
        found = table.observe("s", nothing if i % 2 else SAME, 0.0, 0.0, float(i))
        assert math.isfinite(found.calcium)
    assert table.observe("zeros", nothing, 0.0, 0.0, 0.0).calcium == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("vector", "novelty", "salience", "at", "error", "match"),
    [
        (SAME, math.nan, 0.0, 1.0, FieldInvalid, "novelty"),
        (SAME, 0.0, 1.5, 1.0, FieldInvalid, "salience"),
        (SAME, 0.0, 0.0, math.nan, FieldInvalid, "at_s"),
        (SAME * np.float32("nan"), 0.0, 0.0, 1.0, EmbeddingNotFinite, "NaN"),
        (unit(1, 16), 0.0, 0.0, 1.0, EmbeddingDimensionMismatch, "16"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(
    vector: F32, novelty: float, salience: float, at: float, error: type[Exception], match: str
) -> None:
    table, twin = CalciumTable(), CalciumTable()
    for each in (table, twin):
        each.observe("s", SAME, 0.2, 0.2, 0.0)
    with pytest.raises(error, match=match):
        table.observe("s", vector, novelty, salience, at)
    assert table.observe("s", SAME, 0.1, 0.1, 2.0) == twin.observe("s", SAME, 0.1, 0.1, 2.0)


@pytest.mark.parametrize("change", [{"threshold": 0.0}, {"window_min": 30}, {"strongest": 0.1}, {"burst": 0}, {"refill_s": math.inf}])
def test_bad_options_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(FieldInvalid):
        CalciumOptions(**change)  # type: ignore[arg-type]
