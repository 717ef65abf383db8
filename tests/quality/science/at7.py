"""AT-7: recall as a NIR graph: exported, read again, run in snnTorch, spike for spike what the production kernels give; chips' limits.

Counts alone where the optional packages are absent (`pip install ndml[neuromorphic]`). The reference's network: 1,024 inputs of which
32 are active, 1,536 neurons, 60 patterns, plateau probability .02, a third of the cue masked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.kernels.choose import cpu_kernels
from ndml.btsp.kernels.ports import I32, words_for
from ndml.btsp.spiking import CHIPS, Bits, Network, Neuron, parity, read_nir, resources, shares, to_nir, unpacked, write_nir
from tests.quality.science.rows import Row

M, N, ACTIVE, PATTERNS, PLATEAU, MASK = 1024, 1536, 32, 60, 0.02, 0.33
F32 = NDArray[np.float32]
AVAILABLE = all(find_spec(name) for name in ("nir", "nirtorch", "snntorch", "torch"))


@dataclass(frozen=True, slots=True)
class Memory:
    """Patterns stored in one look by the production kernels, and what these recall from cues with a third of the inputs silenced."""

    network: Network
    patterns: Bits  # [60, m]
    cues: Bits  # [60, m]
    fired: Bits  # [60, n]
    completed: Bits  # [60, m]


def stored(seed: int = 0) -> Memory:
    """Every number of it comes from the kernels' bit-packed integers; `network` is for the export alone."""
    random, kernels = np.random.default_rng(seed), cpu_kernels()
    codes = np.array([np.sort(random.choice(M, ACTIVE, replace=False)) for _ in range(PATTERNS)], np.int32)
    cues = np.array([random.permutation(code)[: ACTIVE - int(MASK * ACTIVE)] for code in codes], np.int32)
    forward, backward = kernels.zeros(M, words_for(N)), kernels.zeros(N, words_for(M))
    keys = random.integers(0, 2**63, (PATTERNS, 2)).astype(np.uint64)
    up, down = kernels.recruit(keys, np.zeros(N, np.int32), int(N * PLATEAU / 2), 1)
    kernels.store(forward, codes, up, down, flip=False)
    threshold, share = int(0.45 * ACTIVE), Fraction(35, 100)
    for code, driven in zip(codes, kernels.sums(forward, codes)[:, :N] > threshold, strict=True):
        kernels.store(backward, np.flatnonzero(driven)[None].astype(np.int32), code[None], np.full((1, 1), -1, np.int32), flip=False)
    fired = kernels.sums(forward, cues)[:, :N] > threshold
    votes = np.concatenate([kernels.sums(backward, np.flatnonzero(row)[None].astype(np.int32))[:, :M] for row in fired])
    completed = votes.astype(np.int64) * share.denominator > share.numerator * fired.sum(1)[:, None]
    network = Network(unpacked(forward, N), threshold, unpacked(backward, M), share)
    return Memory(network, _bits(codes), _bits(cues), fired, completed)


def _bits(codes: I32) -> Bits:
    found = np.zeros((len(codes), M), np.bool_)
    np.put_along_axis(found, codes, True, axis=1)
    return found


def exported(neurons: tuple[Neuron, ...] = ("lif", "threshold")) -> list[Row]:
    """The graph goes to disk and comes back; another simulator's spikes are ours."""
    memory, rows = stored(), []
    with tempfile.TemporaryDirectory() as folder:
        for neuron in neurons:
            path = Path(folder) / f"{neuron}.nir"
            size = write_nir(to_nir(memory.network, neuron), path)
            found = parity(read_nir(path), memory.cues, memory.fired, memory.completed)
            what = f"spikes that differ in snnTorch, {neuron} neurons, {found.cues} masked cues ({size / 1024:.0f} KiB file)"
            rows.append(Row("AT-7", what, "0 (230 KiB)", f"{found.differing} of {found.spikes}", found.differing == 0 < found.spikes))
    density = 2 * ACTIVE / M * (1 - ACTIVE / M)
    error = float((memory.completed != memory.patterns).mean()) / density
    rows.append(Row("AT-7", "recall error after completion, a third masked", "<= .0011", f"{error:.4f}", error <= 0.0011))
    return rows


def reset_order() -> list[Row]:
    """A leaky neuron over 200 steps: after a spike the membrane is cleared before it takes the next input, not together with it."""
    torch, snntorch = import_module("torch"), import_module("snntorch")
    beta, currents = float(np.exp(-1e-3 / 20e-3)), np.random.default_rng(0).random((200, 64), np.float32) * np.float32(0.15)
    neuron, membrane, spikes = snntorch.Leaky(beta=beta, threshold=1.0, reset_mechanism="zero"), torch.zeros(64), []
    for current in torch.from_numpy(currents):
        spike, membrane = neuron(current, membrane)
        spikes.append(spike.detach().numpy() > 0)
    theirs = np.array(spikes)
    before, after = (float((_leaky(currents, beta, first) == theirs).mean()) for first in (True, False))
    ours = f"{before:.4f} ({int(theirs.sum())} spikes)"
    return [
        Row("AT-7", "LIF agrees with snnTorch, reset before the input", "1.0 (561 spikes)", ours, before == 1),
        Row("AT-7", "the same, reset after the input", "< 1 (.94)", f"{after:.4f}", after < 1),
    ]


def _leaky(currents: F32, beta: float, reset_first: bool) -> Bits:
    """Spikes [T, n] of leaky neurons with threshold 1, cleared before or after they take the input that follows a spike."""
    membrane, spikes = np.zeros(currents.shape[1], np.float32), []
    for current in currents:
        kept = (membrane <= 1).astype(np.float32)
        decayed = np.float32(beta) * membrane
        membrane = decayed * kept + current if reset_first else (decayed + current) * kept
        spikes.append(membrane > 1)
    return np.array(spikes)


def needs() -> list[Row]:
    """Events instead of dense arithmetic, and the shares of published chip limits."""
    memory = stored()
    need = resources(memory.network, memory.cues)
    fewer = need.dense_macs / need.synaptic_events
    rows = [
        Row(
            "AT-7",
            "synaptic events a recall, against dense multiply-adds",
            "864 of 3.1 M",
            f"{need.synaptic_events:,.0f} of {need.dense_macs:,} (1 in {fewer:,.0f})",
            need.dense_macs == 2 * M * N and need.synaptic_events < 0.01 * need.dense_macs,
        )
    ]
    for chip in CHIPS:
        used = shares(need, chip)
        text = ", ".join(f"{name} {share:.2g}" for name, share in used.items())
        fits = "fits" if max(used.values()) <= 1 else "does not fit on one"
        # The Loihis hold this size; that BrainScaleS-2 and TrueNorth do not must not be hidden.
        expected = "fits" if chip.name.startswith("Loihi") else "does not fit on one"
        rows.append(Row("AT-7", f"share of {chip.name}'s published limits", expected, f"{text}: {fits}", fits == expected))
    return rows


def exported_once() -> list[Row]:
    """One kind of neuron is enough while coding."""
    return exported(("lif",))


_SIMULATED: tuple[Callable[[], list[Row]], ...] = (exported, reset_order) if AVAILABLE else ()
CHECKS: tuple[Callable[[], list[Row]], ...] = (*_SIMULATED, needs)
FAST: tuple[Callable[[], list[Row]], ...] = (exported_once, reset_order, needs) if AVAILABLE else (needs,)
