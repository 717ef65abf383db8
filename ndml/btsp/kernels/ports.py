"""What a set of kernels does, and the arrays that cross the seam.

Synapses are binary and stored by input: row u of [units, words] uint64 holds one bit for each neuron, neuron j in bit j % 64 of word
j // 64, so that a cue reads the rows of its active units and nothing else. Codes are int32 [n, active], -1 where a block is silent.
All is integer arithmetic: every implementation gives the same bits on every machine.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
U16 = NDArray[np.uint16]
U64 = NDArray[np.uint64]

WORD_BITS = 64
ROW_WORDS = 8
"""Rows are whole cache lines."""

MOST_ACTIVE = 4095
"""Sums fit 12 bits: the kernels count in that many planes."""

GOLDEN = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio, odd: the step of the splitmix64 generator."""


class Kernels(Protocol):
    """Synapses are made by `zeros` and otherwise opaque to the caller: they may lie on a device."""

    @property
    def name(self) -> str:
        """For statistics: reference, native, vectorised, torch, triton."""

    def zeros(self, rows: int, words: int) -> Any:
        """Synapses [rows, words], all off."""

    def ones(self, synapses: Any) -> int:
        """How many synapses are on."""

    def encode(self, vectors: I16, signs: I16, half: int) -> I32:
        """Winners of signed Walsh-Hadamard transforms: vectors [n, width], signs [rounds, width] of 1 and -1; [n, rounds * width / half].

        Every run of `half` sums has one winner, the largest in size, the first of equals; it is unit 2 * its place, plus one if negative.
        width is a power of two, and the caller sees to it that no sum leaves int16.
        """

    def sums(self, synapses: Any, codes: I32) -> U16:
        """For each code and neuron the synapses that are on among its active units, [n, words * 64]."""

    def strongest(self, synapses: Any, codes: I32, k: int) -> tuple[I32, I32]:
        """(neurons, sums), both [n, k]: the k largest sums of each code, largest first, lower neuron first among equals."""

    def recruit(self, keys: U64, load: I32, plateaus: int, choices: int) -> tuple[I32, I32]:
        """(up, down), both [n, plateaus]: the neurons that a trace's plateaus potentiate and depress. `load` [neurons] is counted up.

        Plateau p draws from its own 1/plateaus of the neurons: the first least loaded of `choices` drawn by a generator that the trace's
        key [n, 2] seeds; then one more that is depressed, its cyclic successor where the two are one. In the order of the traces.
        """

    def store(self, synapses: Any, codes: I32, up: I32, down: I32, flip: bool) -> None:
        """One-shot plasticity in place, trace after trace: on its active rows, neurons `up` are set and `down` cleared; or both flipped.

        up and down are [n, any], -1 for none. Setting comes before clearing.
        """


def words_for(neurons: int) -> int:
    """Words of a row that holds so many neurons."""
    return -(-neurons // (WORD_BITS * ROW_WORDS)) * ROW_WORDS
