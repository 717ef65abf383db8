"""The block of all traces' states: agrees with the cores it stands on, bytes, joins, bounds, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp import capture, credit, stability, timescales
from ndml.btsp.options import seed_options
from ndml.btsp.record import RECORD, RECORD_BYTES
from ndml.btsp.state import Dynamics, Readout, StateBlock, StateOptions, TraceFlag
from ndml.errors import FieldInvalid

START_S = timescales.ORIGIN_S + 2e7
DAY_S = 86400.0
grade_lists = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([-1.0, -0.3, 0.0, 0.5, 1.0]), st.floats(0, 40 * DAY_S)), min_size=1, max_size=8
)


def block(count: int = 4, strength: float = 0.3) -> StateBlock:
    made = StateBlock()
    made.append(np.linspace(0.1, 0.9, count), strength, START_S)
    return made


def same(one: StateBlock, other: StateBlock) -> bool:
    rows = range(len(one))
    return len(one) == len(other) and one.pack(rows) == other.pack(rows)


def test_a_trace_costs_less_than_160_bytes() -> None:
    made = block(5000)
    for _ in range(200):
        made.append(np.full(64, 0.5), 0.3, START_S)
    assert len(made) == 17_800
    assert made.nbytes / len(made) <= 160
    assert RECORD_BYTES == RECORD.itemsize + 1 <= 160


def test_strength_is_what_the_docstring_says() -> None:
    made = block(3)
    made.grade([1], 1.0, START_S + 1000)
    made.credit([1, 2], [1.0, -1.0])
    now = START_S + 5 * DAY_S
    for exponent in (0.15, 0.3, 0.5):
        level = timescales.base_level(np.array(made.column("levels")), now, exponent)
        x = level * (1 + made.captured([0, 1, 2], now)) * np.array(made.column("weight")) / 0.5
        expected = x / (x + DAY_S**-exponent)
        np.testing.assert_allclose(made.strength([0, 1, 2], now, exponent), expected, rtol=2e-5)
    graded, kept, punished = made.strength([1, 0, 2], now)
    assert graded > kept > punished


def test_one_use_a_day_ago_stands_in_the_middle() -> None:
    made = StateBlock(Dynamics(state=StateOptions(weakest_gain=1.0)))
    made.append(0.5, 0.3, START_S)
    for exponent in (0.15, 0.5):
        assert made.strength([0], START_S + DAY_S, exponent)[0] == pytest.approx(0.5, abs=0.02)


@settings(max_examples=40, deadline=None)
@given(grade_lists)
def test_grading_follows_the_cores(history: list[tuple[int, float, float]]) -> None:
    """Row by row against scalar use of timescales and stability; times in any order, rows many times."""
    made = block(4)
    s, d = stability.encoded(np.full(4, 0.3))
    last, levels = np.full(4, START_S), timescales.event(timescales.silent(4), START_S, 0.5 + 0.5 * 0.3)
    for row, grade, offset in history:
        at = START_S + offset
        made.grade([row], grade, at)
        if grade:
            here = slice(row, row + 1)
            s[here], d[here] = stability.graded(s[here], d[here], [grade], (at - last[here]) / DAY_S)
            last[row] = max(last[row], at)
            levels[here] = timescales.event(levels[here], at, max(grade, 0.0))
    np.testing.assert_allclose(made.column("stability"), s, rtol=1e-5)
    np.testing.assert_allclose(made.column("difficulty"), d, rtol=1e-5)
    np.testing.assert_array_equal(made.column("last_graded_s"), last)
    np.testing.assert_allclose(made.column("levels"), levels)
    counts = [sum(1 for r, g, _ in history if r == row and g) for row in range(4)]
    assert made.column("uses").tolist() == counts
    assert (made.column("successes") + made.column("failures")).tolist() == counts


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([-1.0, 0.4, 1.0])), min_size=1, max_size=12))
def test_a_row_that_stands_twice_counts_twice(history: list[tuple[int, float]]) -> None:
    together, apart = block(), block()
    rows, grades = (list(column) for column in zip(*history, strict=True))
    together.grade(rows, grades, START_S + 3600)
    together.credit(rows, grades)
    for row, grade in history:
        apart.grade([row], grade, START_S + 3600)
    for row, grade in history:
        apart.credit([row], grade)
    assert same(together, apart)


def test_a_thousand_identical_grades_in_one_call() -> None:
    made = block(2)
    made.grade(np.zeros(1000, int), 1.0, START_S)
    made.grade(np.ones(1000, int), -1.0, START_S)
    assert made.column("successes").tolist() == [1000, 0] and made.column("failures").tolist() == [0, 1000]
    found = [made.readout(row, START_S + 60) for row in (0, 1)]
    assert found[0].strength > 0.99 > found[1].strength
    assert all(math.isfinite(value) for each in found for value in (each.stability_days, each.difficulty, each.tag, each.captured))
    assert 1 <= found[1].difficulty <= 10 and found[1].tag > -1.0 - 1e-6


def test_a_weak_trace_near_a_strong_one_is_kept() -> None:
    """AT-2d in place: one hour before a plateau .12, days after one 0, alone nothing; a strong event outside of the block counts too."""
    alone, beside = StateBlock(), StateBlock()
    for made in (alone, beside):
        made.append([0.5, 0.5], 0.45, [START_S, START_S + 5 * DAY_S])
    beside.append(0.9, 1.0, START_S + 3600)
    later = START_S + 6 * DAY_S
    assert alone.captured([0, 1], later).tolist() == [0.0, 0.0]
    near, far, strong = beside.captured([0, 1, 2], later)
    assert near == pytest.approx(0.12, abs=1e-3) and far < 1e-3 and strong == pytest.approx(0.698, abs=1e-3)
    alone.capture(START_S + 3600)
    assert alone.captured([0], later)[0] == pytest.approx(near)
    assert beside.strength([0], later)[0] > block(1, 0.45).strength([0], later)[0]


def test_more_plateaus_than_windows_settle_on_the_way() -> None:
    """Bounded memory of protein gives the same late phases as an unbounded one."""
    small, large = (StateBlock(Dynamics(capture=capture.CaptureOptions(max_windows=windows))) for windows in (2, 200))
    for made in (small, large):
        for i in range(60):
            made.append([0.5, 0.5], [0.4, 1.0], START_S + i * 0.3 * DAY_S)
    now = START_S + 40 * DAY_S
    np.testing.assert_allclose(small.captured(slice(None), now), large.captured(slice(None), now), atol=1e-5)
    assert large.captured(slice(None), now).min() > 0.1


@settings(max_examples=25, deadline=None)
@given(grade_lists)
def test_bytes_bring_a_block_back(history: list[tuple[int, float, float]]) -> None:
    made = block()
    for row, grade, offset in history:
        made.grade([row], grade, START_S + offset)
    made.set_flag([1], TraceFlag.PROTECTED, True)
    made.set_lifecycle([2], 3)
    copy = StateBlock(protein=capture.Protein.unpack(made.protein.pack()))
    assert copy.extend_packed(made.pack(range(4))) == 0
    assert same(made, copy) and {len(record) for record in made.pack([0, 1])} == {RECORD_BYTES}
    now = START_S + 50 * DAY_S
    assert (copy.strength([3, 0], now) == made.strength([3, 0], now)).all()


@settings(max_examples=40, deadline=None)
@given(grade_lists, st.permutations([0, 1, 2, 3]))
def test_merge_is_a_join(history: list[tuple[int, float, float]], order: list[int]) -> None:
    """Four snapshots of one writer, merged in any order and repetition, give its last state."""
    made, copies = block(), []
    for i in range(4):
        for row, grade, offset in history[i::4]:
            made.grade([row], grade, START_S + offset)
        made.credit([i, 0], [0.5, -0.5])
        made.set_flag([i % 2], TraceFlag.PROTECTED, i < 2)
        copies.append(made.pack(range(4)))
    shuffled = StateBlock()
    shuffled.extend_packed(copies[order[0]])
    for i in [*order, *order, order[1]]:
        shuffled.merge(range(4), copies[i])
    assert same(shuffled, made)


@settings(max_examples=30, deadline=None)
@given(grade_lists, grade_lists)
def test_two_writers_copies_join_to_the_same_in_both_orders(
    one: list[tuple[int, float, float]], other: list[tuple[int, float, float]]
) -> None:
    copies = []
    for history in (one, other):
        made = block()
        for row, grade, offset in history:
            made.grade([row], grade, START_S + offset)
        copies.append(made.pack(range(4)))
    forth, back = StateBlock(), StateBlock()
    for made, order in ((forth, (0, 1, 0)), (back, (1, 0, 1))):
        made.extend_packed(copies[order[0]])
        for i in order[1:]:
            made.merge(range(4), copies[i])
    assert same(forth, back)


def test_a_clock_that_went_back_loses_nothing() -> None:
    made = block(2)
    made.grade([0], 1.0, START_S - 10 * DAY_S)
    assert made.column("last_graded_s").tolist() == [START_S, START_S]
    assert made.column("successes").tolist() == [1, 0]
    past, now = (made.strength([0, 1], at) for at in (START_S - 100 * DAY_S, START_S))
    assert (past >= now).all() and (past < 1).all()
    assert made.retrievability([0], START_S - 100 * DAY_S)[0] == 1.0
    assert made.tag([1], START_S - 1e6)[0] == pytest.approx(0.3)


def test_reads_of_slices_lists_and_nothing_agree() -> None:
    made = StateBlock(Dynamics(state=StateOptions(scan_rows=7)))
    made.append(np.full(50, 0.5), np.linspace(0, 1, 50), START_S + np.arange(50) * 3600.0)
    now = START_S + 9 * DAY_S
    whole = made.strength(slice(None), now)
    assert len(whole) == 50 and whole.dtype == np.float32
    assert (made.strength(np.arange(50), now) == whole).all()
    assert (made.strength(slice(3, 40, 5), now) == whole[3:40:5]).all()
    assert made.strength([], now).tolist() == made.strength(slice(9, 9), now).tolist() == []
    assert StateBlock().strength(slice(None), now).tolist() == []
    made.grade([], [], now)
    made.credit([], [])


def test_a_readout_shows_everything() -> None:
    made = block(2)
    made.grade([1], 1.0, START_S + DAY_S)
    found = made.readout(1, START_S + DAY_S)
    assert isinstance(found, Readout) and found.by_timescale[0] == pytest.approx(1.0, abs=1e-6)
    assert found.by_timescale[-1] == pytest.approx(1.65) and (found.uses, found.successes, found.failures) == (1, 1, 0)
    assert found.retrievability == 1.0 and found.last_graded_s == START_S + DAY_S and found.credit == 0.5
    assert found.tag == pytest.approx(0.45, abs=1e-4) and found.captured == 0.0


def test_flags_are_bits() -> None:
    made = block(3)
    made.set_flag([0, 1], TraceFlag.PROTECTED, True)
    made.set_flag([1], TraceFlag.PLATEAU, True)
    made.set_flag([1, 2], TraceFlag.PROTECTED, False)
    assert made.column("flags").tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="read-only"):
        made.column("flags")[0] = 9


BAD: list[tuple[Callable[[StateBlock], object], str]] = [
    (lambda b: b.append(math.nan, 0.5, START_S), "salience"),
    (lambda b: b.append(0.5, 1.1, START_S), "strength"),
    (lambda b: b.append([0.5, 0.5], [0.1, 0.1, 0.1], START_S), "strength"),
    (lambda b: b.append(0.5, 0.5, math.inf), "at_s"),
    (lambda b: b.append(0.5, 0.5, START_S, 256), "flags"),
    (lambda b: b.grade([0], math.nan, START_S), "grades"),
    (lambda b: b.grade([0, 1], [0.5, -1.5], START_S), "grades[1]"),
    (lambda b: b.grade([4], 1.0, START_S), "rows"),
    (lambda b: b.grade([-1], 1.0, START_S), "rows"),
    (lambda b: b.grade([0.5], 1.0, START_S), "rows"),
    (lambda b: b.grade([0], 1.0, math.nan), "at_s"),
    (lambda b: b.credit([0], 2.0), "amounts"),
    (lambda b: b.strength([9], START_S), "rows"),
    (lambda b: b.strength([0], math.nan), "now_s"),
    (lambda b: b.strength([0], START_S, 2.0), "exponent"),
    (lambda b: b.capture(math.nan), "at_s[0]"),
    (lambda b: b.set_lifecycle([0], 300), "lifecycle"),
    (lambda b: b.extend_packed([b"short"]), "records[0]"),
    (lambda b: b.extend_packed([*b.pack([0]), b"\x02" + b.pack([0])[0][1:]]), "records[1]"),
    (lambda b: b.extend_packed([b.pack([0])[0][:1] + b"\xff" * (RECORD_BYTES - 1)]), "records[0]"),
    (lambda b: b.merge([0, 1], b.pack([0])), "records"),
]


@pytest.mark.parametrize(("act", "field"), BAD, ids=[f"{field}-{i}" for i, (_, field) in enumerate(BAD)])
def test_bad_input_is_refused_and_changes_nothing(act: Callable[[StateBlock], object], field: str) -> None:
    made = block()
    with pytest.raises(FieldInvalid) as caught:
        act(made)
    assert caught.value.violations[0].field == field
    assert same(made, block())


def test_the_seed_s_names_map_onto_ours() -> None:
    found = seed_options(
        {
            "calcium_decay_ms": 200,
            "eligibility_decay_ms": 5000,
            "protein_decay_ms": 30000,
            "competition_strength": 0.1,
            "calcium_threshold": 0.6,
            "learning_rate": 0.1,
            "decay_rate": 0.3,
        }
    )
    assert (found.calcium.decay_s, found.calcium.threshold, found.competition_strength) == (0.2, 0.6, 0.1)
    reach = found.dynamics.credit
    assert (reach.clock, reach.tau_before, reach.tau_after) == ("seconds", 5.0, 0.2)
    assert reach.k_pot == 0.1 and reach.k_dep == pytest.approx(0.04)
    assert (found.dynamics.capture.protein_tau_s, found.dynamics.state.exponent) == (30.0, 0.3)
    assert seed_options({}).dynamics == Dynamics()
    assert seed_options({"calcium_decay_ms": 200}).dynamics.credit == credit.CreditOptions()


@pytest.mark.parametrize("values", [{"calcium_decay": 1.0}, {"decay_rate": 3.0}, {"learning_rate": 0.9}, {"protein_decay_ms": 0.0}])
def test_a_bad_seed_option_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(FieldInvalid):
        seed_options(values)
