"""Activity of a trace on eight timescales at once, in closed form: no clock ticks, no sweep, O(1) per event and per read.

State per trace and replica: L_k = ln SUM_i g_i exp((t_i - ORIGIN_S) / tau_k) over its events i (time t_i, gain g_i > 0), float64.
Event:  L_k <- logaddexp(L_k, ln g + (t - ORIGIN_S) / tau_k)      any order of events gives the same sum
Read:   S_k(t) = exp(L_k - (t - ORIGIN_S) / tau_k)                 B_d(t) = SUM_k w_k(d) S_k(t)  ~  SUM_i g_i (t - t_i)^-d
Merge:  element-wise max of the L of one replica (its only writer never lowers it: a join semilattice); replicas then add up.

The weights w_k(d) are the least-squares fit, in relative error, of SUM_k w_k exp(-t/tau_k) to t^-d on AGES_S, 400 ages spread evenly in
ln t over 10 s .. 180 d. The unconstrained fit is positive for every exponent that we allow, so it is the non-negative one too. Largest
relative error: 1.9 % (d = .15), 4.5 % (.30), 9.1 % (.50).

Sources: J. Anderson, L. Schooler, Psych. Sci. 2:396 (1991), need as a power function; M. Benna, S. Fusi, Nat. Neurosci. 19:1697 (2016),
the chain of beakers whose linear form is `benna_fusi_modes`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from ndml.btsp.checks import F64, in_range, numbers

TAUS_S = (5.0, 60.0, 900.0, 4 * 3600.0, 2 * 86400.0, 14 * 86400.0, 90 * 86400.0, math.inf)
"""Time constants; the last never forgets: ln of the summed gains."""

MODES = len(TAUS_S)
RATES: F64 = np.array([0.0 if math.isinf(tau) else 1.0 / tau for tau in TAUS_S])
"""1/tau, per second."""

ORIGIN_S = 1_735_689_600.0
"""Zero of the stored exponents, 2025-01-01 UTC. One constant for all replicas for ever: L of different origins cannot be merged.
Close to the events on purpose: at a distance x the rounding error of S_k is x / tau_k * 1e-16, 3e-9 after a year for 5 s."""

TIME_LIMIT_S = 1e11
"""Times beyond it (year 5138) are milliseconds taken for seconds."""

GAIN_LIMIT = 1e6
LOW_EXPONENT, HIGH_EXPONENT, DEFAULT_EXPONENT = 0.05, 0.8, 0.15
AGES_S: F64 = np.geomspace(10.0, 180 * 86400.0, 400).astype(np.float64)


def silent(count: int) -> F64:
    """L [count, 8] of traces without an event."""
    return np.full((count, MODES), -np.inf)


def event(levels: F64, at_s: ArrayLike, gains: ArrayLike = 1.0) -> F64:
    """L [n, 8] after one more event per row, at `at_s` [n] or one time for all, of gain `gains` (0 leaves the row as it is).

    Times may be equal, or older than events that are in already. After n events of one row at one time the next adds ln(1 + 1/n), which
    is lost to rounding only beyond n = 1e8. FieldInvalid: a time or a gain that is not finite, |time| > 1e11, gain < 0 or > 1e6.
    """
    times = numbers(at_s, "at_s", -TIME_LIMIT_S, TIME_LIMIT_S)
    weights = numbers(gains, "gains", 0.0, GAIN_LIMIT)
    with np.errstate(divide="ignore"):  # ln 0 = -inf is the neutral element of logaddexp
        new = (times[..., None] - ORIGIN_S) * RATES + np.log(weights)[..., None]  # [n, 8]
    return np.logaddexp(levels, new)


def events(levels: F64, at_s: F64, gains: ArrayLike = 1.0) -> F64:
    """L [8] of one trace after many events [m] at once: one shifted sum, whatever their number and order."""
    each = event(silent(len(at_s)), at_s, gains)  # [m, 8]
    return np.logaddexp(levels, np.logaddexp.reduce(each, axis=0)) if len(each) else levels


def merged(ours: F64, theirs: F64) -> F64:
    """The later of two states of one replica's L, mode by mode: commutative, associative, idempotent."""
    return np.maximum(ours, theirs)


def joint(levels: F64) -> F64:
    """L [n, 8] of all replicas together, from [replicas, n, 8] in one agreed order of replicas."""
    total: F64 = np.logaddexp.reduce(levels, axis=0)
    return total


def exponents(levels: F64, now_s: float) -> F64:
    """ln S_k [n, 8] at `now_s`. Events in the future of `now_s` (a clock that went back) count as if they happened now.

    An event that is due cannot exceed its gain, so ln S_k <= L_inf: the bound that keeps a read in the past finite.
    """
    now = in_range(now_s, "now_s", -TIME_LIMIT_S, TIME_LIMIT_S)
    left = levels - (now - ORIGIN_S) * RATES
    return np.minimum(left, levels[..., -1:])


def activity(levels: F64, now_s: float) -> F64:
    """S_k [n, 8]: what is left on each timescale; an event of gain 1 starts at 1 on each."""
    return np.exp(exponents(levels, now_s))


def base_level(levels: F64, now_s: float, exponent: float = DEFAULT_EXPONENT) -> F64:
    """B_d [n] at `now_s`, d = `exponent`: ACT-R's sum of powers of age, times in seconds; 0 for a trace without events."""
    total: F64 = activity(levels, now_s) @ readout_weights(exponent)
    return total


@lru_cache(maxsize=256)  # each distinct exponent costs a fit of 0.2 ms; callers choose among few
def readout_weights(exponent: float) -> F64:
    """w_k(d) [8], read-only. FieldInvalid: exponent outside 0.05 .. 0.8, where the fit is good to 19 %."""
    in_range(exponent, "exponent", LOW_EXPONENT, HIGH_EXPONENT)
    relative = np.exp(-AGES_S[:, None] * RATES) * AGES_S[:, None] ** exponent  # [400, 8]
    weights = np.linalg.lstsq(relative, np.ones(len(AGES_S)), rcond=None)[0].astype(np.float64)
    weights.setflags(write=False)
    return weights


def chain_matrix(beakers: int, ratio: float = 2.0, coupling: float = 0.25) -> F64:
    """A [K, K] of Benna and Fusi's chain du/dt = A u: capacities ratio^k, conductances coupling * ratio^-k, the last one leaks."""
    capacity = ratio ** np.arange(beakers)
    conductance = coupling * ratio ** -np.arange(beakers, dtype=np.float64)
    matrix = np.diag(-conductance / capacity)
    for k in range(1, beakers):
        matrix[k, k - 1] = conductance[k - 1] / capacity[k]
        matrix[k, k] -= conductance[k - 1] / capacity[k]
        matrix[k - 1, k] = conductance[k - 1] / capacity[k - 1]
    return matrix


def benna_fusi_modes(beakers: int, ratio: float = 2.0, coupling: float = 0.25, fastest_s: float | None = None) -> tuple[F64, F64]:
    """(tau_k, w_k) [K], fastest first, with u_1(t) = SUM_k w_k exp(-t / tau_k) after a unit kick of u_1: no stepping.

    The chain is similar to a symmetric matrix by diag(sqrt C), so its modes are real and its weights are squares. `fastest_s` stretches
    time so that tau_1 is that long.
    """
    root = np.sqrt(ratio ** np.arange(beakers))
    symmetric = root[:, None] * chain_matrix(beakers, ratio, coupling) / root
    rates, vectors = np.linalg.eigh(symmetric)
    taus = (-1.0 / rates).astype(np.float64)
    return (taus if fastest_s is None else taus * (fastest_s / taus.min())), (vectors[0] ** 2).astype(np.float64)
