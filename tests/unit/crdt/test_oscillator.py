"""Cells settle as the physics says, and every implementation gives the same integers."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.crdt.oscillator import I64, OscillatorOptions, Relax, couplings, plain, read_out, relax, simulate, vectorised
from ndml.crdt.oscillator_native import fastest, native
from ndml.crdt.oscillator_torch import relaxing
from ndml.errors import FieldInvalid

PORTS = [
    pytest.param(vectorised, id="vectorised"),
    pytest.param(relax, id="relax"),
    pytest.param(native(), id="native", marks=pytest.mark.skipif(native() is None, reason="the C port was not built here")),
    pytest.param(relaxing("cpu"), id="torch"),
]


def symmetric(random: np.random.Generator, networks: int, cells: int, most: int) -> I64:
    drawn = random.integers(0, most + 1, (networks, cells, cells))
    return np.maximum(drawn, drawn.transpose(0, 2, 1))


def apart(phases: I64, period: int) -> float:
    """Of the first two cells, in periods."""
    ahead = int(phases[0] - phases[1]) % period
    return min(ahead, period - ahead) / period


@pytest.mark.parametrize("port", PORTS)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    networks=st.integers(0, 4),
    cells=st.integers(1, 6),
    most=st.sampled_from([0, 40, 900]),
    steps=st.integers(1, 900),
)
def test_every_port_gives_the_bits_of_the_plain_loop(port: Relax, seed: int, networks: int, cells: int, most: int, steps: int) -> None:
    random = np.random.default_rng(seed)
    pull, push = symmetric(random, networks, cells, most), symmetric(random, networks, cells, most // 2)
    for ours, theirs in zip(port(pull, push, steps), plain(pull, push, steps), strict=True):
        assert ours.dtype == np.int64 and ours.shape == (networks, cells) and np.array_equal(ours, theirs)


@pytest.mark.parametrize("cells", [2, 5])
def test_the_ports_agree_on_whole_runs(cells: int) -> None:
    random = np.random.default_rng(cells)
    drawn = random.integers(-60, 257, (3, cells, cells))
    sim = np.minimum(drawn, drawn.transpose(0, 2, 1))
    truth = simulate(sim, relaxing=vectorised)
    assert (truth[1] > 0).any(), "networks that stand still compare nothing"
    for port in (plain, fastest(), relaxing("cpu")):
        assert all(np.array_equal(a, b) for a, b in zip(simulate(sim, relaxing=port), truth, strict=True))


def test_an_uncoupled_cell_has_the_period_of_the_equations() -> None:
    _, lapse = plain(np.zeros((1, 1, 1), np.int64), np.zeros((1, 1, 1), np.int64), 3000)
    assert abs(int(lapse[0, 0]) - 2 * 256 * math.log(0.8 / 0.2)) < 1


def test_agreeing_siblings_fall_into_step_and_conflicting_ones_move_apart() -> None:
    sim = np.array([[[256, 240], [240, 256]], [[256, 0], [0, 256]]])
    phases, periods = simulate(sim)
    assert apart(phases[0], int(periods[0])) < 0.01
    assert apart(phases[1], int(periods[1])) > 0.4


def test_a_network_does_not_depend_on_those_beside_it() -> None:
    random = np.random.default_rng(3)
    drawn = random.integers(-60, 257, (20, 3, 3))
    sim, options = np.minimum(drawn, drawn.transpose(0, 2, 1)), OscillatorOptions(steps=2500)
    phases, periods = simulate(sim, options)
    for one, phase, period in zip(sim, phases, periods, strict=True):
        alone, its = simulate(one[None], options)
        assert np.array_equal(alone[0], phase) and its[0] == period


def test_similarity_above_the_threshold_is_a_resistor_and_below_it_a_capacitor() -> None:
    sim = np.array([[[256, 256, 128], [256, 256, -256], [128, -256, 256]]])
    pull, push = couplings(sim, OscillatorOptions())
    assert pull[0].tolist() == [[0, 48, 0], [48, 0, 0], [0, 0, 0]]
    assert push[0].tolist() == [[0, 0, 0], [0, 0, 72], [0, 72, 0]]


def test_a_network_that_stands_still_has_no_period() -> None:
    assert read_out(np.array([[900, -1]]), np.array([[710, 0]]), 1000)[1].tolist() == [0]  # one never switched
    stopped = read_out(np.array([[9000, 2000]]), np.array([[710, 710]]), 9100)
    assert stopped[1].tolist() == [0] and stopped[0].tolist() == [[0, 0]]  # one stopped long ago
    assert read_out(np.array([[9000, 8600]]), np.array([[711, 710]]), 9100)[1].tolist() == [710]


@pytest.mark.parametrize(
    ("sim", "wrong"),
    [
        (np.zeros((2, 2), np.int64), "must be [networks"),
        (np.zeros((1, 2, 3), np.int64), "must be [networks"),
        (np.zeros((1, 0, 0), np.int64), "with a cell at least"),
        (np.zeros((1, 2, 2), np.float64), "must be int64"),
        (np.array([[[256, 1], [2, 256]]]), "symmetric"),
        (np.full((1, 1, 1), 1 << 40), "within"),
    ],
)
def test_bad_similarities_are_named(sim: I64, wrong: str) -> None:
    with pytest.raises(FieldInvalid, match=wrong.replace("[", r"\[")) as caught:
        simulate(sim)
    assert caught.value.violations[0].field == "sim"


@pytest.mark.parametrize("name", ["steps", "threshold", "agreement", "conflict"])
def test_options_out_of_range_are_named(name: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        OscillatorOptions(**{name: -1})
    assert caught.value.violations[0].field == name


TRITON = """
import numpy as np, torch
from ndml.crdt.oscillator import plain
from ndml.crdt.oscillator_torch import relaxing
random = np.random.default_rng(0)
for networks, cells, steps in ((9, 6, 850), (1, 1, 60)):  # one more than a program takes, and padding to eight cells
    pull, push = (np.maximum(d, d.transpose(0, 2, 1)) for d in random.integers(0, 4, (2, networks, cells, cells)))
    ours, theirs = relaxing("cpu", triton=True)(pull, push, steps), plain(pull, push, steps)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)), (networks, cells)
    assert steps < 800 or (theirs[1] > 0).any()
print("equal")
"""


def test_the_triton_kernel_gives_the_bits_of_the_plain_loop() -> None:
    pytest.importorskip("triton", reason="triton is not installed: pip install triton (Linux)")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}  # read when triton is imported, hence a process of its own
    done = subprocess.run([sys.executable, "-c", TRITON], capture_output=True, text=True, env=environment, timeout=150, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "equal", done.stderr[-2000:]
