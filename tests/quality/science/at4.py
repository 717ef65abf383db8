"""AT-4: oscillators that resolve conflicts: how coupled cells settle; one decision whatever the order; what is decided."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from ndml.crdt.oscillator import I64, SHIFT, plain, read_out, vectorised
from ndml.crdt.oscillator_native import native
from ndml.crdt.oscillator_torch import relaxing
from ndml.crdt.resolve import Sibling, resolve, resolve_all
from tests.quality.resolution import JUDGED, SHIPPED, honest_shown, made_up
from tests.quality.science.rows import Row

SEED, HELD_OUT = 5, 777


def phases(groups: Sequence[int], resistive: int, capacitive: int, steps: int) -> tuple[I64, int]:
    """(phases, period) of cells: resistors within groups, capacitors between them, in 1/256."""
    of = np.array(groups)
    same = (of[:, None] == of[None]).astype(np.int64)
    last, lapse = (native() or vectorised)((same - np.eye(len(of), dtype=np.int64))[None] * resistive, (1 - same)[None] * capacitive, steps)
    found, period = read_out(last, lapse, steps)
    return found[0], int(period[0])


def apart(phases: Sequence[int] | I64, period: int) -> float:
    """Distance of the nearest two phases on the circle, in periods."""
    return min(min((a - b) % period, (b - a) % period) for a, b in itertools.combinations(map(int, phases), 2)) / period


def phase_laws() -> list[Row]:
    """A cell's period, and how two, five and four coupled cells settle."""
    analytic = 2 * math.log(4) * (1 << SHIFT)
    _, alone = phases([0], 0, 0, 4000)
    pair, period = phases([0, 0], 64, 0, 30_000)
    together = apart(pair, period)
    pair, period = phases([0, 1], 0, 16, 30_000)
    opposite = apart(pair, period)
    five, period = phases([0, 1, 0, 1, 0], 16, 4, 20_000)
    told = [round(phase / period, 3) for phase in five.tolist()]
    four, four_period = phases([0, 1, 2, 3], 16, 4, 20_000)
    nearest = apart(four, four_period)
    expected = [0.146, 0.587, 0.146, 0.587, 0.148]
    return [
        Row("AT-4a", "period of a cell, steps", f"{analytic:.1f}", str(alone), abs(alone - analytic) <= 1),
        Row("AT-4a", "two cells, resistor: apart, periods", "0.000", f"{together:.3f}", together < 0.002),
        Row("AT-4a", "two cells, capacitor: apart, periods", "0.50", f"{opposite:.3f}", abs(opposite - 0.5) < 0.005),
        Row("AT-4a", "phases of groups 0 1 0 1 0", str(expected), str(told), bool(np.allclose(told, expected, atol=0.005))),
        Row("AT-4a", "four conflicting cells: nearest two, periods", "distinct", f"{nearest:.3f}", nearest > 0.15),
    ]


def _decided(siblings: Sequence[Sibling]) -> bytes:
    """What is shown, who agrees, how strongly, and why, without places in the input."""
    found = resolve(siblings)
    keys = sorted(siblings[place].key for place in found.coalition)
    told = sorted({(one.key, phase) for one, phase in zip(siblings, found.phases, strict=True)})
    return hashlib.sha256(repr((siblings[found.winner].key, keys, found.support, told, found.why)).encode()).digest()


def one_decision() -> list[Row]:
    """Five siblings in all 120 orders, some twice: one digest."""
    siblings = made_up(JUDGED[2], 1, SEED)[0].siblings
    digests = {_decided([*order, order[0], order[2]]) for order in itertools.permutations(siblings)}
    digests.add(_decided(siblings))
    return [Row("AT-4b", "decisions over 120 orders with duplicates", "1", str(len(digests)), len(digests) == 1)]


def same_bits() -> list[Row]:
    """The phases of a hundred networks by every implementation that this machine has; Triton has a test of its own."""
    cases = [case.siblings for setting in JUDGED for case in made_up(setting, 35, SEED)]
    ports = {"C": native(), "torch": relaxing("cpu")}
    truth = resolve_all(cases, relaxing=vectorised)
    few = resolve_all(cases[:3], relaxing=plain)
    rows = [Row("AT-4b", "resolutions equal, plain and numpy", "3 of 3", f"{_equal(few, truth)} of 3", few == truth[:3])]
    for name, port in ports.items():
        if port is not None:
            found = resolve_all(cases, relaxing=port)
            rows.append(
                Row("AT-4b", f"resolutions equal, {name} and numpy", "105 of 105", f"{_equal(found, truth)} of 105", found == truth)
            )
    return rows


def _equal(found: Sequence[object], truth: Sequence[object]) -> int:
    return sum(a == b for a, b in zip(found, truth, strict=False))


def honest(seeds: Sequence[int] = (SEED, HELD_OUT)) -> list[Row]:
    """Three honest siblings beside one or two that are sure of something else, 150 each."""
    rows = []
    for seed in seeds:
        shown = honest_shown([case for setting in JUDGED for case in made_up(setting, 150, seed)])
        share = {name: float(each.mean()) for name, each in shown.items()}
        for name, reference in ((SHIPPED, ">= .98 (1.000)"), ("oscillators", ">= .98 (.984)"), ("components", "1.000"), ("medoid", ".982")):
            passed = share[name] >= 0.98 if reference.startswith(">=") else abs(share[name] - float(reference)) <= 0.02
            rows.append(Row("AT-4b", f"honest content shown, {name}, seed {seed}", reference, f"{share[name]:.3f}", passed))
    return rows


CHECKS: tuple[Callable[[], list[Row]], ...] = (phase_laws, one_decision, same_bits, honest)
FAST: tuple[Callable[[], list[Row]], ...] = (phase_laws, one_decision, honest) if native() else (phase_laws,)
