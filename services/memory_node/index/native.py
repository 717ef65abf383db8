"""FAISS as this package uses it: one thread, BLAS for batches, and the keyword arguments that its generated signatures hide."""

from __future__ import annotations

import threading
from typing import Any

import faiss
import numpy as np

from services.memory_node.index.ports import Mask

_threads = threading.local()


def single_threaded() -> None:
    """Keep FAISS on the calling thread: the count is per calling thread, and two OpenMP threads are slower than one on these sizes."""
    if not getattr(_threads, "pinned", False):
        faiss.omp_set_num_threads(1)
        _threads.pinned = True


def selector(mask: Mask) -> Any:
    """FAISS's set of the rows where `mask` is True."""
    make: Any = faiss.IDSelectorBitmap
    return make(np.packbits(mask, bitorder="little"))


def selecting(mask: Mask) -> Any:
    """Search parameters that leave out the rows where `mask` is False."""
    make: Any = faiss.SearchParameters
    return make(sel=selector(mask))


class Refining:
    """Search parameters of IndexRefine, made once: building them takes as long as scanning 2k rows."""

    def __init__(self) -> None:
        make: Any = faiss.IndexRefineSearchParameters
        self._params = make(k_factor=1.0)

    def of(self, k: int, fetch: int) -> Any:
        """`k` hits out of `fetch` candidates; valid until the next call."""
        self._params.k_factor = (fetch + 0.5) / k  # FAISS truncates k x factor; the half keeps float32 from rounding it below `fetch`
        return self._params
