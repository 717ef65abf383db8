"""The vector index of one owner: numpy and FAISS only, no network, no event loop.

`make_index` picks what fits the machine; `VectorIndex` is all that the node knows of it.
"""

from __future__ import annotations

from concurrent.futures import Executor

from services.memory_node.index.adaptive import AdaptiveIndex, IndexState, Phase, background_trainer
from services.memory_node.index.options import IndexOptions
from services.memory_node.index.ports import F32, I64, Mask, VectorIndex

__all__ = [
    "F32",
    "I64",
    "AdaptiveIndex",
    "IndexOptions",
    "IndexState",
    "Mask",
    "Phase",
    "VectorIndex",
    "background_trainer",
    "make_index",
]


def make_index(options: IndexOptions, trainer: Executor) -> AdaptiveIndex:
    """An empty index for one owner: exact while small, then on the GPU where there is one, else quantised.

    `trainer` (see `background_trainer`) is shared by all partitions; stop it after the last `poll`. FAISS is imported here, on first use.
    """
    from services.memory_node.index.fastscan import FastScanIndex
    from services.memory_node.index.gpu import gpu_builder

    return AdaptiveIndex(options, trainer, gpu_builder() or FastScanIndex)
