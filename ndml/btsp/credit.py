"""Behavioural-timescale credit: feedback at one moment reaches the traces that were active seconds (or turns) before and after it.

Eligibility E_i(t) = exp(-(t-t_i)/tau_E) of trace i and plateau G(t) = exp(-(t-t_p)/tau_G) of the feedback overlap; D = t_i - t_p:
    INT E G dt = tau_E tau_G / (tau_E + tau_G) * kappa(D),   kappa(D) = exp(D/tau_E) for D <= 0, exp(-D/tau_G) for D > 0
With tau_E = 1.31 and tau_G = .69 kappa is the kernel that Bittner et al. measured (Science 357:1033, 2017). The weight w in 0..1 follows
    w <- w + a - (a+b) w,   a = k_pot |M| kappa, b = k_dep |M| kappa for feedback M > 0; for M < 0 a and b change places
so that weak traces gain most and strong ones lose most, with fixed point a/(a+b) (bidirectional, weight-dependent rule of Milstein et al.,
eLife 10:e73046, 2021, whose own model is `milstein_change`). The result depends on the order of feedback only in second order.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ndml.btsp.checks import F64, above_zero, in_range, numbers
from ndml.errors import FieldInvalid

Clock = Literal["turns", "seconds"]


@dataclass(frozen=True, slots=True)
class CreditOptions:
    """How far and how strongly feedback reaches."""

    tau_before: float = 1.31
    """tau_E, reach to traces that were active before the feedback, in the clock's unit. With "seconds" the seed's eligibility_decay_ms."""
    tau_after: float = 0.69
    """tau_G, reach to traces that are active after it. With "seconds" the seed's calcium_decay_ms."""
    clock: Clock = "turns"
    """"turns": distance in the order of the stream, so that a pause does not cut the link; "seconds": wall clock, for streaming input."""
    k_pot: float = 0.5
    """Step of full positive feedback on a weight of 0. The seed's learning_rate."""
    k_dep: float = 0.2
    """Step of full positive feedback on a weight of 1, downwards: the fixed point is k_pot / (k_pot + k_dep) = .71."""
    reach: float = 6.0
    """Window in time constants; beyond it kappa is under .0025 and counts as 0."""
    max_touched: int = 64
    """Recently active traces remembered per stream: 6 tau are 8 turns before and 4 after, of a few traces each."""
    max_streams: int = 4096
    """Streams remembered; the least recently active one goes first. About 1 KiB each when full."""

    def __post_init__(self) -> None:
        for name in ("tau_before", "tau_after", "reach"):
            above_zero(getattr(self, name), name)
        in_range(self.k_pot, "k_pot", 0.0, 1.0)
        in_range(self.k_dep, "k_dep", 0.0, 1.0 - self.k_pot)  # else one step could overshoot 0 or 1
        in_range(self.max_touched, "max_touched", 1, 1 << 16)
        in_range(self.max_streams, "max_streams", 1, 1 << 24)
        if self.clock not in ("turns", "seconds"):
            raise FieldInvalid(f'clock is {self.clock!r}: choose "turns" or "seconds"', field="clock")


DEFAULTS = CreditOptions()


def kernel(distances: ArrayLike, options: CreditOptions = DEFAULTS) -> F64:
    """kappa(D) in 0..1 for D = place of the trace minus place of the feedback (negative: the trace came first); 0 beyond the reach."""
    d = numbers(distances, "distances")
    taus = np.where(d > 0, options.tau_after, options.tau_before)
    steps: F64 = np.abs(d) / taus
    kappa: F64 = np.exp(-steps) * (steps <= options.reach)
    return kappa


def overlap(distances: ArrayLike, options: CreditOptions = DEFAULTS) -> F64:
    """INT E G dt itself, in the clock's unit: kernel times its value at D = 0, without the cut at the reach."""
    d = numbers(distances, "distances")
    peak = options.tau_before * options.tau_after / (options.tau_before + options.tau_after)
    taus = np.where(d > 0, options.tau_after, options.tau_before)
    whole: F64 = peak * np.exp(-np.abs(d) / taus)
    return whole


def updated(weights: ArrayLike, amounts: ArrayLike, options: CreditOptions = DEFAULTS) -> F64:
    """Weights [n] in 0..1 after feedback of `amounts` = M kappa in -1..1 each. FieldInvalid: outside of these, or NaN."""
    w = numbers(weights, "weights", 0.0, 1.0)
    m = numbers(amounts, "amounts", -1.0, 1.0)
    up = np.where(m > 0, options.k_pot, options.k_dep) * np.abs(m)
    down = np.where(m > 0, options.k_dep, options.k_pot) * np.abs(m)
    moved: F64 = np.clip(w + up - (up + down) * w, 0.0, 1.0)
    return moved


class Touched:
    """Which traces were active lately, per stream: a bounded ring each, least recently used stream out. Not safe for concurrent use."""

    def __init__(self, options: CreditOptions = DEFAULTS) -> None:
        self.options = options
        self._streams: OrderedDict[Hashable, deque[tuple[float, int]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._streams)

    def touch(self, stream: Hashable, row: int, at: float) -> None:
        """Trace `row` was active at `at`: a turn number or unix seconds, as the clock says. A trace may be active many times."""
        place = float(numbers(at, "at"))
        ring = self._streams.pop(stream, None)
        self._streams[stream] = ring = deque(maxlen=self.options.max_touched) if ring is None else ring
        ring.append((place, row))
        while len(self._streams) > self.options.max_streams:
            self._streams.popitem(last=False)

    def near(self, stream: Hashable, at: float, options: CreditOptions | None = None) -> tuple[NDArray[np.int64], F64]:
        """(rows, kappa) of the traces within reach of feedback at `at`, rows ascending, each once with its nearest activity.

        `options`: other taus for this call. Traces that become active after the call get nothing from it, however close.
        """
        place = float(numbers(at, "at"))
        ring = self._streams.get(stream, ())
        if not ring:
            return np.empty(0, np.int64), np.empty(0)
        rows = np.fromiter((row for _, row in ring), np.int64, len(ring))
        kappa = kernel(np.fromiter((when for when, _ in ring), np.float64, len(ring)) - place, options or self.options)
        unique, inverse = np.unique(rows, return_inverse=True)
        strongest = np.zeros(len(unique))
        np.maximum.at(strongest, inverse, kappa)
        return unique[strongest > 0], strongest[strongest > 0]

    def forget(self, stream: Hashable) -> None:
        """Drop a stream: its session ended, or its rows are gone."""
        self._streams.pop(stream, None)


@dataclass(frozen=True, slots=True)
class Milstein:
    """Constants of the network model of Milstein et al. 2021, as in their published code; times in seconds, rates per second."""

    tau_eligibility_s: float = 1.664103
    tau_gate_s: float = 0.4370065
    k_pot: float = 1.109682
    k_dep: float = 0.4249387
    pot_threshold: float = 0.4150117
    pot_half_width: float = 0.4541096
    dep_threshold: float = 0.02618154
    dep_half_width: float = 0.09977173
    pulse_s: float = 0.3
    """Length of the presynaptic pulse and of the plateau."""


def milstein_change(delay_s: float, weight: float, model: Milstein = Milstein(), step_s: float = 1e-3) -> float:
    """Change of a normalised weight in 0..1 by one pairing, the input `delay_s` after the plateau's onset. Reference, not a fast path.

    Both signals are gates of 300 ms through a leaky integrator, each normalised to its peak, known in closed form; the overlap passes
    through two sigmoids and is integrated by the trapezoid rule.
    """
    start = min(0.0, delay_s)
    end = max(0.0, delay_s) + model.pulse_s + 20 * max(model.tau_eligibility_s, model.tau_gate_s)
    t = np.linspace(start, end, round((end - start) / step_s) + 1)
    both = _pulse(t - delay_s, model.tau_eligibility_s, model.pulse_s) * _pulse(t, model.tau_gate_s, model.pulse_s)
    up = np.trapezoid(_sigmoid(both, model.pot_threshold, model.pot_half_width), t)
    down = np.trapezoid(_sigmoid(both, model.dep_threshold, model.dep_half_width), t)
    return float(model.k_pot * (1.0 - weight) * up - model.k_dep * weight * down)


def _pulse(t: F64, tau: float, length: float) -> F64:
    rising = -np.expm1(-np.clip(t, 0.0, length) / tau)
    pulse: F64 = rising / -np.expm1(-length / tau) * np.exp(-np.maximum(t - length, 0.0) / tau)
    return pulse


def _sigmoid(x: F64, threshold: float, half_width: float) -> F64:
    """Stretch of a logistic of slope 2 / half_width, rescaled to run from 0 at x = 0 to 1 at x = 1."""
    low, high, value = (1.0 / (1.0 + np.exp(-2.0 / half_width * (at - threshold))) for at in (np.float64(0.0), np.float64(1.0), x))
    scaled: F64 = (value - low) / (high - low)
    return scaled
