"""Tagging and capture: the closed form against a stepped simulation of its equations, bounds, bytes, clocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp import capture
from ndml.btsp.capture import CaptureOptions, Protein
from ndml.errors import FieldInvalid

OPTIONS = CaptureOptions()
events = st.lists(st.tuples(st.floats(0, 20_000), st.floats(0.1, 1.0)), min_size=1, max_size=4)


def stepped(early: float, at: float, history: list[tuple[float, float]], until: float, step: float = 2.0) -> tuple[float, float]:
    """(p, z) at `until` by Euler steps: an independent transcription of the equations, exact only as step -> 0."""
    p = z = total = 0.0
    waiting = sorted(history)
    for i in range(int(until / step)):
        now = i * step
        while waiting and waiting[0][0] <= now:
            total = min(total + waiting.pop(0)[1], OPTIONS.total_limit)
        e = early * math.exp(-(now - at) / OPTIONS.early_tau_s) if now >= at else 0.0
        p += step * ((total > OPTIONS.protein_threshold) - p) / OPTIONS.protein_tau_s
        if abs(e) >= OPTIONS.tag_threshold:
            z += step * p * ((1.0 if e > 0 else OPTIONS.late_goal_ltd) - z) / OPTIONS.late_tau_s
        total *= math.exp(-step / OPTIONS.early_tau_s)
    return p, z


def made(history: list[tuple[float, float]], options: CaptureOptions = OPTIONS) -> Protein:
    protein = Protein(options)
    for at, size in history:
        protein.add(at, size)
    return protein


def late(protein: Protein, early: float, at: float, now: float) -> float:
    return float(capture.late_phase(np.zeros(1), np.array([early]), np.array([at]), now, protein)[0])


@settings(max_examples=25, deadline=None)
@given(events, st.floats(0, 20_000), st.sampled_from([-1.0, -0.45, 0.15, 0.3, 0.45, 1.0]))
def test_equals_stepping(history: list[tuple[float, float]], at: float, early: float) -> None:
    protein = made(sorted(history))
    for until in (15_000.0, 40_000.0):
        p, z = stepped(early, at, history, until)
        assert float(protein.level(until)) == pytest.approx(p, abs=3e-3)
        assert late(protein, early, at, until) == pytest.approx(z, abs=3e-3)


@settings(max_examples=40, deadline=None)
@given(events, st.floats(0, 20_000), st.floats(0, 60_000))
def test_settling_on_the_way_changes_nothing(history: list[tuple[float, float]], at: float, settled: float) -> None:
    """z at the end = z at some time, then the rest; also when the protein forgets all before that time."""
    protein, end = made(sorted(history)), 80_000.0
    whole = late(protein, 0.6, at, end)
    moment = max(settled, at)
    z, e = late(protein, 0.6, at, moment), capture.early_phase(np.array([0.6]), np.array([at]), moment)
    later = capture.late_phase(np.array([z]), e, np.array([moment]), end, protein)[0]
    if moment >= protein.last_event_s:
        protein.rebase(moment)
        assert capture.late_phase(np.array([z]), e, np.array([moment]), end, protein)[0] == pytest.approx(later, abs=1e-9)
    assert later == pytest.approx(whole, abs=1e-9)


def test_without_protein_nothing_is_captured() -> None:
    assert Protein().idle
    assert late(made([(0.0, 0.45)]), 0.45, 0.0, 1e6) == 0.0
    assert late(made([(0.0, 1.0)]), 0.15, 0.0, 1e6) == 0.0  # no tag


def test_depression_goes_to_its_own_goal() -> None:
    often = made([(600.0 * i, 1.0) for i in range(100)])
    assert OPTIONS.late_goal_ltd < late(often, -1.0, 0.0, 1e5) < -0.4
    assert 0.8 < late(often, 1.0, 0.0, 1e5) < 1.0


def test_any_number_of_events_at_one_time_is_one_window() -> None:
    protein = Protein()
    for _ in range(100_000):
        protein.add(5.0, 1.0)
    protein.add(5.0, 1e6)
    alone = made([(5.0, 2.0)])
    assert protein.pack() == alone.pack()


def test_a_clock_that_went_back_counts_as_the_last_event() -> None:
    assert made([(1000.0, 0.4), (10.0, 0.4)]).pack() == made([(1000.0, 0.4), (1000.0, 0.4)]).pack()
    protein = made([(1000.0, 1.0)])
    assert float(protein.level(0.0)) == 0.0
    assert float(protein.supply(5000.0, 2000.0)) == 0.0
    assert capture.early_phase(np.array([0.5]), np.array([1000.0]), 0.0)[0] == 0.5


def test_windows_are_bounded() -> None:
    small = CaptureOptions(max_windows=3)
    protein = made([(1e5 * i, 1.0) for i in range(3)], small)
    assert protein.full is True
    with pytest.raises(FieldInvalid, match="max_windows"):
        protein.add(1e6, 1.0)
    protein.rebase(3e5)
    assert len(protein.pack()) < 37 + 16 * 3
    before = float(protein.level(3e5))
    protein.add(1e6, 1.0)
    assert before > 0 and float(protein.level(1e6 + 60)) > 0


@settings(max_examples=40, deadline=None)
@given(events, st.booleans())
def test_bytes_bring_it_back(history: list[tuple[float, float]], rebased: bool) -> None:
    protein = made(sorted(history))
    if rebased:
        protein.rebase(21_000.0)
    copy = Protein.unpack(protein.pack())
    assert copy.pack() == protein.pack()
    times = np.linspace(0, 60_000, 50)
    assert (copy.level(times) == protein.level(times)).all()
    for twin in (copy, protein):
        twin.add(25_000.0, 0.9)
    assert copy.pack() == protein.pack()


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x09" * 37, Protein().pack() + b"\x00"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FieldInvalid, match="protein"):
        Protein.unpack(data)


@pytest.mark.parametrize(("at", "size", "field"), [(math.nan, 1.0, "at_s"), (0.0, math.nan, "deviation"), (1e14, 1.0, "at_s")])
def test_bad_events_are_refused(at: float, size: float, field: str) -> None:
    with pytest.raises(FieldInvalid, match=field):
        Protein().add(at, size)
