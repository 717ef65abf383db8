"""One index that is exact while small and becomes quantised in the background when it has grown.

Who may touch what: the worker thread owns the AdaptiveIndex and everything in it. The trainer thread gets a read-only view of the
slab's first n rows (never rewritten in place) and builds an index of its own from it; it hands that over through a Future and keeps
nothing. So there is no lock, and a search always sees a whole index.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

import numpy as np

from services.memory_node.index.flat import FlatIndex
from services.memory_node.index.options import IndexOptions
from services.memory_node.index.ports import F32, I64, Mask, VectorIndex

Build = Callable[[IndexOptions, F32], VectorIndex]
"""Makes an empty large index that has learned from a sample [m, d]."""


QUANTISED_SHARE = 0.55
"""Bytes of a quantised row by those of a float32 row, rounded up: what the trainer is about to hold counts before it hands it over."""


class Phase(Enum):
    """Where an AdaptiveIndex stands."""

    FLAT = "flat"
    TRAINING = "training"
    CATCHING_UP = "catching_up"
    LARGE = "large"


@dataclass(frozen=True, slots=True)
class IndexState:
    """What `poll` found: the phase now, whether this very poll swapped the index, and a failed training's error (told once)."""

    phase: Phase
    swapped: bool = False
    error: BaseException | None = None


def background_trainer() -> ThreadPoolExecutor:
    """One thread for all partitions' trainings, at a lower priority than the ones that answer where the system has such a thing."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="index-trainer", initializer=_yield_to_others)


def _yield_to_others() -> None:
    if sys.platform == "linux":  # elsewhere a nice value belongs to the process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def build_from(options: IndexOptions, build: Build, snapshot: F32, alive: Mask, cancelled: threading.Event) -> VectorIndex | None:
    """An index of all rows of `snapshot` [n, d], learned from a sample of the live ones; None when cancelled. For the trainer thread."""
    if cancelled.is_set():
        return None
    rows = np.flatnonzero(alive)
    if rows.size > options.train_sample:
        rows = np.sort(np.random.default_rng(rows.size).choice(rows, options.train_sample, replace=False))
    index = build(options, snapshot[rows])
    for start in range(0, len(snapshot), options.build_chunk):
        if cancelled.is_set():
            return None
        index.add(snapshot[start : start + options.build_chunk])
    index.maintain()
    return index


class AdaptiveIndex:
    """VectorIndex that starts flat and swaps itself for what `build` makes; call `poll` between batches.

    A failed training leaves the flat index in place. `compact` and `close` cancel a training under way.
    """

    def __init__(self, options: IndexOptions, trainer: Executor, build: Build) -> None:
        self._options = options
        self._trainer = trainer
        self._build = build
        self._flat: FlatIndex | None = FlatIndex(options)
        self._active: VectorIndex = self._flat
        self._job: Future[VectorIndex | None] | None = None
        self._cancelled = threading.Event()
        self._candidate: VectorIndex | None = None
        self._train_from = options.fast_scan_from
        self._attempts_left = options.train_attempts

    @property
    def kind(self) -> str:
        return self._active.kind

    def __len__(self) -> int:
        return len(self._active)

    @property
    def live(self) -> int:
        return self._active.live

    @property
    def nbytes(self) -> int:
        under_way = QUANTISED_SHARE * 4 * self._options.dimension * len(self) if self._job else 0
        return self._active.nbytes + int(under_way) + (self._candidate.nbytes if self._candidate else 0)

    @property
    def needs_compaction(self) -> bool:
        return self._active.needs_compaction

    @property
    def phase(self) -> Phase:
        if self._flat is None:
            return Phase.LARGE
        if self._candidate is not None:
            return Phase.CATCHING_UP
        return Phase.FLAT if self._job is None else Phase.TRAINING

    def add(self, vectors: F32) -> None:
        self._active.add(vectors)

    def remove(self, rows: I64) -> None:
        self._active.remove(rows)

    def search(self, queries: F32, k: int, allowed: Mask | None = None, sure: int = 0) -> tuple[F32, I64]:
        return self._active.search(queries, k, allowed, sure)

    def reconstruct(self, rows: I64) -> F32:
        return self._active.reconstruct(rows)

    def compact(self) -> I64:
        self._give_up_job()
        return self._active.compact()

    def maintain(self) -> None:
        """`poll`, for a caller that does not look at the state."""
        self.poll()

    def close(self) -> None:
        self._give_up_job()

    def poll(self) -> IndexState:
        """Take the next step towards the large index: start training, look whether it is done, catch up, swap. Bounded, never waits."""
        if self._flat is None:
            self._active.maintain()
            return IndexState(Phase.LARGE)
        if self._candidate is not None:
            return self._catch_up(self._flat, self._candidate)
        if self._job is not None:
            return self._look_at(self._job)
        if self._attempts_left and self.live >= self._train_from:
            self._start_job(self._flat)
        return IndexState(self.phase)

    def _start_job(self, flat: FlatIndex) -> None:
        self._cancelled = threading.Event()
        self._job = self._trainer.submit(build_from, self._options, self._build, flat.vectors, flat.alive.copy(), self._cancelled)

    def _look_at(self, job: Future[VectorIndex | None]) -> IndexState:
        if not job.done():
            return IndexState(Phase.TRAINING)
        self._job = None
        error = job.exception()
        if error is not None:
            self._attempts_left -= 1
            self._train_from = 2 * self.live
            return IndexState(Phase.FLAT, error=error)
        self._candidate = job.result()
        return IndexState(self.phase)

    def _catch_up(self, flat: FlatIndex, candidate: VectorIndex) -> IndexState:
        done = len(candidate)
        candidate.add(flat.vectors[done : done + self._options.catch_up_rows])
        if len(candidate) < len(flat):
            return IndexState(Phase.CATCHING_UP)
        candidate.remove(np.flatnonzero(~flat.alive))
        self._active, self._flat, self._candidate = candidate, None, None
        return IndexState(Phase.LARGE, swapped=True)

    def _give_up_job(self) -> None:
        self._cancelled.set()
        if self._job is not None:
            self._job.cancel()
        self._job = self._candidate = None
