"""The exported network: spike for spike the integer recall, in simulators that are not ours; what it needs of a chip; what is refused."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp import spiking
from ndml.btsp.kernels.choose import cpu_kernels
from ndml.btsp.kernels.ports import words_for
from ndml.btsp.spiking import CHIPS, Bits, Network, Neuron, parity, read_nir, resources, run_snntorch, shares, to_nir, unpacked, write_nir
from ndml.errors import FieldInvalid, NotAvailable

SIMULATORS = all(importlib.util.find_spec(name) for name in ("nir", "nirtorch", "snntorch", "torch"))
simulated = pytest.mark.skipif(not SIMULATORS, reason="needs ndml[neuromorphic]: nir, nirtorch, snntorch")


def network(seed: int, threshold: int, back_threshold: int | Fraction | None, m: int = 48, n: int = 70) -> Network:
    random = np.random.default_rng(seed)
    back = None if back_threshold is None else random.random((n, m)) < 0.3
    return Network(random.random((m, n)) < 0.25, threshold, back, back_threshold if back_threshold is not None else 0)


def cues_of(seed: int, count: int, m: int = 48) -> Bits:
    return np.random.default_rng([seed, 1]).random((count, m)) < 0.3


@simulated
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    threshold=st.integers(0, 6),
    back=st.sampled_from([None, 0, 3, Fraction(0), Fraction(35, 100), Fraction(1, 3)]),
    neuron=st.sampled_from(["lif", "threshold"]),
)
def test_another_simulator_gives_the_same_spikes(seed: int, threshold: int, back: int | Fraction | None, neuron: Neuron) -> None:
    net, cues = network(seed, threshold, back), cues_of(seed, 8)
    fired, completed = net.recall(cues)
    found = parity(to_nir(net, neuron), cues, fired, completed)
    assert found == spiking.Parity(8, int(fired.sum()) + (0 if completed is None else int(completed.sum())), 0)


@simulated
def test_the_graph_on_disk_is_the_graph(tmp_path: Path) -> None:
    net, cues = network(7, 3, Fraction(35, 100)), cues_of(7, 20)
    size = write_nir(to_nir(net), tmp_path / "recall.nir")
    assert size == (tmp_path / "recall.nir").stat().st_size
    graph = read_nir(tmp_path / "recall.nir")
    assert set(graph.nodes) == {"input", "ff", "ca1", "fb", "pool", "inhibit", "ca3", "output"}
    fired, completed = run_snntorch(graph, cues)
    ours = net.recall(cues)
    assert np.array_equal(fired, ours[0])
    assert completed is not None
    assert ours[1] is not None
    assert np.array_equal(completed, ours[1])
    assert 0 < completed.sum() < completed.size


@simulated
def test_a_wrong_spike_is_counted() -> None:
    net, cues = network(8, 3, None), cues_of(8, 5)
    fired, _ = net.recall(cues)
    fired[2, 4] ^= True
    assert parity(to_nir(net), cues, fired).differing == 1


def test_unpacked_synapses_are_those_the_kernels_sum() -> None:
    random, kernels = np.random.default_rng(9), cpu_kernels()
    codes = np.argsort(random.random((20, 40)), axis=1)[:, :8].astype(np.int32)
    synapses, (up, down) = kernels.zeros(40, words_for(70)), random.integers(0, 70, (2, 20, 5)).astype(np.int32)
    kernels.store(synapses, codes, up, down, flip=False)
    cues = np.zeros((20, 40), np.bool_)
    np.put_along_axis(cues, codes, True, axis=1)
    fired, _ = Network(unpacked(synapses, 70), 4).recall(cues)
    assert np.array_equal(fired, kernels.sums(synapses, codes)[:, :70] > 4)
    assert 0 < fired.sum() < fired.size


def test_recall_is_strict_and_an_empty_cue_recalls_nothing() -> None:
    weights = np.array([[True, True], [True, False]])
    back = np.array([[True, False], [True, True]])
    cues = np.array([[True, True], [True, False], [False, False]])
    fired, completed = Network(weights, 1, back, Fraction(1, 2)).recall(cues)
    assert fired.tolist() == [[True, False], [False, False], [False, False]]
    assert completed is not None
    assert completed.tolist() == [[True, False], [False, False], [False, False]]
    both = Network(weights, 0, back, Fraction(1, 2)).recall(cues)[1]
    # Both neurons fire on the first two cues: input 0 has both, input 1 exactly the half, which is not more than half.
    assert both is not None
    assert both.tolist() == [[True, False], [True, False], [False, False]]


def test_resources_are_counted_by_hand() -> None:
    weights = np.array([[True, True, False], [False, True, False]])
    back = np.array([[True, True], [False, True], [False, False]])
    cues = np.array([[True, False], [True, True]])
    alone = resources(Network(weights, 0), cues)
    # Cue one: 1 input spike, 2 events, 2 spikes. Cue two: 2 input spikes, 3 events, 2 spikes.
    assert alone == spiking.Resources(5, 3, 2, 2, 3.5, 2.5, 6)
    whole = resources(Network(weights, 0, back, Fraction(1, 4)), cues)
    # Back: neurons 0 and 1 fire both times, 3 feedback events and 2 into the pool, whose inhibition reaches both inputs.
    assert (whole.neurons, whole.synapses, whole.dense_macs) == (8, 3 + 3 + 3 + 2, 12)
    assert whole.synaptic_events == 2.5 + 3 + 2 + 2
    counted = resources(Network(weights, 0, back, 0), cues)
    assert (counted.neurons, counted.synapses, counted.synaptic_events) == (7, 6, 2.5 + 3)


def test_chips_are_told_by_their_limits() -> None:
    need = spiking.Resources(neurons=1024, synapses=131_072, fan_in=512, fan_out=9, spikes=1, synaptic_events=1, dense_macs=1)
    found = {chip.name: shares(need, chip) for chip in CHIPS}
    assert found["BrainScaleS-2"] == {"neurons": 2.0, "synapses": 1.0}
    assert found["TrueNorth"]["fan_in"] == 2.0
    assert "fan_in" not in found["Loihi 2"]
    assert all(chip.source for chip in CHIPS)


@pytest.mark.parametrize(
    ("field", "build"),
    [
        ("weights", lambda: Network(np.zeros((2, 2), np.uint8), 1)),
        ("weights", lambda: Network(np.zeros((0, 2), np.bool_), 1)),
        ("back", lambda: Network(np.zeros((2, 3), np.bool_), 1, np.zeros((2, 3), np.bool_))),
        ("threshold", lambda: Network(np.zeros((2, 3), np.bool_), -1)),
        ("back_threshold", lambda: Network(np.zeros((2, 3), np.bool_), 1, None, Fraction(3, 2))),
        ("back_threshold", lambda: Network(np.zeros((2, 3), np.bool_), 1, None, Fraction(1, 2**23))),
    ],
)
def test_what_is_no_network_names_the_field(field: str, build: object) -> None:
    with pytest.raises(FieldInvalid) as raised:
        build()  # type: ignore[operator]
    assert raised.value.violations[0].field == field


@simulated
def test_too_many_dense_synapses_and_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FieldInvalid, match="smaller partition") as raised:
        to_nir(network(1, 2, 1), max_synapses=2 * 48 * 70 - 1)
    assert raised.value.violations[0].field == "max_synapses"
    (tmp_path / "text.nir").write_text("not HDF5")
    for name in ("text.nir", "absent.nir"):
        with pytest.raises(FieldInvalid) as raised:
            read_nir(tmp_path / name)
        assert raised.value.violations[0].field == "path"


def test_without_the_packages_the_module_loads_and_says_what_to_install() -> None:
    script = (
        "import sys\n"
        "for name in ('nir', 'nirtorch', 'snntorch', 'torch'): sys.modules[name] = None\n"
        "import numpy as np\n"
        "from ndml.btsp.spiking import Network, to_nir\n"
        "from ndml.errors import NotAvailable\n"
        "net = Network(np.ones((2, 2), np.bool_), 1)\n"
        "print(net.recall(np.ones((1, 2), np.bool_))[0].tolist())\n"
        "try: to_nir(net)\n"
        "except NotAvailable as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == ["[[True, True]]", "nir is not installed: pip install 'ndml[neuromorphic]'"]
    assert issubclass(NotAvailable, Exception)
