"""Exact search on a GPU: by FAISS where its build has GPU support, else by torch in half precision. Neither is needed on a CPU node."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from services.memory_node.index.adaptive import Build
from services.memory_node.index.exact import exact_search, padded, padding
from services.memory_node.index.options import IndexOptions
from services.memory_node.index.ports import F32, I64, Mask, checked_k, checked_queries, checked_rows, checked_vectors
from services.memory_node.index.rows import LiveRows, grown

KIND = "gpu-flat"

FAISS_GPU_MAX_K = 2048
"""FAISS's GPU selection cannot return more than this many rows."""


NVIDIA_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""One of these exists where an NVIDIA driver runs (the second under WSL). Importing torch to ask takes seconds and 200 MB."""


@cache
def gpu_builder() -> Build | None:
    """How to build a GPU index on this machine; None without a GPU, or without a library that can use it."""
    if faiss.get_num_gpus() > 0:
        return lambda options, _sample: FaissFlatIndex(options, faiss_gpu(options))
    if find_spec("torch") is None or not any(device.exists() for device in NVIDIA_DEVICES):
        return None
    import torch

    return (lambda options, _sample: TorchFlatIndex(options, "cuda")) if torch.cuda.is_available() else None


def faiss_gpu(options: IndexOptions) -> Any:
    """FAISS's exact index on the first GPU, vectors kept in half precision."""
    config = faiss.GpuIndexFlatConfig()
    config.useFloat16 = True
    return faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), options.dimension, config)


class _MaskedFlat(ABC):
    """What both GPU indexes share: rows, tombstones, checks and padding. No training and nothing approximate but the rounding to fp16."""

    kind = KIND

    def __init__(self, options: IndexOptions) -> None:
        self._options = options
        self._rows = LiveRows(options)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def live(self) -> int:
        return self._rows.live

    @property
    def needs_compaction(self) -> bool:
        return self._rows.needs_compaction

    def add(self, vectors: F32) -> None:
        block = checked_vectors(vectors, self._options.dimension)
        if len(block):
            self._append(block)
            self._rows.extend(len(block))

    def remove(self, rows: I64) -> None:
        self._rows.remove(rows)

    def search(self, queries: F32, k: int, allowed: Mask | None = None, sure: int = 0) -> tuple[F32, I64]:
        batch = checked_queries(queries, self._options.dimension)
        mask, count = self._rows.select(allowed)
        found = min(checked_k(k), count)
        if not found or not len(batch):
            return padding(len(batch), k)
        return padded(*self._nearest(batch, found, mask, count), k)

    def maintain(self) -> None:  # noqa: B027 - a flat index has no upkeep, that is its implementation
        """Nothing to do."""

    def close(self) -> None:  # noqa: B027
        """Device memory goes with the object."""

    @abstractmethod
    def _append(self, block: F32) -> None:
        """Store checked vectors [n, d], n > 0, behind the last row."""

    @abstractmethod
    def _nearest(self, batch: F32, k: int, mask: Mask | None, count: int) -> tuple[F32, I64]:
        """The best `k` of the `count` rows that the mask lets through, 0 < k <= count."""


class FaissFlatIndex(_MaskedFlat):
    """VectorIndex over a FAISS flat index (GPU, or CPU in tests) that knows neither filters nor tombstones: it fetches more, then sifts."""

    def __init__(self, options: IndexOptions, inner: Any) -> None:
        super().__init__(options)
        self._inner = inner

    @property
    def nbytes(self) -> int:
        return 2 * len(self) * self._options.dimension + self._rows.nbytes

    def _append(self, block: F32) -> None:
        self._inner.add(block)

    def _nearest(self, batch: F32, k: int, mask: Mask | None, count: int) -> tuple[F32, I64]:
        fetch = k if mask is None else min(len(self), math.ceil(1.3 * k * len(self) / count))
        if fetch > FAISS_GPU_MAX_K:
            return self._on_host(batch, k, mask)
        near, who = self._inner.search(batch, fetch)
        if mask is None:
            return near, who
        passed = mask[who]
        ranks = np.cumsum(passed, axis=1)
        scores, rows = padding(len(batch), k)
        enough = ranks[:, -1] >= k
        chosen = (passed & (ranks <= k))[enough]
        scores[enough], rows[enough] = near[enough][chosen].reshape(-1, k), who[enough][chosen].reshape(-1, k)
        if not enough.all():
            scores[~enough], rows[~enough] = self._on_host(batch[~enough], k, mask)
        return scores, rows

    def _on_host(self, batch: F32, k: int, mask: Mask | None) -> tuple[F32, I64]:
        """Compare the allowed rows on the CPU: a selective filter leaves few, and no GPU limit on k applies."""
        chosen = np.arange(len(self)) if mask is None else np.flatnonzero(mask)
        scores, places = exact_search(self.reconstruct(chosen), batch, k, self._options.block_bytes)
        return scores, chosen[places]

    def reconstruct(self, rows: I64) -> F32:
        vectors: F32 = self._inner.reconstruct_batch(checked_rows(rows, len(self)))
        return vectors

    def compact(self) -> I64:
        kept = self.reconstruct(np.flatnonzero(self._rows.mask))
        self._inner.reset()
        self._inner.add(kept)
        return self._rows.compact()


class TorchFlatIndex(_MaskedFlat):
    """VectorIndex on a torch device: half precision on CUDA, single on the CPU (where half has no fast product)."""

    def __init__(self, options: IndexOptions, device: str) -> None:
        import torch

        super().__init__(options)
        self._torch = torch
        self._device = torch.device(device)
        self._dtype = torch.float16 if self._device.type == "cuda" else torch.float32
        self._slab = self._empty(0)

    def _empty(self, rows: int) -> Any:
        return self._torch.empty((rows, self._options.dimension), dtype=self._dtype, device=self._device)

    def _to_device(self, array: Any) -> Any:
        return self._torch.as_tensor(array, device=self._device)

    @property
    def nbytes(self) -> int:
        return int(self._slab.numel() * self._slab.element_size()) + self._rows.nbytes

    def _append(self, block: F32) -> None:
        start, end = len(self), len(self) + len(block)
        if end > len(self._slab):
            slab = self._empty(grown(len(self._slab), end, self._options.growth))
            slab[:start] = self._slab[:start]
            self._slab = slab
        self._slab[start:end] = self._to_device(block).to(self._dtype)

    def _nearest(self, batch: F32, k: int, mask: Mask | None, count: int) -> tuple[F32, I64]:
        torch = self._torch
        vectors = self._slab[: len(self)]
        dead = None if mask is None else self._to_device(~mask)
        scores, rows = padding(len(batch), k)
        step = max(1, self._options.block_bytes * 4 // (4 * len(self)))  # a GPU wants larger blocks than a cache
        for start in range(0, len(batch), step):
            part = slice(start, start + step)
            similarity = (self._to_device(batch[part]).to(self._dtype) @ vectors.T).float()
            if dead is not None:
                similarity.masked_fill_(dead, -math.inf)
            near, who = torch.topk(similarity, k, dim=1)
            scores[part], rows[part] = near.cpu().numpy(), who.cpu().numpy()
        return scores, rows

    def reconstruct(self, rows: I64) -> F32:
        vectors: F32 = self._slab[self._to_device(checked_rows(rows, len(self)))].float().cpu().numpy()
        return vectors

    def compact(self) -> I64:
        self._slab = self._slab[: len(self)][self._to_device(self._rows.mask)]
        return self._rows.compact()
