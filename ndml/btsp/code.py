"""Sparse codes: which of some thousand binary units a unit vector turns on.

    q = round((e - mean) scale), integers         W_r q = Walsh-Hadamard transform of q times the signs of round r
    code: in every block of sums of all rounds, the one that is largest in size, and its sign

This is locality-sensitive hashing by cross-polytopes (Andoni et al. 2015) in blocks. A dense Gaussian projection to 16,384 units, of
which the largest are on, costs 6.3 million multiply-adds a trace and a partial sort; this costs some 40,000 16-bit additions and needs no
sort because every block has one winner. What that takes: the largest of 8,192 projections tell familiar from novel a little better (AUC
.971 for .967, 58 % of new texts below the threshold for 46 %), at 151 us a trace for 3.5 (tests/perf/btsp_choices.py).
Centring, scaling by a power of two and rounding work on one component each, so IEEE arithmetic gives the same bits everywhere, and all
that follows is integer: a code is the same on every machine. Winners do not depend on length: nothing is normalised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.kernels.choose import cpu_kernels
from ndml.btsp.kernels.ports import GOLDEN, I16, I32, MOST_ACTIVE, Kernels
from ndml.btsp.kernels.reference import splitmix64
from ndml.errors import EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid

F32 = NDArray[np.float32]

_LARGEST = 32767
_FINEST = 14
"""Scale is at most 2**14: a unit vector along an axis fits int16."""

DEFAULT_UNITS = 8192

LARGEST_DIMENSION = 1 << 14
"""As the memory node's. There a typical component is half a step of the rounding; at twice the dimension it would be a fifth."""

_HALVES = tuple(1 << e for e in range(15))
"""Sums in a block: twice the place of a winner, plus its sign, fits int16 too."""

LONGEST = 1.001
"""Length up to which a vector counts as a unit vector; halves and rounding make some a little longer than one."""


@dataclass(frozen=True, slots=True)
class CodeOptions:
    """Shape of the codes. Raises FieldInvalid at construction when a value makes no sense."""

    dimension: int
    """Floats per vector; fixed by the embedding model."""

    units: int = DEFAULT_UNITS
    """Units that a code chooses from (m). Twice as many cost twice the memory of the index and gained nothing in AUC."""

    active: int = 256
    """Units that are on (I), one in every units/active. 128 lose .001 of AUC and spare 40 % of new texts a search instead of 46 %; 512 lose
    .002, spare 49 %, and cost twice the time (tests/perf/btsp_choices.py)."""

    seed: int = 0
    """Of the signs. All nodes that compare codes must share it."""

    def __post_init__(self) -> None:
        half, least = (self.half if self.active > 0 else 0), 2 * _padded(self.dimension)
        rules = {
            "dimension": 1 <= self.dimension <= LARGEST_DIMENSION,
            "units": self.units > 0 and self.units % least == 0,
            "active": 1 <= self.active <= MOST_ACTIVE and half in _HALVES and 2 * half * self.active == self.units,
            "seed": 0 <= self.seed < 1 << 64,
        }
        hints = {
            "dimension": f"at least 1 and at most {LARGEST_DIMENSION}, past which 16-bit sums leave too few bits a component",
            "units": f"needs a multiple of {least}, twice the padded dimension; CodeOptions.fitting chooses",
            "active": f"units / active must be a power of two, 2 to {2 * _HALVES[-1]}, and active at most {MOST_ACTIVE}",
        }
        for name, holds in rules.items():
            if not holds:
                raise FieldInvalid(
                    f"code option {name}={getattr(self, name)} is out of range: {hints.get(name, 'see CodeOptions')}", field=name
                )

    @classmethod
    def fitting(cls, dimension: int) -> CodeOptions:
        """The defaults, with more units (and as many on) where the dimension needs them: from 4,097 on."""
        return cls(dimension, units=max(DEFAULT_UNITS, 2 * _padded(dimension)))

    @property
    def half(self) -> int:
        """Sums in a block; each stands for two units, one a sign."""
        return self.units // (2 * self.active)

    @property
    def width(self) -> int:
        """The dimension, padded to a power of two that a block divides."""
        return max(_padded(self.dimension), self.half)

    @property
    def rounds(self) -> int:
        """Transforms per vector."""
        return self.units // (2 * self.width)


class SparseCoder:
    """Vectors to codes. Stateless after construction: threads may share it."""

    def __init__(self, options: CodeOptions, mean: F32 | None = None, kernels: Kernels | None = None) -> None:
        """`mean` [dimension] is the embedding model's mean vector, None for zero: without it, all codes share units.

        Raises EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid (mean longer than a unit vector).
        """
        self.options = options
        self._kernels = kernels or cpu_kernels()
        self._mean = (
            np.zeros(options.dimension, np.float32) if mean is None else _checked(np.atleast_2d(mean), options.dimension, "mean")[0]
        )
        self._scale = np.float32(2.0 ** scale_exponent(options.dimension, float(np.linalg.norm(self._mean.astype(np.float64)))))
        self._signs = signs(options)

    def encode(self, vectors: F32) -> I32:
        """Unit vectors [n, dimension] to the units that are on [n, active], ascending. The mean itself turns on the first of each block.

        Raises EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid (longer than one).
        """
        return self._kernels.encode(self.quantised(vectors), self._signs, self.options.half)

    def quantised(self, vectors: F32) -> I16:
        """Centred, scaled and rounded [n, width]: no sum of a transform leaves int16."""
        block = _checked(vectors, self.options.dimension, "embedding")
        whole = np.zeros((len(block), self.options.width), np.int16)
        centred = block - self._mean
        centred *= self._scale
        np.rint(centred, out=centred)
        whole[:, : self.options.dimension] = centred
        return whole


def scale_exponent(dimension: int, mean_length: float) -> int:
    """The largest e such that, scaled by 2**e and rounded, no signed sum of a centred vector's components exceeds int16.

    A vector of length L has components that sum to at most L sqrt(d) in size; rounding adds at most half for each. `dimension` is at most
    LARGEST_DIMENSION, `mean_length` at most LONGEST.
    """
    longest = (LONGEST + mean_length) * math.sqrt(dimension)
    room = _LARGEST - dimension / 2 - 1
    return min(_FINEST, math.floor(math.log2(room / longest)))


def _padded(dimension: int) -> int:
    """The power of two that a transform of so many components takes."""
    return 1 << max(0, dimension - 1).bit_length()


def signs(options: CodeOptions) -> I16:
    """1 and -1 [rounds, width], bit by bit from splitmix64 of the seed."""
    count = options.rounds * options.width
    words = [splitmix64((options.seed + (i + 1) * GOLDEN) & ((1 << 64) - 1)) for i in range(-(-count // 64))]
    bits = (np.array(words, np.uint64)[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    return (1 - 2 * bits.astype(np.int16)).reshape(-1)[:count].reshape(options.rounds, options.width)


def _checked(vectors: F32, dimension: int, field: str) -> F32:
    """`vectors` as contiguous float32 [n, dimension] no longer than one."""
    block = np.ascontiguousarray(vectors, dtype=np.float32)
    if block.ndim != 2 or block.shape[1] != dimension:
        raise EmbeddingDimensionMismatch(f"shape {block.shape}, expected [n, {dimension}] float32", field=field)
    lengths = np.einsum("nd,nd->n", block, block)
    if (lengths <= LONGEST**2).all():
        return block
    if not np.isfinite(block).all():
        raise EmbeddingNotFinite(f"{field} holds NaN or infinity; send finite numbers", field=field)
    raise FieldInvalid(f"{field} is longer than one; divide it by its length", field=field)
