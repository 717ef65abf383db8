"""AT-1d: the curve of Milstein et al. 2021 from `ndml.btsp.credit.milstein_change`, and how far our one-line rule is from it.

Reference values: the design notes' run of the published model, Euler steps of 10 ms; ours integrates the same equations in closed form and
by the trapezoid rule, so the difference (up to .005, all of one sign) is that run's discretisation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ndml.btsp.credit import CreditOptions, kernel, milstein_change
from tests.quality.science.rows import Row

TOLERANCE = 0.005
CURVES: dict[float, dict[float, float]] = {
    0.0: {-4.0: 0.037, -3.0: 0.073, -2.0: 0.149, -1.0: 0.315, -0.5: 0.447, 0.0: 0.522, 0.25: 0.339, 0.5: 0.166, 1.0: 0.043, 2.0: 0.004},
    0.9: {-2.0: -0.307, -1.0: -0.380, -0.5: -0.409, 0.0: -0.424, 0.5: -0.317, 1.0: -0.150},
}


def curve() -> list[Row]:
    """Change of the weight against delay, for a weak and a strong input."""
    rows = []
    for weight, points in CURVES.items():
        for delay, reference in points.items():
            ours = milstein_change(delay, weight)
            what = f"dw at w = {weight:g}, input {delay:+g} s from the plateau"
            # the reference is printed to three places: half a unit of the last belongs to its rounding
            rows.append(Row("AT-1d", what, f"{reference:+.3f}", f"{ours:+.4f}", abs(ours - reference) <= TOLERANCE + 5e-4))
    return rows


def sign_change() -> list[Row]:
    """Weight at which potentiation and depression balance for an input half a second before the plateau."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if milstein_change(-0.5, middle) > 0 else (low, middle)
    return [Row("AT-1d", "weight at which dw changes sign, input -0.5 s", "0.47", f"{low:.3f}", abs(low - 0.47) <= 0.005 + 5e-4)]


def asymmetry() -> list[Row]:
    """Bittner's kernel: constants at which our kappa falls to 1/e on either side."""
    o = CreditOptions()
    delays = np.linspace(-3, 3, 60_001)
    inside = delays[kernel(delays, o) >= np.exp(-1)]
    rows = []
    for what, reference, ours in (("before", 1.31, -inside.min()), ("after", 0.69, inside.max())):
        rows.append(
            Row("AT-1d", f"kappa falls to 1/e, inputs {what} the plateau", f"{reference} s", f"{ours:.4f} s", abs(ours - reference) < 1e-3)
        )
    return rows


CHECKS: tuple[Callable[[], list[Row]], ...] = (curve, sign_change, asymmetry)
FAST = CHECKS
