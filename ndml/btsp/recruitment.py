"""One-shot classifier (schema head) on binary BTSP synapses: a novel or mispredicted item recruits a few neurons, others write nothing.

An item arrives as a sparse code with a label. If the head predicts the label already and the code is familiar, it is skipped (the gate).
Otherwise `per_item` neurons have a plateau: their synapses are cleared and those of the active inputs set, and they take the label. They
are the least written of `candidates` neurons named by a hash of the item's key, so that the same items in the same order give the same
head everywhere. A cue is labelled by a vote of the `voters` neurons it drives most, each with the `power` of its overlap; the label
written last wins a tie, so that one correction is enough.

Because a plateau clears the neuron first, a neuron holds the code of the last item that recruited it: the head is a bounded, overwriting
store of one-bit prototypes with a vote, and neither more nor less. Sources: science.md 1.3.1 and 9; plasticity after Wu & Maass 2025.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.kernels.choose import cpu_kernels
from ndml.btsp.kernels.ports import I32, MOST_ACTIVE, U64, Kernels, words_for
from ndml.errors import FieldInvalid

Codes = NDArray[np.integer]
_NONE = np.empty((1, 0), np.int32)


@dataclass(frozen=True, slots=True)
class RecruitmentOptions:
    """Sizes and thresholds of a head. Defaults are those of science.md 9, chosen there on digits."""

    inputs: int = 4096
    """Units of the code, m."""
    neurons: int = 16384
    """n, a power of two from 64. The head holds n / per_item items before it overwrites; 8 MiB with 4,096 inputs."""
    per_item: int = 8
    """Neurons that one item recruits. More resist overwriting longer and fill the head sooner; 33 at random forget (science.md 1.5)."""
    candidates: int = 64
    """Hashed neurons among which the least written are recruited. Equal to `per_item`: random recruitment."""
    familiar: float | None = 0.55
    """An item predicted rightly with at least this familiarity (0..1) is not written. None: every item is written."""
    voters: int = 24
    """Neurons that vote: three items' worth."""
    power: int = 4
    """A vote weighs its overlap to this power: near items outvote many far ones."""
    max_labels: int = 1024
    """Distinct labels; the vote is dense in them."""

    def __post_init__(self) -> None:
        """Raises FieldInvalid."""
        if self.neurons < 64 or self.neurons & (self.neurons - 1):
            raise FieldInvalid("neurons must be a power of two from 64: candidates are spread by an odd stride", field="neurons")
        if not 0 < self.per_item <= self.candidates <= self.neurons:
            raise FieldInvalid("per_item <= candidates <= neurons, all positive", field="candidates")
        if not self.per_item <= self.voters <= self.neurons or not 1 <= self.power <= 8:
            raise FieldInvalid("voters from per_item to neurons, power from 1 to 8", field="voters")
        if self.familiar is not None and not 0 <= self.familiar <= 1:
            raise FieldInvalid("familiar lies in 0..1, or None for no gate", field="familiar")
        if self.inputs < 1 or self.max_labels < 1:
            raise FieldInvalid("inputs and max_labels are positive", field="inputs")


@dataclass(frozen=True, slots=True)
class Prediction:
    """`labels` int64 [b], -1 where nothing answers. `familiarity` float32 [b]: how much of the code its `per_item` best neurons hold."""

    labels: NDArray[np.int64]
    familiarity: NDArray[np.float32]


class RecruitmentHead:
    """State: bit-packed synapses [inputs, neurons / 64], a label and a write count for each neuron. Not thread-safe."""

    def __init__(self, options: RecruitmentOptions | None = None, kernels: Kernels | None = None) -> None:
        """`kernels`: any that keep synapses in host memory; without, the fastest that this process has."""
        self.options = options or RecruitmentOptions()
        self.writes = 0
        self._kernels = kernels or cpu_kernels()
        self._synapses: U64 = self._kernels.zeros(self.options.inputs, words_for(self.options.neurons))
        self._slot = np.full(self.options.neurons, -1, np.int32)
        self._written = np.zeros(self.options.neurons, np.uint32)
        self._latest = np.zeros(self.options.max_labels, np.int64)  # write that last used the label
        self._names: list[int] = []
        self._slots: dict[int, int] = {}

    @property
    def recruited(self) -> int:
        """Neurons that hold an item."""
        return int((self._slot >= 0).sum())

    @property
    def nbytes(self) -> int:
        return int(self._synapses.nbytes + self._slot.nbytes + self._written.nbytes)

    def predict(self, codes: Codes) -> Prediction:
        """Label and familiarity of each code [b, I]: the distinct active inputs of each item in any order, -1 where a block is silent."""
        codes = self._checked(codes)
        labels, familiarity = np.full(len(codes), -1, np.int64), np.zeros(len(codes), np.float32)
        active = (codes >= 0).sum(1)
        for row, found in enumerate(zip(*self._kernels.strongest(self._synapses, codes, self.options.voters), strict=True)):
            labels[row], familiarity[row] = self._vote(*found, int(active[row]))
        return Prediction(labels, familiarity)

    def learn(self, codes: Codes, labels: Sequence[int], keys: Sequence[bytes]) -> NDArray[np.bool_]:
        """One pass over the items in order; which of them were written. codes [b, I], a label >= 0 and a key (a trace id) for each.

        An item without active inputs is not written. Raises FieldInvalid: before anything is written, but for the label that is too many.
        """
        codes = self._checked(codes)
        if not len(codes) == len(labels) == len(keys):
            raise FieldInvalid(f"{len(codes)} codes, {len(labels)} labels, {len(keys)} keys: one of each an item", field="labels")
        if any(label < 0 for label in labels):
            raise FieldInvalid("labels are 0 or more; -1 means no answer", field="labels")
        return np.array([self._learn(*item) for item in zip(codes, labels, keys, strict=True)], np.bool_)

    def _learn(self, code: I32, label: int, key: bytes) -> bool:
        active = int((code >= 0).sum())
        if active == 0:
            return False
        familiar, slot = self.options.familiar, self._slot_of(label)
        if familiar is not None:
            (neurons,), (sums,) = self._kernels.strongest(self._synapses, code[None], self.options.voters)
            predicted, familiarity = self._vote(neurons, sums, active)
            if predicted == label and familiarity >= familiar:
                return False
        self._rewrite(code, self._recruit(key), slot)
        return True

    def _vote(self, neurons: I32, sums: I32, active: int) -> tuple[int, float]:
        """(label or -1, familiarity) from the `voters` strongest neurons, largest sum first."""
        driven = int(np.count_nonzero(sums))
        if driven == 0:
            return -1, 0.0
        votes = np.bincount(self._slot[neurons[:driven]], weights=sums[:driven].astype(np.float64) ** self.options.power)
        tied = np.flatnonzero(votes == votes.max())
        label = self._names[int(tied[self._latest[tied].argmax()])]
        return label, float(sums[: self.options.per_item].sum()) / (self.options.per_item * active)

    def _recruit(self, key: bytes) -> NDArray[np.int64]:
        """The least written candidates; an odd stride visits distinct neurons because their number is a power of two."""
        digest = hashlib.blake2b(key, digest_size=16).digest()
        first, stride = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little") | 1
        n = self.options.neurons
        candidates = (first % n + np.arange(self.options.candidates, dtype=np.int64) * (stride % n)) % n
        return candidates[np.argsort(self._written[candidates], kind="stable")[: self.options.per_item]]

    def _rewrite(self, code: I32, neurons: NDArray[np.int64], slot: int) -> None:
        for neuron in neurons[self._slot[neurons] >= 0].tolist():
            self._synapses[:, neuron >> 6] &= ~np.uint64(1 << (neuron & 63))
        self._kernels.store(self._synapses, code[None], neurons[None].astype(np.int32), _NONE, flip=False)
        self._slot[neurons] = slot
        self._written[neurons] += np.uint32(1)
        self.writes += 1
        self._latest[slot] = self.writes

    def _slot_of(self, label: int) -> int:
        slot = self._slots.get(label)
        if slot is not None:
            return slot
        if len(self._names) == self.options.max_labels:
            raise FieldInvalid(f"more than {self.options.max_labels} labels: raise max_labels", field="labels")
        self._slots[label] = len(self._names)
        self._names.append(label)
        return self._slots[label]

    def _checked(self, codes: Codes) -> I32:
        """Codes as the kernels take them. Raises FieldInvalid."""
        if codes.ndim != 2 or not np.issubdtype(codes.dtype, np.integer) or not 0 < codes.shape[1] <= MOST_ACTIVE:
            raise FieldInvalid(f"codes must be integers [b, 1..{MOST_ACTIVE}], not {codes.dtype} {codes.shape}", field="codes")
        if codes.size and (codes.min() < -1 or codes.max() >= self.options.inputs):
            raise FieldInvalid(f"codes name inputs 0..{self.options.inputs - 1}, or -1 for none", field="codes")
        return codes.astype(np.int32, copy=False)
