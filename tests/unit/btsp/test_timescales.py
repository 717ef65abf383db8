"""Accumulators on eight timescales: closed form, order independence, lattice laws, read-out weights, the linear chain as special case."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp import timescales as ts
from ndml.btsp.checks import F64
from ndml.errors import FieldInvalid

START_S = ts.ORIGIN_S + 3e7
histories = st.lists(st.tuples(st.floats(0, 5e7), st.floats(0.05, 5)), min_size=1, max_size=12)


def after(history: list[tuple[float, float]]) -> F64:
    levels = ts.silent(1)
    for at, gain in history:
        levels = ts.event(levels, START_S + at, gain)
    return levels


@settings(max_examples=60, deadline=None)
@given(histories, st.randoms(use_true_random=False))
def test_any_order_of_events_reads_as_their_exact_sum(history: list[tuple[float, float]], random: object) -> None:
    shuffled = list(history)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    now = START_S + 5e7 + 10
    exact = [sum(g * math.exp(-(now - START_S - at) * rate) for at, g in history) for rate in ts.RATES]
    for order in (history, shuffled):
        np.testing.assert_allclose(ts.activity(after(order), now)[0], exact, rtol=2e-7, atol=1e-300)
    at, gains = (np.array(column) for column in zip(*history, strict=True))
    np.testing.assert_allclose(ts.activity(ts.events(ts.silent(1)[0], START_S + at, gains), now), exact, rtol=2e-7, atol=1e-300)


@settings(max_examples=60, deadline=None)
@given(histories, st.lists(st.integers(0, 12), min_size=3, max_size=3))
def test_merge_is_a_join_and_never_loses_events(history: list[tuple[float, float]], cuts: list[int]) -> None:
    """Snapshots of one writer, merged in any order and any number of times, give the latest of them bit for bit."""
    a, b, c = (after(history[:cut]) for cut in cuts)
    latest = after(history[: max(cuts)])
    assert (ts.merged(ts.merged(a, b), c) == ts.merged(a, ts.merged(c, b))).all()
    assert (ts.merged(ts.merged(ts.merged(b, c), a), a) == latest).all()
    assert (ts.merged(a, latest) >= a).all()


def test_replicas_add_up() -> None:
    one, two = after([(0, 1), (50, 2)]), after([(10, 0.5)])
    both = ts.joint(np.stack([one, two, ts.silent(1)]))
    now = START_S + 60
    np.testing.assert_allclose(ts.activity(both, now), ts.activity(one, now) + ts.activity(two, now), rtol=1e-8)


def test_a_clock_that_went_back_reads_as_now() -> None:
    levels = ts.event(ts.silent(2), START_S, [1.0, 3.0])
    early = ts.activity(levels, START_S - 1e9)
    np.testing.assert_allclose(early, [[1.0] * 8, [3.0] * 8])
    assert (ts.activity(levels, START_S + 1) <= early).all()


def test_a_million_identical_events() -> None:
    many = ts.events(ts.silent(1)[0], np.full(1_000_000, START_S))
    np.testing.assert_allclose(ts.activity(many, START_S), 1e6, rtol=1e-6)
    one_by_one = ts.silent(1)
    for _ in range(5_000):
        one_by_one = ts.event(one_by_one, START_S)
    np.testing.assert_allclose(ts.activity(one_by_one, START_S), 5e3, rtol=1e-5)


def test_silence_and_gain_zero() -> None:
    levels = ts.event(ts.silent(2), START_S, [0.0, 1.0])
    assert (levels[0] == -np.inf).all()
    assert ts.base_level(levels, START_S + 1).tolist()[0] == 0.0


@pytest.mark.parametrize(
    ("exponent", "published", "worst"),
    [
        (0.15, [0.404, 0.222, 0.162, 0.102, 0.059, 0.033, 0.037, 0.079], 0.0192),
        (0.30, [0.648, 0.250, 0.121, 0.051, 0.020, 0.009, 0.007, 0.006], 0.0455),
        (0.50, [0.768, 0.186, 0.0523, 0.0126, 0.00303, 0.00089, 0.00046, 0.00019], 0.0915),
    ],
)
def test_weights_are_the_least_squares_fit(exponent: float, published: list[float], worst: float) -> None:
    """Against the values of the design notes, and against their own optimality: the gradient vanishes."""
    weights = ts.readout_weights(exponent)
    np.testing.assert_allclose(weights, published, atol=6e-4)
    relative = np.exp(-ts.AGES_S[:, None] * ts.RATES) * ts.AGES_S[:, None] ** exponent
    error = relative @ weights - 1
    assert np.abs(error).max() < worst
    np.testing.assert_allclose(relative.T @ error, 0, atol=1e-6)


@pytest.mark.parametrize("exponent", np.linspace(ts.LOW_EXPONENT, ts.HIGH_EXPONENT, 16))
def test_every_exponent_in_between_has_positive_weights(exponent: float) -> None:
    weights = ts.readout_weights(float(exponent))
    assert (weights > 0).all()
    fresh = ts.event(ts.silent(1), START_S)
    ages = np.geomspace(10, 180 * 86400, 50)
    levels = [ts.base_level(fresh, START_S + age, float(exponent))[0] for age in ages]
    assert (np.diff(levels) < 0).all()
    np.testing.assert_allclose(levels, ages ** -float(exponent), rtol=0.2)


def test_the_chain_is_a_sum_of_modes() -> None:
    """AT-2a against a matrix exponential by scaling and squaring, in extended precision so that it is the better of the two."""
    taus, weights = ts.benna_fusi_modes(6)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
    for t in (0.5, 7.0, 300.0):
        kick, squarings = np.eye(6, dtype=np.longdouble), 30
        small = ts.chain_matrix(6).astype(np.longdouble) * (t / 2**squarings)
        power = kick + small + small @ small / 2 + small @ small @ small / 6
        for _ in range(squarings):
            power = power @ power
        assert abs(float(power[0, 0]) - (weights * np.exp(-t / taus)).sum()) < 1e-9
    assert ts.benna_fusi_modes(6, fastest_s=60.0)[0].min() == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((math.nan, 1.0), "at_s"),
        ((START_S * 1000, 1.0), "at_s"),
        ((START_S, -1.0), "gains"),
        ((START_S, math.nan), "gains"),
        ((START_S, [1.0, math.inf]), "gains[1]"),
    ],
)
def test_bad_events_are_refused(arguments: tuple[float, float], field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        ts.event(ts.silent(2), *arguments)
    assert caught.value.violations[0].field == field


@pytest.mark.parametrize("exponent", [0.0, 0.9, math.nan])
def test_bad_exponents_are_refused(exponent: float) -> None:
    with pytest.raises(FieldInvalid, match="exponent"):
        ts.readout_weights(exponent)
