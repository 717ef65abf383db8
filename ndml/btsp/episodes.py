"""Where one episode ends and the next begins: at a turn that surprises, given what was said just before. Embeddings only, no model.

    surprise_t = 1 - cos(context, e_t)      context <- .6 context + e_t
    boundary   : surprise_t > mean + gamma * deviation of the surprises before it, or another session begins

As EM-LLM cuts a text (Fountas et al. 2025, arXiv 2407.09450), with the distance of embeddings in place of a language model's surprise.
Context and statistics look back a fixed number of turns, so a boundary depends on the `reach` turns before it and on nothing earlier: who
looks at a part of a session sees the same boundaries as who looks at all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]

_ROUNDING = 1e-6
"""Of a cosine in single precision: what is said again in the same words surprises nobody."""


@dataclass(frozen=True, slots=True)
class EpisodeOptions:
    """decay of the context from turn to turn; window: turns that context and statistics look back; gamma: deviations above the mean that
    make a boundary; fewest: surprises of a session that statistics need."""

    decay: float = 0.6
    window: int = 20
    gamma: float = 1.0
    fewest: int = 4

    @property
    def reach(self) -> int:
        """Turns before a turn that its boundary depends on."""
        return 2 * self.window


def boundaries(vectors: F32, sessions: I64, options: EpisodeOptions | None = None) -> Flags:
    """[n] True where a turn begins an episode: turns in their order with unit vectors [n, d] and their sessions' numbers [n]."""
    options = options or EpisodeOptions()
    count = len(vectors)
    first = np.ones(count, np.bool_)
    first[1:] = sessions[1:] != sessions[:-1]
    surprise = surprises(vectors, first, options)
    begins = first.copy()
    start = 0
    for turn in range(count):
        if first[turn]:
            start = turn + 1  # the first turn of a session surprises nobody: there is nothing before it
            continue
        before = surprise[max(start, turn - options.window) : turn]
        if len(before) >= options.fewest:
            begins[turn] = surprise[turn] > before.mean() + options.gamma * before.std() + _ROUNDING
    return begins


def surprises(vectors: F32, first: Flags, options: EpisodeOptions) -> NDArray[np.float64]:
    """[n] 1 - cosine of each turn and its context, 0 where nothing was said before it; first [n]: turns that begin a session."""
    count = len(vectors)
    context = np.zeros(vectors.shape, np.float64)
    session = np.cumsum(first)
    for lag in range(1, min(options.window, count - 1) + 1):
        same = session[lag:] == session[:-lag]
        context[lag:][same] += options.decay ** (lag - 1) * vectors[:-lag][same]
    length = np.linalg.norm(context, axis=1)
    cosine = np.einsum("nd,nd->n", context, vectors) / np.maximum(length, np.finfo(np.float64).tiny)
    return np.where((length > 0) & ~first, 1.0 - cosine, 0.0)


def episode_of(begins: Flags, turn: int) -> tuple[int, int]:
    """First and last turn of the episode that a turn is in."""
    starts = np.flatnonzero(begins)
    place = int(np.searchsorted(starts, turn, side="right"))
    first = int(starts[place - 1]) if place else 0
    return first, int(starts[place]) - 1 if place < len(starts) else len(begins) - 1
