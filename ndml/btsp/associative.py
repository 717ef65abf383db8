"""The BTSP associative index: one-shot binary synapses from sparse codes to neurons (Wu & Maass, Nat Commun 16:342, 2025).

    store        the trace's plateaus choose 2K neurons by its id; on the code's active units, K are set (LTP) and K cleared (LTD)
    recall       s_j = sum over the cue's active units of W_uj; the neurons with the largest s_j name the traces that recruited them
    familiarity  mean of the K largest s_j over the number of active units: 1 for a repetition, the code's chance level for something new
    complete     the units that enough of these neurons drove when they were recruited

Familiarity costs what the index's size costs, however many traces are in it, and no vector is touched: less than exact search over as
many traces, less than a quantised one below 20,000 only (docs/benchmarks-btsp.md). Derived state: rebuilt from the traces in their order,
never persisted, never replicated. Differences from the published model, each measured (tests/perf/btsp_choices.py):
- K = 1 plateau a trace, not 20 to 97: further ones repeat the same bits, fill the synapses, and cost AUC (.967 -> .961 at 4, .917 at 20).
- A plateau recruits the least loaded of `choices` neurons that the id draws instead of any: AUC .947 -> .967 at 1.1 traces a neuron.
- So the capacity is `load` traces a neuron, far below the paper's M f_p f_q <= .5, which is kept as an upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.code import F32, CodeOptions, SparseCoder
from ndml.btsp.kernels.choose import cpu_kernels
from ndml.btsp.kernels.ports import I32, Kernels, words_for
from ndml.errors import FieldInvalid

SATURATION = 0.5
"""Bound on M f_p f_q (Wu & Maass): beyond it fixed and adaptive thresholds alike fail."""


@dataclass(frozen=True, slots=True)
class AssociativeOptions:
    """Size and rule of one index. Raises FieldInvalid at construction when a value makes no sense."""

    code: CodeOptions
    """Shape of the codes."""

    neurons: int = 8192
    """n. Memory is units * n / 8 bytes (8 MiB), time of a recall active * n / 8 bytes read. `sized` chooses by the number of traces."""

    plateaus: int = 1
    """K, neurons that one trace potentiates, and as many that it depresses: f_q = 2 K / n."""

    choices: int = 4
    """Neurons that a plateau draws to recruit the least loaded. 1 is the published rule."""

    load: float = 1.25
    """Traces a neuron at which the index is full. AUC .967 at 1.1, .964 at 2.2, .955 at 4.3 (2,200 traces, LoCoMo dev)."""

    rule: Literal["set", "flip"] = "set"
    """set: LTP sets, LTD clears. flip: both invert, the form that drives traces of similar inputs apart; it forgets what repeats."""

    feedback: bool = False
    """Keep synapses back from neurons to units, as many again, so that `complete` works. The gate does not need it.

    Set plateaus to 8 with it: of one neuron that two traces share, each brings back the other's units too (.14 of the blocks wrong, AT-1b).
    """

    completion: float = 0.35
    """Share of the recalled neurons that must name a unit. Normalised by their number: fixed thresholds die above saturation."""

    chain: int = 16
    """Traces that recall takes from one neuron, newest first: bounds the work where the caller lets an index grow far past full."""

    def __post_init__(self) -> None:
        rules = {
            "plateaus": 1 <= self.plateaus <= 1024,
            "neurons": 2 * self.plateaus <= self.neurons <= 1 << 24,
            "choices": 1 <= self.choices <= 64,
            "load": 0 < self.load <= 64,
            "rule": self.rule in ("set", "flip"),
            "completion": 0 < self.completion <= 1,
            "chain": 1 <= self.chain <= 4096,
        }
        for name, holds in rules.items():
            if not holds:
                raise FieldInvalid(f"associative option {name}={getattr(self, name)} is out of range; see AssociativeOptions", field=name)

    @property
    def capacity(self) -> int:
        """Traces at which the index is full: `load` a neuron, and M f_p f_q <= .5."""
        sparse = SATURATION * self.code.units * self.neurons / (2 * self.plateaus * self.code.active)
        return int(min(self.load * self.neurons / self.plateaus, sparse))

    def sized(self, traces: int, *, least: int = 512, most: int = 131_072) -> AssociativeOptions:
        """The same with the smallest power of two of neurons, `least` to `most`, that holds so many traces.

        512 neurons are half a MiB; 131,072 are 128 MiB and 164k traces. A quantised search costs less time from 20,000 traces on.
        """
        neurons = least
        while neurons < most and replace(self, neurons=neurons).capacity < traces:
            neurons *= 2
        return replace(self, neurons=neurons)


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a cue brought back, best first: traces as positions in order of storing, -1 for none, and the share of the cue in each."""

    rows: I32  # [n, limit]
    overlap: F32  # [n, limit]


class AssociativeIndex:
    """One owner's index. Not thread-safe: one worker owns it. Nothing is ever removed from it: rebuild it from what remains."""

    def __init__(self, options: AssociativeOptions, coder: SparseCoder, kernels: Kernels | None = None) -> None:
        """`coder` makes this index's codes. Raises FieldInvalid when it has another shape."""
        if coder.options != options.code:
            raise FieldInvalid("the coder's options are not the index's: give both the same CodeOptions", field="code")
        self.options = options
        self.coder = coder
        self._kernels = kernels or cpu_kernels()
        self._synapses = self._kernels.zeros(options.code.units, words_for(options.neurons))
        self._backward = self._kernels.zeros(options.neurons, words_for(options.code.units)) if options.feedback else None
        self._load = np.zeros(options.neurons, np.int32)
        self._newest = np.full(options.neurons, -1, np.int32)  # neuron -> its newest link
        self._older = np.empty((0, options.plateaus), np.int32)  # link -> the one before it; link // plateaus is the trace
        self._count = 0

    @property
    def count(self) -> int:
        """Traces stored."""
        return self._count

    @property
    def full(self) -> bool:
        """True at capacity: build a larger one (`options.sized`), or go on at falling quality: older traces fade first."""
        return self._count >= self.options.capacity

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        code, words = self.options.code, words_for(self.options.neurons)
        back = self.options.neurons * words_for(code.units) if self.options.feedback else 0
        return 8 * (code.units * words + back) + self._load.nbytes + self._newest.nbytes + self._older.nbytes

    @property
    def density(self) -> float:
        """Share of the synapses that are on. Reads all of them."""
        return self._kernels.ones(self._synapses) / (self.options.code.units * self.options.neurons)

    def store(self, codes: I32, keys: Sequence[bytes]) -> None:
        """Learn codes [n, active] in one shot; `keys` are the traces' 16-byte ids. They become rows count .. count+n-1.

        The state depends on the sequence of (code, key) alone, not on how it was cut into calls. FieldInvalid: nothing was stored.
        """
        codes = self._checked(codes)
        if len(keys) != len(codes) or any(len(key) != 16 for key in keys):
            raise FieldInvalid("every code needs a key of 16 bytes", field="keys")
        if not len(codes):
            return
        seeds = np.frombuffer(b"".join(keys), "<u8").reshape(-1, 2).astype(np.uint64)
        up, down = self._kernels.recruit(seeds, self._load, self.options.plateaus, self.options.choices)
        self._kernels.store(self._synapses, codes, up, down, self.options.rule == "flip")
        self._link(up)
        if self._backward is not None:
            none = np.full((up.size, 1), -1, np.int32)
            targets = np.repeat(codes, self.options.plateaus, axis=0)
            self._kernels.store(self._backward, up.reshape(-1, 1), targets, none, flip=False)

    def familiarity(self, codes: I32) -> F32:
        """Mean of the K largest sums over the number of active units [n], 0 to 1; 0 for a code without active units."""
        codes = self._checked(codes)
        _, sums = self._kernels.strongest(self._synapses, codes, self.options.plateaus)
        return _share(sums.sum(axis=1), self.options.plateaus * _active(codes))

    def recall(self, codes: I32, limit: int = 16) -> tuple[F32, Recalled]:
        """(familiarity [n], the `limit` traces that the strongest limit * K neurons name): nominees for an exact comparison.

        Among equals the newer is first. Costs little more than `familiarity`.
        """
        codes, limit = self._checked(codes), max(1, limit)
        wanted = min(self.options.plateaus * limit, self.options.neurons)
        neurons, sums = self._kernels.strongest(self._synapses, codes, wanted)
        active = _active(codes)
        familiar = _share(sums[:, : self.options.plateaus].sum(axis=1), self.options.plateaus * active)
        return familiar, self._named(neurons, sums, active, limit)

    def complete(self, codes: I32) -> I32:
        """The stored code that a partial or noisy one brings back [n, active], -1 where too few neurons agree. Needs `feedback`.

        Blocks of the cue may be silent (-1). Raises FieldInvalid without `feedback`.
        """
        if self._backward is None:
            raise FieldInvalid("this index keeps no synapses back: set feedback", field="feedback")
        neurons, sums = self._kernels.strongest(self._synapses, self._checked(codes), self.options.plateaus)
        driven = np.where(sums > 0, neurons, -1).astype(np.int32)  # [n, K]
        code = self.options.code
        votes = self._kernels.sums(self._backward, driven)[:, : code.units].reshape(-1, code.active, 2 * code.half)
        best = votes.argmax(axis=2)  # [n, active]
        enough = votes.max(axis=2) >= np.maximum(1, self.options.completion * _active(driven))[:, None]
        return np.where(enough, best + 2 * code.half * np.arange(code.active), -1).astype(np.int32)

    def _checked(self, codes: I32) -> I32:
        block = np.ascontiguousarray(codes, dtype=np.int32)
        code = self.options.code
        if block.ndim != 2 or block.shape[1] != code.active:
            raise FieldInvalid(f"codes have shape {block.shape}, expected [n, {code.active}]", field="codes")
        blocks = block // (2 * code.half)
        if not ((block == -1) | (blocks == np.arange(code.active))).all():
            raise FieldInvalid("a code has one unit of every block, or -1: take it from SparseCoder.encode", field="codes")
        return block

    def _link(self, up: I32) -> None:
        """Enter new traces [n, K] into their neurons' lists."""
        first, plateaus = self._count, self.options.plateaus
        needed = first + len(up)
        if needed > len(self._older):
            grown = np.empty((max(needed, len(self._older) * 3 // 2), plateaus), np.int32)
            grown[:first] = self._older[:first]
            self._older = grown
        for row, neurons in enumerate(up.tolist(), first):
            for p, neuron in enumerate(neurons):
                self._older[row, p] = self._newest[neuron]
                self._newest[neuron] = row * plateaus + p
        self._count = needed

    def _named(self, neurons: I32, sums: I32, active: NDArray[np.int64], limit: int) -> Recalled:
        """Rows in the lists of `neurons` [n, w]: every neuron votes with its sum, and a trace needs the votes of its K."""
        older, steps = self._older.reshape(-1), list[I32]()
        link = np.where(sums > 0, self._newest[neurons], -1)
        while (link >= 0).any() and len(steps) < self.options.chain:
            steps.append(link)
            link = np.where(link >= 0, older[np.maximum(link, 0)], -1) if older.size else np.full_like(link, -1)
        rows, overlap = np.full((len(neurons), limit), -1, np.int32), np.zeros((len(neurons), limit), np.float32)
        if not steps:
            return Recalled(rows, overlap)
        links = np.stack(steps, axis=2).reshape(len(neurons), -1)  # [n, w * steps]
        votes = np.repeat(sums, len(steps), axis=1)
        at, column = np.nonzero(links >= 0)
        traces = links[at, column] // self.options.plateaus
        best_at, best_rows, best_votes = _ranked(at, traces, votes[at, column], limit)
        place = np.arange(len(best_at)) - np.searchsorted(best_at, best_at)
        rows[best_at, place] = best_rows
        overlap[best_at, place] = best_votes / (self.options.plateaus * active[best_at])
        return Recalled(rows, overlap)


def rebuilt(options: AssociativeOptions, coder: SparseCoder, vectors: F32, keys: Sequence[bytes], *, step: int = 4096) -> AssociativeIndex:
    """An index of all `vectors` [n, dimension] in their order, `step` at a time to bound memory. Raises what `encode` and `store` raise."""
    index = AssociativeIndex(options, coder)
    for at in range(0, len(vectors), step):
        index.store(coder.encode(vectors[at : at + step]), keys[at : at + step])
    return index


def controlled_plateaus(plateaus: float, density: float, target: float = 0.15) -> float:
    """Homeostasis of the paper's rule: f_q <- f_q target / density, here as plateaus a trace, at least one and at most doubled a step."""
    if density <= 0:
        return max(1.0, 2 * plateaus)
    return max(1.0, min(2 * plateaus, plateaus * target / density))


def _active(codes: I32) -> NDArray[np.int64]:
    return np.asarray(np.count_nonzero(codes >= 0, axis=1), np.int64)


def _share(sums: NDArray[np.int64], of: NDArray[np.int64]) -> F32:
    shares: F32 = (sums / np.maximum(of, 1)).astype(np.float32)
    return shares


def _ranked(at: NDArray[np.int64], traces: I32, votes: I32, limit: int) -> tuple[NDArray[np.int64], I32, NDArray[np.int64]]:
    """Sums the votes of each (cue, trace), keeps the `limit` best of a cue: (cues, traces, votes), by cue, falling vote, newer first."""
    order = np.lexsort((traces, at))
    at, traces = at[order], traces[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(at) != 0) | (np.diff(traces) != 0)])
    total = np.add.reduceat(votes[order].astype(np.int64), starts)
    at, traces = at[starts], traces[starts]
    best = np.lexsort((-traces, -total, at))
    at, traces, total = at[best], traces[best], total[best]
    kept: NDArray[np.bool_] = np.arange(len(at)) - np.searchsorted(at, at) < limit
    return at[kept], traces[kept], total[kept]
