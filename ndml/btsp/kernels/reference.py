"""The truth that every other set of kernels is tested against: short, plain, slow."""

from __future__ import annotations

import numpy as np

from ndml.btsp.kernels.ports import GOLDEN, I16, I32, U16, U64, WORD_BITS

_MASK = (1 << 64) - 1


def splitmix64(value: int) -> int:
    """The finalizer of Steele, Lea and Flood's splitmix64: a bijection of 64-bit numbers that looks random."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
    return value ^ (value >> 31)


def hadamard(width: int) -> I32:
    """Sylvester's matrix [width, width] of 1 and -1, width a power of two."""
    matrix = np.ones((1, 1), np.int32)
    while len(matrix) < width:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


class ReferenceKernels:
    """`Kernels` in numpy and Python loops."""

    name = "reference"

    def zeros(self, rows: int, words: int) -> U64:
        return np.zeros((rows, words), np.uint64)

    def ones(self, synapses: U64) -> int:
        return int(bits(synapses).sum(dtype=np.int64))

    def encode(self, vectors: I16, signs: I16, half: int) -> I32:
        width = vectors.shape[1]
        matrix = hadamard(width)
        codes = []
        for vector in vectors.astype(np.int32):
            sums = np.concatenate([matrix @ (vector * sign) for sign in signs])
            blocks = [sums[at : at + half] for at in range(0, len(sums), half)]
            places = [int(np.argmax(np.abs(block))) for block in blocks]
            codes.append([2 * (b * half + at) + (blocks[b][at] < 0) for b, at in enumerate(places)])
        return np.array(codes, np.int32).reshape(len(vectors), len(signs) * width // half)

    def sums(self, synapses: U64, codes: I32) -> U16:
        rows = [bits(synapses[code[code >= 0]]).sum(axis=0) for code in codes]
        return np.array(rows, np.uint16).reshape(len(codes), synapses.shape[1] * WORD_BITS)

    def strongest(self, synapses: U64, codes: I32, k: int) -> tuple[I32, I32]:
        sums = self.sums(synapses, codes).astype(np.int32)
        neurons = np.argsort(-sums, axis=1, kind="stable")[:, :k]
        return neurons.astype(np.int32), np.take_along_axis(sums, neurons, axis=1)

    def recruit(self, keys: U64, load: I32, plateaus: int, choices: int) -> tuple[I32, I32]:
        up, down = np.empty((2, len(keys), plateaus), np.int32)
        for i, (low, high) in enumerate(keys.tolist()):
            seed = splitmix64(splitmix64(low) ^ high)
            for p in range(plateaus):
                first, end = len(load) * p // plateaus, len(load) * (p + 1) // plateaus
                drawn = [_draw(seed, p * (choices + 1) + c, first, end) for c in range(choices + 1)]
                chosen = min(drawn[:-1], key=lambda neuron: load[neuron])
                load[chosen] += 1
                up[i, p] = chosen
                down[i, p] = drawn[-1] if drawn[-1] != chosen else first + (chosen + 1 - first) % (end - first)
        return up, down

    def store(self, synapses: U64, codes: I32, up: I32, down: I32, flip: bool) -> None:
        for code, gained, lost in zip(codes, up, down, strict=True):
            for row in (synapses[unit] for unit in code if unit >= 0):
                for neuron in gained[gained >= 0]:
                    row[neuron // WORD_BITS] = _changed(row[neuron // WORD_BITS], neuron, True, flip)
                for neuron in lost[lost >= 0]:
                    row[neuron // WORD_BITS] = _changed(row[neuron // WORD_BITS], neuron, False, flip)


def bits(rows: U64) -> U16:
    """Words [n, w] as zeros and ones [n, 64 w], lowest bit first whatever the byte order of the machine."""
    shifts = np.arange(WORD_BITS, dtype=np.uint64)
    return ((rows[..., None] >> shifts) & np.uint64(1)).astype(np.uint16).reshape(len(rows), rows.shape[1] * WORD_BITS)


def _draw(seed: int, turn: int, first: int, end: int) -> int:
    """The generator's number `turn` as a neuron from `first` to before `end`."""
    return first + ((splitmix64((seed + (turn + 1) * GOLDEN) & _MASK) >> 32) * (end - first) >> 32)


def _changed(word: np.uint64, neuron: int, on: bool, flip: bool) -> np.uint64:
    bit = np.uint64(1) << np.uint64(neuron % WORD_BITS)
    if flip:
        return word ^ bit
    return word | bit if on else word & ~bit
