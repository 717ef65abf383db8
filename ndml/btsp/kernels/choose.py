"""Which kernels this process uses."""

from __future__ import annotations

from functools import lru_cache

from ndml.btsp.kernels.native import NativeKernels, library
from ndml.btsp.kernels.ports import Kernels
from ndml.btsp.kernels.vectorised import VectorisedKernels


@lru_cache(maxsize=1)
def cpu_kernels() -> Kernels:
    """The C kernels where they were built, else numpy. The same bits either way."""
    loaded = library()
    return VectorisedKernels() if loaded is None else NativeKernels(loaded)
