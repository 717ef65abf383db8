"""Kernels in numpy over whole batches, for machines without a compiler. Recruitment is the reference's, trace by trace."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.kernels.ports import I16, I32, U16, U64, WORD_BITS
from ndml.btsp.kernels.reference import ReferenceKernels

_BLOCK_BYTES = 16 << 20
"""Largest temporary array. Past the second-level cache a larger one gains nothing; this bounds memory whatever the batch."""


class VectorisedKernels:
    """`Kernels` by bit-sliced arithmetic on arrays."""

    name = "vectorised"

    def __init__(self) -> None:
        self._one_by_one = ReferenceKernels()
        self.zeros = self._one_by_one.zeros
        self.recruit = self._one_by_one.recruit

    def ones(self, synapses: U64) -> int:
        return int(np.bitwise_count(synapses).sum(dtype=np.int64))

    def encode(self, vectors: I16, signs: I16, half: int) -> I32:
        (n, width), rounds = vectors.shape, len(signs)
        blocks = rounds * width // half
        codes = np.empty((n, blocks), np.int32)
        step = max(1, _BLOCK_BYTES // (2 * rounds * width))
        for at in range(0, n, step):
            sums = transform(vectors[at : at + step, None, :] * signs).reshape(-1, blocks, half)  # [b, blocks, half]
            place = np.abs(sums).argmax(axis=2)  # [b, blocks]
            won = np.take_along_axis(sums, place[..., None], axis=2)[..., 0]
            codes[at : at + step] = 2 * (place + half * np.arange(blocks)) + (won < 0)
        return codes

    def sums(self, synapses: U64, codes: I32) -> U16:
        found = np.zeros((len(codes), synapses.shape[1] * WORD_BITS), np.uint16)
        for at, planes in self._planes(synapses, codes):
            for p, plane in enumerate(planes):
                found[at : at + len(plane)] += _bits(plane).astype(np.uint16) << np.uint16(p)
        return found

    def strongest(self, synapses: U64, codes: I32, k: int) -> tuple[I32, I32]:
        sums = self.sums(synapses, codes).astype(np.int64)  # [n, neurons]
        count = sums.shape[1]
        ranks = sums * count + np.arange(count - 1, -1, -1)  # no two alike: lower neurons first among equals
        best = np.sort(np.partition(ranks, count - k, axis=1)[:, count - k :], axis=1)[:, ::-1]
        return (count - 1 - best % count).astype(np.int32), (best // count).astype(np.int32)

    def store(self, synapses: U64, codes: I32, up: I32, down: I32, flip: bool) -> None:
        for code, gained, lost in zip(codes, up, down, strict=True):
            rows = code[code >= 0]
            for neuron in gained[gained >= 0]:
                bit = np.uint64(1) << np.uint64(neuron % WORD_BITS)
                column = synapses[rows, neuron // WORD_BITS]
                synapses[rows, neuron // WORD_BITS] = column ^ bit if flip else column | bit
            for neuron in lost[lost >= 0]:
                bit = np.uint64(1) << np.uint64(neuron % WORD_BITS)
                column = synapses[rows, neuron // WORD_BITS]
                synapses[rows, neuron // WORD_BITS] = column ^ bit if flip else column & ~bit

    @staticmethod
    def _planes(synapses: U64, codes: I32) -> Iterator[tuple[int, list[U64]]]:
        """Bit-sliced sums of the codes, block after block: (first code, planes [b, words])."""
        step = max(1, _BLOCK_BYTES // max(1, 8 * codes.shape[1] * synapses.shape[1]))
        for at in range(0, len(codes), step):
            code = codes[at : at + step]
            rows = synapses[np.maximum(code, 0)]  # [b, active, words]
            rows[code < 0] = 0
            yield at, add_up(rows)


def transform(x: I16) -> I16:
    """Walsh-Hadamard transform along the last axis, a power of two; wraps as int16 does."""
    width, h = x.shape[-1], 1
    while h < width:
        pairs = x.reshape(*x.shape[:-1], width // (2 * h), 2, h)
        x = np.stack([pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]], axis=-2).reshape(x.shape)
        h *= 2
    return x


def add_up(rows: U64) -> list[U64]:
    """Bit planes [b, words] of the sums of bits over axis 1 of [b, count, words]: numbers are added in pairs, all pairs at once."""
    planes = [rows]
    while planes[0].shape[1] > 1:
        if planes[0].shape[1] % 2:
            planes = [np.pad(plane, ((0, 0), (0, 1), (0, 0))) for plane in planes]
        carry = np.zeros_like(planes[0][:, ::2])
        added = []
        for plane in planes:
            a, b = plane[:, ::2], plane[:, 1::2]
            either = a ^ b
            added.append(either ^ carry)
            carry = (a & b) | (either & carry)
        planes = [*added, carry]
    return [plane[:, 0] if plane.shape[1] else np.zeros((len(plane), plane.shape[2]), np.uint64) for plane in planes]


def _bits(plane: U64) -> NDArray[np.uint8]:
    """[b, words] as zeros and ones [b, 64 words], lowest bit first."""
    return np.unpackbits(plane.astype("<u8", copy=False).view(np.uint8), axis=1, bitorder="little")
