"""Credit: the kernel against the integral it stands for, the bounded weight rule, the ring of recently active traces."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp import credit
from ndml.btsp.credit import CreditOptions, Touched
from ndml.errors import FieldInvalid

amounts = st.floats(-1, 1, allow_subnormal=False)
weights = st.floats(0, 1, allow_subnormal=False)


@pytest.mark.parametrize("distance", [-4.0, -1.31, -0.2, 0.0, 0.5, 2.0])
def test_overlap_is_the_integral_of_both_traces(distance: float) -> None:
    """Quadrature of exp(-(t-t_i)/tau_E) exp(-(t-t_p)/tau_G) from where both have begun; t_p = 0, t_i = D."""
    o = CreditOptions()
    t = np.linspace(max(0.0, distance), 60.0, 600_001)
    product = np.exp(-(t - distance) / o.tau_before) * np.exp(-t / o.tau_after)
    assert float(credit.overlap(distance)) == pytest.approx(float(np.trapezoid(product, t)), rel=1e-6)
    assert float(credit.overlap(distance) / credit.overlap(0.0)) == pytest.approx(float(credit.kernel(distance)), rel=1e-12)


def test_kernel_is_bittners_and_ends_at_its_reach() -> None:
    np.testing.assert_allclose(credit.kernel([-1.31, 0.0, 0.69]), [math.exp(-1), 1.0, math.exp(-1)])
    assert credit.kernel([-6 * 1.31 - 0.01, 6 * 0.69 + 0.01]).tolist() == [0.0, 0.0]
    assert (credit.kernel([-6 * 1.31 + 0.01, 6 * 0.69 - 0.01]) > 0).all()


@settings(max_examples=100, deadline=None)
@given(weights, amounts)
def test_weights_stay_in_range_and_move_towards_the_fixed_point(w: float, m: float) -> None:
    o = CreditOptions()
    after = float(credit.updated([w], [m])[0])
    goal = (o.k_pot if m > 0 else o.k_dep) / (o.k_pot + o.k_dep)
    assert 0 <= after <= 1
    assert abs(after - goal) <= abs(w - goal) + 1e-12
    assert (after - w) * (goal - w) >= -1e-15


@settings(max_examples=60, deadline=None)
@given(weights, st.floats(-1e-3, 1e-3), st.floats(-1e-3, 1e-3))
def test_order_matters_in_second_order_only(w: float, one: float, other: float) -> None:
    forth = credit.updated(credit.updated([w], [one]), [other])[0]
    back = credit.updated(credit.updated([w], [other]), [one])[0]
    assert abs(forth - back) <= abs(one * other)


def test_a_million_identical_rewards_reach_the_fixed_point() -> None:
    w = np.array([0.0, 1.0])
    for _ in range(1000):
        w = credit.updated(w, [1.0, 1.0])
    np.testing.assert_allclose(w, 0.5 / 0.7)
    assert credit.updated([0.3], [0.0])[0] == 0.3


@pytest.mark.parametrize("bad", [math.nan, 1.01, -1.01])
def test_bad_amounts_are_refused(bad: float) -> None:
    with pytest.raises(FieldInvalid, match="amounts"):
        credit.updated([0.5], [bad])


@pytest.mark.parametrize("change", [{"k_dep": 0.6}, {"tau_before": 0.0}, {"clock": "days"}, {"max_touched": 0}, {"tau_after": math.nan}])
def test_bad_options_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(FieldInvalid):
        CreditOptions(**change)  # type: ignore[arg-type]


def test_feedback_finds_what_was_active_around_it() -> None:
    touched = Touched()
    for turn, row in enumerate((7, 3, 9, 3)):
        touched.touch("s", row, turn)
    touched.touch("other", 1, 2)
    rows, kappa = touched.near("s", 2.0)
    assert rows.tolist() == [3, 7, 9]
    np.testing.assert_allclose(kappa, [math.exp(-1 / 1.31), math.exp(-2 / 1.31), 1.0])
    assert touched.near("s", 200.0)[0].tolist() == touched.near("nobody", 0.0)[0].tolist() == []
    wide = touched.near("s", 13.0, CreditOptions(tau_before=10.0))
    assert wide[0].tolist() == [3, 7, 9]
    touched.forget("s")
    assert touched.near("s", 2.0)[0].tolist() == []


def test_the_ring_is_bounded_in_traces_and_streams() -> None:
    touched = Touched(CreditOptions(max_touched=4, max_streams=3))
    for i in range(10_000):
        touched.touch("busy", i, 5.0)  # equal times, one stream
    assert touched.near("busy", 5.0)[0].tolist() == [9996, 9997, 9998, 9999]
    for name in ("a", "b", "c"):
        touched.touch(name, 0, 0.0)
    assert len(touched) == 3
    assert touched.near("busy", 5.0)[0].tolist() == []


def test_the_clock_may_go_back() -> None:
    touched = Touched(CreditOptions(clock="seconds"))
    touched.touch("s", 1, 100.0)
    touched.touch("s", 2, 99.0)
    rows, kappa = touched.near("s", 99.0)
    assert rows.tolist() == [1, 2]
    np.testing.assert_allclose(kappa, [math.exp(-1 / 0.69), 1.0])
    with pytest.raises(FieldInvalid, match="at"):
        touched.touch("s", 3, math.nan)


def test_weak_inputs_potentiate_and_strong_ones_depress() -> None:
    assert credit.milstein_change(-0.5, 0.0) > 0 > credit.milstein_change(-0.5, 0.9)
    assert abs(credit.milstein_change(-60.0, 0.5)) < 1e-6
