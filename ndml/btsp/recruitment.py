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

from ndml.errors import FieldInvalid

Codes = NDArray[np.integer]
U64 = NDArray[np.uint64]

# Items whose sums are computed together in `learn`: 64 x 16,384 sums of one byte fit in a core's second-level cache.
_CHUNK = 64
_BYTE = 255


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
    """Neurons that vote: three items' worth. All that tie with the last one vote too."""
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
        if not 0 < self.voters <= self.neurons or not 1 <= self.power <= 8:
            raise FieldInvalid("voters from 1 to neurons, power from 1 to 8", field="voters")
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
    """State: bit-packed synapses uint64 [inputs, neurons / 64], a label and a write count for each neuron. Not thread-safe."""

    def __init__(self, options: RecruitmentOptions | None = None) -> None:
        self.options = options or RecruitmentOptions()
        self.writes = 0
        self._synapses: U64 = np.zeros((self.options.inputs, self.options.neurons // 64), "<u8")
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
        """Label and familiarity of each code [b, I]: distinct active inputs of each item, in any order."""
        codes = self._checked(codes)
        labels, familiarity = np.full(len(codes), -1, np.int64), np.zeros(len(codes), np.float32)
        for start in range(0, len(codes), _CHUNK):
            for row, sums in enumerate(self._sums(codes[start : start + _CHUNK]), start):
                labels[row], familiarity[row] = self._vote(sums, codes.shape[1])
        return Prediction(labels, familiarity)

    def learn(self, codes: Codes, labels: Sequence[int], keys: Sequence[bytes]) -> NDArray[np.bool_]:
        """One pass over the items in order; which of them were written. codes [b, I], a label >= 0 and a key (a trace id) for each."""
        codes = self._checked(codes)
        if not len(codes) == len(labels) == len(keys):
            raise FieldInvalid(f"{len(codes)} codes, {len(labels)} labels, {len(keys)} keys: one of each an item", field="labels")
        written = np.zeros(len(codes), np.bool_)
        for start in range(0, len(codes), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            written[chunk] = self._learn_chunk(codes[chunk], labels[chunk], keys[chunk])
        return written

    def _learn_chunk(self, codes: Codes, labels: Sequence[int], keys: Sequence[bytes]) -> list[bool]:
        """As if item by item: sums of the whole chunk first, mended after each write for the items that follow."""
        gated = self.options.familiar is not None
        sums = self._sums(codes) if gated else None
        return [self._learn_one(codes, sums, row, int(label), key) for row, (label, key) in enumerate(zip(labels, keys, strict=True))]

    def _learn_one(self, codes: Codes, sums: NDArray[np.uint16] | None, row: int, label: int, key: bytes) -> bool:
        slot = self._slot_of(label)
        if sums is not None and self.options.familiar is not None:
            predicted, familiarity = self._vote(sums[row], codes.shape[1])
            if predicted == label and familiarity >= self.options.familiar:
                return False
        neurons = self._recruit(key)
        self._rewrite(codes[row], neurons, slot)
        if sums is not None:
            active = np.zeros(self.options.inputs, np.bool_)
            active[codes[row]] = True
            sums[row + 1 :, neurons] = active[codes[row + 1 :]].sum(1, dtype=np.uint16)[:, None]
        return True

    def _recruit(self, key: bytes) -> NDArray[np.int64]:
        """The least written candidates; an odd stride visits distinct neurons because their number is a power of two."""
        digest = hashlib.blake2b(key, digest_size=16).digest()
        first, stride = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little") | 1
        n = self.options.neurons
        candidates = (first % n + np.arange(self.options.candidates, dtype=np.int64) * (stride % n)) % n
        return candidates[np.argsort(self._written[candidates], kind="stable")[: self.options.per_item]]

    def _rewrite(self, code: Codes, neurons: NDArray[np.int64], slot: int) -> None:
        for neuron in neurons.tolist():
            word, bit = neuron >> 6, np.uint64(1 << (neuron & 63))
            if self._slot[neuron] >= 0:
                self._synapses[:, word] &= ~bit
            self._synapses[code, word] |= bit
        self._slot[neurons] = slot
        self._written[neurons] += np.uint32(1)
        self.writes += 1
        self._latest[slot] = self.writes

    def _vote(self, sums: NDArray[np.uint16], active: int) -> tuple[int, float]:
        """(label or -1, familiarity) from the sums of all neurons [n]."""
        counts = np.bincount(sums, minlength=active + 1)[::-1].cumsum()[::-1]  # neurons with at least this sum
        if len(counts) < 2 or counts[1] == 0 or not self._names:
            return -1, 0.0
        level = int(np.flatnonzero(counts >= min(self.options.voters, counts[1]))[-1])
        winners = np.flatnonzero(sums >= level)
        overlap = sums[winners].astype(np.float64)
        votes = np.bincount(self._slot[winners], weights=overlap**self.options.power, minlength=len(self._names))
        best = np.sort(overlap)[-self.options.per_item :]
        tied = np.flatnonzero(votes == votes.max())
        label = self._names[int(tied[self._latest[tied].argmax()])]
        return label, float(best.sum()) / (self.options.per_item * active)

    def _sums(self, codes: Codes) -> NDArray[np.uint16]:
        """Active synapses of every neuron for each code, [b, n]."""
        found = np.zeros((len(codes), self.options.neurons), np.uint16)
        for row, code in enumerate(codes):
            for start in range(0, len(code), _BYTE):  # what a byte can count: three times as fast as summing in 16 bits
                bits = np.unpackbits(self._synapses[code[start : start + _BYTE]].view(np.uint8), axis=1, bitorder="little")
                found[row] += bits.sum(0, dtype=np.uint8)
        return found

    def _slot_of(self, label: int) -> int:
        slot = self._slots.get(label)
        if slot is not None:
            return slot
        if label < 0:
            raise FieldInvalid(f"label {label}: labels are 0 or more, -1 means no answer", field="labels")
        if len(self._names) == self.options.max_labels:
            raise FieldInvalid(f"more than {self.options.max_labels} labels: raise max_labels", field="labels")
        self._slots[label] = len(self._names)
        self._names.append(label)
        return self._slots[label]

    def _checked(self, codes: Codes) -> Codes:
        """Codes as they index the synapses. Raises FieldInvalid."""
        if codes.ndim != 2 or not np.issubdtype(codes.dtype, np.integer) or codes.shape[1] == 0:
            raise FieldInvalid(f"codes must be integers [b, I], not {codes.dtype} {codes.shape}", field="codes")
        if codes.shape[1] > np.iinfo(np.uint16).max:
            raise FieldInvalid("at most 65,535 active inputs", field="codes")
        if codes.size and (codes.min() < 0 or codes.max() >= self.options.inputs):
            raise FieldInvalid(f"codes name inputs 0..{self.options.inputs - 1}", field="codes")
        return codes.astype(np.int64, copy=False)
