"""Memories as a spiking network: learned by the production kernels, written as a NIR graph, run again elsewhere, counted.

The synapses are those of the associative index (`ndml.btsp.associative`) of the same traces in the same order, with the synapses back.
The index then asks for the strongest neurons; a chip has thresholds, so here a neuron fires above a share of a whole code's active units,
and a unit is completed above a share of the neurons that fired. The NIR file holds the network alone. What it takes to make cues for it and
to read its answers (the code's shape and mean, which neurons stand for which trace) is the `key` beside it.
"""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.associative import AssociativeOptions
from ndml.btsp.checks import in_range
from ndml.btsp.code import CodeOptions, SparseCoder
from ndml.btsp.kernels.choose import cpu_kernels
from ndml.btsp.kernels.ports import I32, MOST_ACTIVE, U64, Kernels, words_for
from ndml.btsp.spiking import (
    MAX_SYNAPSES,
    Bits,
    Network,
    Neuron,
    Parity,
    Resources,
    parity,
    read_nir,
    resources,
    to_nir,
    unpacked,
    write_nir,
)
from ndml.errors import EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid

F32 = NDArray[np.float32]

MOST_TRACES = 20_480
"""Traces of the largest network that `MAX_SYNAPSES` dense weights allow (8,192 units, no feedback): readers may stop here."""

SIMULATOR = ("nirtorch", "snntorch", "torch")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What is exported and how it is tried. Raises FieldInvalid."""

    plateaus: int = 1
    """1 is the memory node's index. More vote where memories share neurons, and take as many times the room."""
    neuron: Neuron = "lif"
    """NIR primitive: "lif", which most simulators and chips read, or "threshold", without state."""
    feedback: bool = True
    """With the synapses back, which complete a cue."""
    firing: float = 0.45
    """Share of a whole code's active units above which a neuron fires: that of Wu & Maass 2025. Unrelated texts share a tenth or so."""
    cues: int = 60
    """Traces, spread evenly, whose masked codes are recalled to verify and to count."""
    silent: float = 0.33
    """Share of a code's units that such a cue lacks."""
    max_synapses: int = MAX_SYNAPSES
    """Dense float32 weights: NIR has no sparse ones."""

    def __post_init__(self) -> None:
        in_range(self.plateaus, "plateaus", 1, 64)
        in_range(self.firing, "firing", 0.0, 0.99)
        in_range(self.cues, "cues", 1, 10_000)
        in_range(self.silent, "silent", 0.0, 0.95)
        if self.neuron not in ("lif", "threshold"):
            raise FieldInvalid(f"neuron is {self.neuron!r}: choose lif or threshold", field="neuron")


@dataclass(frozen=True, slots=True)
class Learned:
    """Packed synapses of the traces, and the neurons [n, plateaus] that each recruited. `recall` is what a simulator must meet."""

    forward: U64
    backward: U64 | None
    neurons: I32
    units: int
    size: int
    threshold: int
    share: Fraction

    @property
    def network(self) -> Network:
        """The same unpacked, for the export."""
        back = None if self.backward is None else unpacked(self.backward, self.units)
        return Network(unpacked(self.forward, self.size), self.threshold, back, self.share)

    def recall(self, codes: I32, kernels: Kernels | None = None) -> tuple[Bits, Bits | None]:
        """Cues [b, active], -1 where a block is silent -> fired [b, size], completed [b, units], from the kernels' packed integers."""
        kernels = kernels or cpu_kernels()
        fired = kernels.sums(self.forward, codes)[:, : self.size] > self.threshold
        if self.backward is None:
            return fired, None
        votes = np.stack([self._votes(np.flatnonzero(row).astype(np.int32), kernels) for row in fired])
        return fired, votes * self.share.denominator > self.share.numerator * fired.sum(1, dtype=np.int64)[:, None]

    def _votes(self, fired: I32, kernels: Kernels) -> NDArray[np.int64]:
        """Synapses back [units] from the neurons that fired, as many at a time as the kernels count."""
        total = np.zeros(self.units, np.int64)
        for at in range(0, len(fired), MOST_ACTIVE):
            total += kernels.sums(self.backward, fired[None, at : at + MOST_ACTIVE])[0, : self.units]
        return total


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written and how it fared. `differing` spikes of `parity` must be 0; None: no simulator is installed.

    `completed` is the share of cues that came back as the whole code, `missed` the share of cues that did not fire their trace's neurons.
    """

    nbytes: int
    traces: int
    resources: Resources
    parity: Parity | None
    completed: float | None
    missed: float


def learned(codes: I32, keys: Sequence[bytes], options: AssociativeOptions, firing: float, max_synapses: int = MAX_SYNAPSES) -> Learned:
    """The synapses of an associative index with these codes [n, active] and 16-byte keys, in their order; back too with `feedback`.

    Raises FieldInvalid: no or too many traces, a key that is no key.
    """
    units, count, sides = options.code.units, len(codes), 2 if options.feedback else 1
    if count > options.capacity or units * options.neurons * sides > max_synapses:
        fix = "export fewer, take fewer plateaus a trace, or leave the feedback out"
        raise FieldInvalid(f"{count:,} traces need more than {max_synapses:,} dense synapses: {fix}", field="traces")
    if not count or len(keys) != count or any(len(key) != 16 for key in keys):
        raise FieldInvalid("give at least one trace, and a key of 16 bytes for each", field="keys")
    kernels = cpu_kernels()
    forward = kernels.zeros(units, words_for(options.neurons))
    seeds = np.frombuffer(b"".join(keys), "<u8").reshape(-1, 2).astype(np.uint64)
    up, down = kernels.recruit(seeds, np.zeros(options.neurons, np.int32), options.plateaus, options.choices)
    kernels.store(forward, codes, up, down, options.rule == "flip")
    backward = None
    if options.feedback:
        backward = kernels.zeros(options.neurons, words_for(units))
        kernels.store(backward, up.reshape(-1, 1), np.repeat(codes, options.plateaus, axis=0), np.full((up.size, 1), -1, np.int32), False)
    share = Fraction(options.completion).limit_denominator(100)  # exact weights need a round share
    return Learned(forward, backward, up, units, options.neurons, int(firing * options.code.active), share)


def export(
    embeddings: Sequence[bytes], keys: Sequence[bytes], path: Path, key_path: Path, about: dict[str, Any], options: ExportOptions
) -> Exported:
    """Learn the traces, write the NIR graph to `path` and its key to `key_path`, read the graph again, run and count it.

    embeddings: little-endian float32, of one dimension and any length; keys: 16 bytes each; `about`: entered into the key as it is.
    Raises NotAvailable without the nir package, FieldInvalid, EmbeddingDimensionMismatch, EmbeddingNotFinite.
    """
    if not path.parent.is_dir():
        raise FieldInvalid(f"cannot write {path}: its folder is not there", field="file")
    if not embeddings:
        raise FieldInvalid("no memories: there is no network to write", field="traces")
    coder, codes = _coded(_vectors(embeddings))
    wanted = AssociativeOptions(coder[0], plateaus=options.plateaus, feedback=options.feedback)
    sized = wanted.sized(len(codes), most=max(512, options.max_synapses // (wanted.code.units * (2 if options.feedback else 1))))
    memory = learned(codes, keys, sized, options.firing, options.max_synapses)
    network = memory.network
    part = path.with_name(path.name + ".part")
    try:
        nbytes = write_nir(to_nir(network, options.neuron, options.max_synapses), part)
        key_path.write_text(json.dumps(about | _key(coder, memory, keys), indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise FieldInvalid(f"cannot write {path}: {error}", field="file") from error
    finally:
        part.unlink(missing_ok=True)
    asked = np.unique(np.linspace(0, len(codes) - 1, min(options.cues, len(codes))).astype(np.int64))
    return _tried(memory, network, codes, asked, path, options, nbytes)


def _tried(
    memory: Learned, network: Network, codes: I32, asked: NDArray[np.int64], path: Path, options: ExportOptions, nbytes: int
) -> Exported:
    """Recall of masked cues: by the kernels, and where one is installed by a simulator from the file."""
    cues = masked(codes[asked], options.silent, np.random.default_rng(0))
    fired, completed = memory.recall(cues)
    dense = bits(cues, memory.units)
    compared = parity(read_nir(path), dense, fired, completed) if all(map(importlib.util.find_spec, SIMULATOR)) else None
    whole = None if completed is None else float((completed == bits(codes[asked], memory.units)).all(1).mean())
    own = np.take_along_axis(fired, memory.neurons[asked].astype(np.int64), axis=1).all(1)
    return Exported(nbytes, len(codes), resources(network, dense), compared, whole, float(1 - own.mean()))


def masked(codes: I32, silent: float, random: np.random.Generator) -> I32:
    """Codes [b, active] with a share of their units silenced at random."""
    places = np.argsort(random.random(codes.shape), axis=1)[:, : int(silent * codes.shape[1])]
    cues = codes.copy()
    np.put_along_axis(cues, places, -1, axis=1)
    return cues


def bits(codes: I32, units: int) -> Bits:
    """Codes [b, active], -1 for none, as bool [b, units]."""
    row, place = np.nonzero(codes >= 0)
    found = np.zeros((len(codes), units), np.bool_)
    found[row, codes[row, place]] = True
    return found


def _vectors(embeddings: Sequence[bytes]) -> F32:
    """Unit vectors [n, d]; a zero vector stays zero."""
    lengths = {len(each) for each in embeddings}
    if len(lengths) != 1 or (size := lengths.pop()) == 0 or size % 4:
        raise EmbeddingDimensionMismatch("embeddings must be float32 vectors of one dimension: export one model's", field="embedding")
    block = np.frombuffer(b"".join(embeddings), "<f4").reshape(len(embeddings), -1).astype(np.float64)
    if not np.isfinite(block).all():
        raise EmbeddingNotFinite("an embedding holds NaN or infinity: embed the text again", field="embedding")
    norms = np.linalg.norm(block, axis=1, keepdims=True)
    return np.asarray(block / np.where(norms > 0, norms, 1.0), np.float32)


def _coded(vectors: F32) -> tuple[tuple[CodeOptions, F32], I32]:
    """((shape, mean), codes [n, active]), centred on their own mean, as an index that is rebuilt from them is."""
    options, mean = CodeOptions.fitting(vectors.shape[1]), vectors.mean(0, dtype=np.float64).astype(np.float32)
    return (options, mean), SparseCoder(options, mean).encode(vectors)


def _key(coder: tuple[CodeOptions, F32], memory: Learned, keys: Sequence[bytes]) -> dict[str, Any]:
    """JSON values: how a vector becomes a cue, and whose neurons the output layer's are."""
    options, mean = coder
    return {
        "code": {"dimension": options.dimension, "units": options.units, "active": options.active, "seed": options.seed},
        "mean": base64.b64encode(mean.astype("<f4").tobytes()).decode("ascii"),
        "threshold": memory.threshold,
        "completion": None if memory.backward is None else str(memory.share),
        "traces": {key.hex(): neurons for key, neurons in zip(keys, memory.neurons.tolist(), strict=True)},
    }
