"""BTSP recall as a spiking network: exported as a NIR graph, run again by another simulator, held against chips' published limits.

The network is feed-forward (science.md 7): cue -> binary synapses W -> CA1 threshold neurons -> binary synapses W_back -> CA3 threshold
neurons -> completed cue. A self-normalised CA3 threshold (a share of the CA1 neurons that fired) becomes feed-forward inhibition through
one pooled path, so that every weight stays a small integer and every sum is exact in float32: parity is equality, not closeness.

    input -> ff -> ca1 -> fb -> ca3 -> output          threshold fixed
                    └──> pool -> inhibit ─┘             threshold a share of the spikes in ca1

Exportable and simulator-verified; not run on silicon. `nir`, `nirtorch` and `snntorch` are optional (`pip install ndml[neuromorphic]`).

Sources: Pedersen et al. 2024, Nat Commun 15:8122 (NIR); Wu & Maass 2025, Nat Commun 16:342 (the network).
"""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.kernels.ports import U64, WORD_BITS
from ndml.errors import FieldInvalid, NotAvailable

Bits = NDArray[np.bool_]
Graph = Any
Neuron = Literal["lif", "threshold"]

# float32 counts integers exactly up to here; beyond it a sum of spikes could be rounded and parity would be luck.
EXACT = 2**24
# Dense float32 weights in memory: NIR has no sparse or binary Linear. 2^27 are 512 MiB.
MAX_SYNAPSES = 2**27
# snnTorch reads every NIR LIF with this time step. tau = one step: the membrane forgets between steps, so recalls in a row are independent.
STEP_S = 1e-4


@dataclass(frozen=True, slots=True)
class Network:
    """What is exported. `weights` [m, n]: input i drives neuron j; `back` [n, m]: neuron j drives input i again, None: no completion.

    A neuron fires when strictly more than `threshold` of its synapses are active. An input is completed when strictly more than
    `back_threshold` of its synapses are active: a count, or as a Fraction the share of all neurons that fired.
    """

    weights: Bits
    threshold: int
    back: Bits | None = None
    back_threshold: int | Fraction = Fraction(35, 100)

    def __post_init__(self) -> None:
        """Raises FieldInvalid where shapes or thresholds do not make a network."""
        if self.weights.ndim != 2 or self.weights.dtype != np.bool_ or 0 in self.weights.shape:
            raise FieldInvalid(f"weights must be bool [m, n], not {self.weights.dtype} {self.weights.shape}", field="weights")
        m, n = self.weights.shape
        if self.back is not None and (self.back.shape != (n, m) or self.back.dtype != np.bool_):
            raise FieldInvalid(f"back must be bool [{n}, {m}], not {self.back.dtype} {self.back.shape}", field="back")
        if self.threshold < 0:
            raise FieldInvalid("threshold is a count of active synapses: 0 or more", field="threshold")
        share = self.back_threshold
        if share < 0 or (isinstance(share, Fraction) and share >= 1):
            raise FieldInvalid("back_threshold is a count from 0 or a Fraction in [0, 1)", field="back_threshold")
        if max(m, n) * self.scale >= EXACT:
            raise FieldInvalid(f"sums of {m} x {n} with share {share} leave exact float32: use a rounder share", field="back_threshold")

    @property
    def scale(self) -> int:
        """Weight of one feedback synapse: the denominator of the share, so that the inhibition is an integer too."""
        return self.back_threshold.denominator if isinstance(self.back_threshold, Fraction) else 1

    def recall(self, cues: Bits) -> tuple[Bits, Bits | None]:
        """The truth that a simulator must meet: cues [b, m] -> fired [b, n], completed [b, m] or None.

        Counts of synapses, exact because they stay under 2^24; float32 for its fast product.
        """
        fired = cues.astype(np.float32) @ self.weights.astype(np.float32) > self.threshold
        if self.back is None:
            return fired, None
        drive = (fired.astype(np.float32) @ self.back.astype(np.float32)).astype(np.int64)  # [b, m]
        if isinstance(self.back_threshold, Fraction):
            inhibition = self.back_threshold.numerator * fired.sum(1, dtype=np.int64)[:, None]
            return fired, drive * self.scale > inhibition
        return fired, drive > self.back_threshold


def unpacked(synapses: U64, columns: int) -> Bits:
    """Synapses as the kernels keep them, [rows, words] of 64 neurons each, as bool [rows, columns] for a `Network`."""
    shifts = np.arange(WORD_BITS, dtype=np.uint64)
    return ((synapses[..., None] >> shifts) & np.uint64(1)).astype(np.bool_).reshape(len(synapses), -1)[:, :columns]


def to_nir(network: Network, neuron: Neuron = "lif", max_synapses: int = MAX_SYNAPSES) -> Graph:
    """The network as a `nir.NIRGraph`. `neuron`: "lif" (the primitive that most simulators and chips read) or "threshold" (stateless).

    Raises NotAvailable without the nir package, FieldInvalid where the dense weights would exceed `max_synapses`.
    """
    nir = _optional("nir")
    m, n = network.weights.shape
    synapses = m * n * (1 if network.back is None else 2)
    if synapses > max_synapses:
        fix = "export a smaller partition, leave the feedback out, or raise max_synapses"
        raise FieldInvalid(f"{synapses} dense synapses, at most {max_synapses}: {fix}", field="max_synapses")
    nodes = {
        "input": nir.Input(input_type={"input": np.array([m])}),
        "ff": nir.Linear(weight=np.ascontiguousarray(network.weights.T, dtype=np.float32)),
        "ca1": _layer(nir, neuron, n, network.threshold),
    }
    edges = [("input", "ff"), ("ff", "ca1")]
    last = "ca1"
    if network.back is not None:
        _add_feedback(nir, network, neuron, nodes, edges)
        last = "ca3"
    nodes["output"] = nir.Output(output_type={"output": np.array([n if last == "ca1" else m])})
    return nir.NIRGraph(nodes=nodes, edges=[*edges, (last, "output")])


def write_nir(graph: Graph, path: Path) -> int:
    """Write `graph` as HDF5; its size in bytes."""
    _optional("nir").write(str(path), graph)
    return path.stat().st_size


def read_nir(path: Path) -> Graph:
    """The graph in a .nir file. Raises FieldInvalid where there is none."""
    try:
        return _optional("nir").read(str(path))
    except (OSError, KeyError) as error:
        raise FieldInvalid(f"{path} is no NIR file: {error}", field="path") from error


def run_snntorch(graph: Graph, cues: Bits) -> tuple[Bits, Bits | None]:
    """Run a graph as it was read from disk, one cue [b, m] a time step, in snnTorch: fired [b, n], completed [b, m] or None.

    LIF graphs go through snnTorch's own reader; it knows no NIR Threshold, which becomes a `Leaky` without leak memory or reset.
    The cues are one sequence with the membranes kept, so a state that leaks from one recall into the next would show.
    """
    torch = _optional("torch")
    net = _snntorch_module(graph)
    spikes: dict[str, list[Any]] = {"ca1": [], "ca3": []}
    layers = [name for name in spikes if name in graph.nodes]
    for name in layers:
        net.get_submodule(name).register_forward_hook(lambda _module, _inputs, out, name=name: spikes[name].append(out.detach().clone()))
    with torch.no_grad():
        for cue in torch.from_numpy(cues.astype(np.float32)):
            net(cue[None])
    fired, completed = (np.asarray(torch.cat(spikes[name])).astype(bool) if name in layers else None for name in ("ca1", "ca3"))
    assert fired is not None
    return fired, completed


@dataclass(frozen=True, slots=True)
class Parity:
    """How a run of the exported graph compares with the kernel: spikes of all layers over all cues, and how many differ."""

    cues: int
    spikes: int
    differing: int


def parity(graph: Graph, cues: Bits, fired: Bits, completed: Bits | None = None) -> Parity:
    """Run `graph` in snnTorch on `cues` [b, m] and compare spike for spike with what the production kernel gave."""
    theirs, back = run_snntorch(graph, cues)
    pairs = [(fired, theirs)] if completed is None or back is None else [(fired, theirs), (completed, back)]
    return Parity(len(cues), sum(int(ours.sum()) for ours, _ in pairs), sum(int((ours != other).sum()) for ours, other in pairs))


@dataclass(frozen=True, slots=True)
class Resources:
    """What a chip would have to hold and do. Events are means over the cues: spikes and synaptic operations of one recall.

    `synapses` are those that exist (a 0 is no connection), plus the pooled inhibition; `dense_macs` is what a matrix product would do.
    """

    neurons: int
    synapses: int
    fan_in: int
    fan_out: int
    spikes: float
    synaptic_events: float
    dense_macs: int


def resources(network: Network, cues: Bits) -> Resources:
    """Count neurons, synapses and events of `network` on `cues` [b, m]."""
    m, n = network.weights.shape
    fired, completed = network.recall(cues)
    counts = {"synapses": int(network.weights.sum()), "fan_in": int(network.weights.sum(0).max())}
    fan_out = network.weights.sum(1)
    spikes, events = cues.sum() + fired.sum(), (cues @ fan_out.astype(np.int64)).sum()
    neurons, macs, widest = m + n, m * n, int(fan_out.max())
    if network.back is not None and completed is not None:
        pooled = isinstance(network.back_threshold, Fraction)
        back_out = network.back.sum(1) + (1 if pooled else 0)
        counts["synapses"] += int(network.back.sum()) + (n + m if pooled else 0)
        counts["fan_in"] = max(counts["fan_in"], int(network.back.sum(0).max()) + (1 if pooled else 0), n if pooled else 0)
        spikes += completed.sum()
        events += (fired @ back_out.astype(np.int64)).sum() + (m * len(cues) if pooled else 0)
        # The completed cue leaves by its own population: inputs relay, ca3 fires.
        neurons, macs, widest = neurons + m + (1 if pooled else 0), macs * 2, max(widest, int(back_out.max()), m if pooled else 0)
    return Resources(neurons, counts["synapses"], counts["fan_in"], widest, float(spikes) / len(cues), float(events) / len(cues), macs)


@dataclass(frozen=True, slots=True)
class Chip:
    """Published limits of one chip. `fan_in`: synapses onto one neuron where the architecture bounds them."""

    name: str
    neurons: int
    synapses: int
    fan_in: int | None
    source: str


CHIPS: tuple[Chip, ...] = (
    Chip("Loihi 2", 1_000_000, 120_000_000, None, "Intel Labs, Loihi 2 Technology Brief, 2021"),
    Chip("Loihi", 131_072, 130_000_000, None, "Davies et al. 2018, IEEE Micro 38(1):82"),
    Chip("TrueNorth", 1_048_576, 268_435_456, 256, "Merolla et al. 2014, Science 345:668"),
    Chip("BrainScaleS-2", 512, 131_072, None, "Pehle et al. 2022, Front Neurosci 16:795876"),
)


def shares(need: Resources, chip: Chip) -> dict[str, float]:
    """Need over limit for each published limit of `chip`; above 1 it does not fit on one. Counts only: no placement, no routing."""
    found = {"neurons": need.neurons / chip.neurons, "synapses": need.synapses / chip.synapses}
    return found if chip.fan_in is None else found | {"fan_in": need.fan_in / chip.fan_in}


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NotAvailable(f"{name} is not installed: pip install 'ndml[neuromorphic]'") from error


def _layer(nir: Any, neuron: Neuron, size: int, above: int) -> Any:
    """Neurons that fire when an integer sum is strictly above `above`: half a synapse of margin, whether `>` or `>=` is read."""
    level = np.full(size, above + 0.5, np.float32)
    if neuron == "threshold":
        return nir.Threshold(threshold=level)
    one = np.ones(size, np.float32)
    return nir.LIF(tau=one * np.float32(STEP_S), r=one, v_leak=one * 0, v_threshold=level)


def _add_feedback(nir: Any, network: Network, neuron: Neuron, nodes: dict[str, Any], edges: list[tuple[str, str]]) -> None:
    assert network.back is not None
    n, m = network.back.shape
    share = network.back_threshold
    nodes["fb"] = nir.Linear(weight=network.back.T.astype(np.float32) * network.scale)
    nodes["ca3"] = _layer(nir, neuron, m, 0 if isinstance(share, Fraction) else share)
    edges += [("ca1", "fb"), ("fb", "ca3")]
    if isinstance(share, Fraction):
        nodes["pool"] = nir.Linear(weight=np.ones((1, n), np.float32))
        nodes["inhibit"] = nir.Linear(weight=np.full((m, 1), -share.numerator, np.float32))
        edges += [("ca1", "pool"), ("pool", "inhibit"), ("inhibit", "ca3")]


def _snntorch_module(graph: Graph) -> Any:
    """snnTorch's reader for LIF graphs; nirtorch's graph executor with snnTorch neurons for Threshold graphs."""
    nir, torch, snntorch, nirtorch = (_optional(name) for name in ("nir", "torch", "snntorch", "nirtorch"))
    if not any(isinstance(node, nir.Threshold) for node in graph.nodes.values()):
        with contextlib.redirect_stdout(None):  # it prints its progress
            return _optional("snntorch.import_nir").import_from_nir(graph)

    def linear(node: Any) -> Any:
        module = torch.nn.Linear(node.weight.shape[1], node.weight.shape[0], bias=False)
        module.weight.data = torch.from_numpy(node.weight)
        return module

    def threshold(node: Any) -> Any:
        return snntorch.Leaky(beta=0.0, threshold=torch.from_numpy(node.threshold), reset_mechanism="none", init_hidden=True)

    return nirtorch.nir_to_torch(graph, {nir.Linear: linear, nir.Threshold: threshold})
