"""What a row of the table of decoders is."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

from ndml.errors import NdmlError

MOST_FACTOR = 400
"""Bytes that Python may hold for a byte of input: an empty object of JSON, three bytes, is a dictionary of 64 and what reads it."""
MOST_BASE = 4 << 20
"""Bytes that it may hold whatever the input: caches, modules that are loaded on the way, texts of errors."""


@dataclass(frozen=True)
class Decoder:
    """One reader of what comes from outside.

    decode    reads; gives anything, or raises one of `refusals`
    samples   what it was made for, and what once broke it: damaged copies of these reach deeper than noise
    refusals  the errors that its docstring names; all others are faults
    """

    name: str
    decode: Callable[[bytes], object]
    samples: tuple[bytes, ...]
    refusals: tuple[type[BaseException], ...] = (NdmlError,)

    def try_one(self, data: bytes) -> bool:
        """Whether it took the bytes. Raises whatever is none of its refusals."""
        try:
            self.decode(data)
        except self.refusals:
            return False
        return True

    def peak(self, data: bytes) -> int:
        """Bytes that Python held at once on top of what it held before; tracemalloc must run. Raises as `try_one`."""
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        self.try_one(data)
        return tracemalloc.get_traced_memory()[1] - before

    def most(self, data: bytes) -> int:
        """Bytes that `peak` may give for these."""
        return MOST_BASE + MOST_FACTOR * len(data)
