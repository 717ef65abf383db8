"""Coupled relaxation oscillators with the switching of vanadium dioxide, in 64-bit integers: the same bits on every machine.

A cell charges towards the supply until it switches at a high voltage, then discharges until it switches back at a low one. Cells of
siblings that agree are joined by resistors and fall into step; cells of siblings that conflict are joined by capacitors and move apart
(Parihar, Shukla, Datta, Raychowdhury, J Appl Phys 2015; phases as a colouring of the conflict graph: Parihar et al., Sci Rep 7:911).

    f_i = supply - v_i  while charging,  -v_i  while discharging
    v_i += (f_i + (sum_j R_ij (v_j - v_i) >> 8) + (sum_j C_ij (f_j - f_i) >> 8)) >> 8

No exponential, root or floating point: shifts floor, and that is all the rounding there is. `plain` is the truth, to be read and
tested against; `vectorised` here, oscillator_native (C), oscillator_torch and oscillator_triton give its bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndml.errors import FieldInvalid

I64 = NDArray[np.int64]

SUPPLY = 1 << 20
"""Voltages are counted in 2**-20 of the supply: a step moves one by thousands, and no sum leaves int64."""
HIGH = SUPPLY * 8 // 10
LOW = SUPPLY * 2 // 10
SHIFT = 8
"""A step is 2**-8 of the cell's time constant, and couplings are in 2**-8 of its conductance. An uncoupled cell's period is
2 ln 4 * 256 = 709.8 steps."""
COSINE_ONE = 256
"""Similarities are cosines times this."""
MOST_SIMILAR = 1 << 20
"""Bound of a similarity or a coupling, far above any cosine: with it sums over 2**16 cells stay inside int64."""


@dataclass(frozen=True, slots=True)
class OscillatorOptions:
    """How similarities become couplings, and how long the cells run. Chosen on made-up conflicts; they held on others of the kind."""

    steps: int = 12_000
    """Seventeen periods. With 3,000 cells of a group are not yet in step: by phases alone .91 of honest siblings were chosen, not .99."""
    threshold: int = COSINE_ONE // 2
    """Similarity from which siblings agree: cosine .5, between restatements (.6 and more) and another statement on the same topic (.4)."""
    agreement: int = 96
    """Conductance between cells of full agreement, over the number of other cells. Eight times as much stops a quarter of the networks."""
    conflict: int = 48
    """Capacitance between cells of full conflict, over the number of other cells. Half of `agreement`: a group keeps together first."""

    def __post_init__(self) -> None:
        bounds = {"steps": (1, 1_000_000), "threshold": (1, COSINE_ONE - 1), "agreement": (0, 4096), "conflict": (0, 4096)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise FieldInvalid(f"{name} must be {low} to {high}, is {getattr(self, name)}", field=name)


Relax = Callable[[I64, I64, int], tuple[I64, I64]]
"""(resistive, capacitive, steps) -> (last, lapse): couplings [B, n, n], symmetric, of the cells of B networks; when each cell last switched
from charging to discharging, -1 for never, and how long before it had done so, 0 for fewer than two times; both [B, n]."""


_FEW = 48
"""Links of all networks together up to which Python's own integers are faster than numpy's calls, some 16 microseconds a step."""


def relax(resistive: I64, capacitive: I64, steps: int) -> tuple[I64, I64]:
    """`Relax` without a compiler: whichever of the two below is faster. Some 30 ms for 2 cells, 80 ms for 5."""
    return (plain if resistive.size <= _FEW else vectorised)(resistive, capacitive, steps)


def plain(resistive: I64, capacitive: I64, steps: int) -> tuple[I64, I64]:
    """`Relax` network by network and cell by cell."""
    n = resistive.shape[1]
    found = [_network(r, c, steps) for r, c in zip(resistive.tolist(), capacitive.tolist(), strict=True)]
    last, lapse = np.array(found, np.int64).reshape(-1, 2, n).transpose(1, 0, 2)
    return last, lapse


def _network(resistive: list[list[int]], capacitive: list[list[int]], steps: int) -> tuple[list[int], list[int]]:
    cells = range(len(resistive))
    links = [[(j, resistive[i][j], capacitive[i][j]) for j in cells if resistive[i][j] or capacitive[i][j]] for i in cells]
    v, target = start(len(cells)).tolist(), [SUPPLY for _ in cells]
    last, lapse = [-1 for _ in cells], [0 for _ in cells]
    for step in range(steps):
        f = [full - voltage for full, voltage in zip(target, v, strict=True)]
        v = [_moved(i, v, f, links[i]) for i in cells]
        if max(v) < HIGH and min(v) > LOW:
            continue
        for i in cells:
            if target[i] and v[i] >= HIGH:
                lapse[i] = step - last[i] if last[i] >= 0 else 0
                last[i], target[i] = step, 0
            elif not target[i] and v[i] <= LOW:
                target[i] = SUPPLY
    return last, lapse


def _moved(cell: int, v: list[int], f: list[int], links: list[tuple[int, int, int]]) -> int:
    """The cell's voltage one step on."""
    voltage, force = v[cell], f[cell]
    together = apart = 0
    for other, resistive, capacitive in links:
        together += resistive * (v[other] - voltage)
        apart += capacitive * (f[other] - force)
    return voltage + ((force + (together >> SHIFT) + (apart >> SHIFT)) >> SHIFT)


def vectorised(resistive: I64, capacitive: I64, steps: int) -> tuple[I64, I64]:
    """`Relax` in numpy, all networks and cells at once."""
    count, n, _ = resistive.shape
    pull, push = _laplacian(resistive), _laplacian(capacitive)
    v = np.repeat(start(n)[None, :, None], count, axis=0)  # [B, n, 1], as matmul wants it
    target = np.full((count, n, 1), SUPPLY, np.int64)
    side, limit = np.ones_like(v), np.full_like(v, HIGH)  # switches when side * v >= limit
    last, lapse = np.full_like(v, -1), np.zeros_like(v)
    for step in range(steps):
        f = target - v
        f += np.matmul(pull, v) >> SHIFT
        f += np.matmul(push, target - v) >> SHIFT
        f >>= SHIFT
        v += f
        switching = side * v >= limit
        if switching.any():
            up = switching & (side > 0)
            lapse = np.where(up & (last >= 0), step - last, lapse)
            last = np.where(up, step, last)
            side = np.where(switching, -side, side)
            charging = side > 0
            target, limit = np.where(charging, SUPPLY, 0), np.where(charging, HIGH, -LOW)
    return last[..., 0], lapse[..., 0]


def start(cells: int) -> I64:
    """Voltages [cells] to begin with: evenly between the switching voltages, so that nothing but its place tells a cell from another."""
    ranks = np.arange(1, cells + 1, dtype=np.int64)
    voltages: I64 = LOW + (HIGH - LOW) * ranks // (cells + 1)
    return voltages


def couplings(sim: I64, options: OscillatorOptions) -> tuple[I64, I64]:
    """(resistive, capacitive), both [B, n, n], of similarities [B, n, n] in 1/256: how far they lie above and below the threshold."""
    n = sim.shape[1]
    over = sim - options.threshold
    over[:, np.arange(n), np.arange(n)] = 0
    full = (COSINE_ONE - options.threshold) * max(1, n - 1)
    return np.maximum(over, 0) * options.agreement // full, np.maximum(-over, 0) * options.conflict // full


def simulate(sim: I64, options: OscillatorOptions | None = None, relaxing: Relax | None = None) -> tuple[I64, I64]:
    """Phases [B, n] in steps since the last switch, and periods [B] of networks with symmetric similarities [B, n, n] in 1/256 of a cosine.

    A cell's place is its rank: the caller's order must not depend on who asks. A network in which a cell stood still has period 0, and
    phases 0: read nothing into them. `relaxing`: a port of `relax`; None: numpy. FieldInvalid names what is wrong with `sim`.
    """
    options = options or OscillatorOptions()
    _checked(sim)
    resistive, capacitive = couplings(sim, options)
    return read_out(*(relaxing or relax)(resistive, capacitive, options.steps), options.steps)


def read_out(last: I64, lapse: I64, steps: int) -> tuple[I64, I64]:
    """(phases [B, n], period [B]) of what `relax` gave: the median lapse, and the time since each cell's last switch, modulo it."""
    n = last.shape[1]
    ordered = np.sort(lapse, axis=1)
    period = (ordered[:, (n - 1) // 2] + ordered[:, n // 2]) // 2
    since = steps - last
    alive = ((lapse > 0) & (since < 3 * period[:, None])).all(axis=1) & (period > 0)
    period = np.where(alive, period, 0)
    phases = np.where(alive[:, None], since % np.maximum(period, 1)[:, None], 0)
    return phases, period


def _laplacian(coupling: I64) -> I64:
    """Coupling [B, n, n] less its row sums on the diagonal: times x it is sum_j coupling_ij (x_j - x_i)."""
    n = coupling.shape[1]
    found = coupling.copy()
    found[:, np.arange(n), np.arange(n)] -= coupling.sum(axis=2)
    return found


def _checked(sim: I64) -> None:
    if sim.ndim != 3 or sim.shape[1] != sim.shape[2] or not sim.shape[1]:
        raise FieldInvalid(f"similarities must be [networks, cells, cells] with a cell at least, are {list(sim.shape)}", field="sim")
    if sim.dtype != np.int64:
        raise FieldInvalid(f"similarities must be int64, in 1/{COSINE_ONE} of a cosine, are {sim.dtype}", field="sim")
    if np.abs(sim).max(initial=0) > MOST_SIMILAR:
        raise FieldInvalid(f"similarities must lie within {MOST_SIMILAR} of 0", field="sim")
    if not np.array_equal(sim, sim.transpose(0, 2, 1)):
        raise FieldInvalid("similarities must be symmetric: sim[b, i, j] == sim[b, j, i]", field="sim")
