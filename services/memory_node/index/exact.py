"""Exact search over a matrix by BLAS: the reference that every other index is measured against, and the small index itself."""

from __future__ import annotations

import numpy as np

from services.memory_node.index.ports import F32, I64, Mask

# Two float32 inner products of unit vectors that differ by less are the same number: BLAS sums a row in another order at
# another position (blocks, tails), so equal vectors score up to this far apart.
ROUNDING = np.float32(1e-6)


def padding(batch: int, k: int) -> tuple[F32, I64]:
    """An answer without hits: scores [batch, k] of -inf, rows of -1."""
    return np.full((batch, k), -np.inf, dtype=np.float32), np.full((batch, k), -1, dtype=np.int64)


def padded(scores: F32, rows: I64, k: int) -> tuple[F32, I64]:
    """The answer [b, found] filled up to [b, k]."""
    if scores.shape[1] == k:
        return scores, rows
    all_scores, all_rows = padding(len(scores), k)
    all_scores[:, : scores.shape[1]], all_rows[:, : scores.shape[1]] = scores, rows
    return all_scores, all_rows


def exact_search(vectors: F32, queries: F32, k: int, block_bytes: int, mask: Mask | None = None) -> tuple[F32, I64]:
    """The k rows of `vectors` [n, d] with the largest inner product with each query [b, d]; ties give the lower row first.

    `k` <= rows that `mask` lets through (all without one). Holds at most about `block_bytes` of scores at a time.
    """
    n, batch = len(vectors), len(queries)
    step = max(1, block_bytes // (4 * max(n, 1)))
    if batch <= step:
        return _search_block(vectors, queries, k, mask)
    scores, rows = padding(batch, k)
    for start in range(0, batch, step):
        part = slice(start, start + step)
        scores[part], rows[part] = _search_block(vectors, queries[part], k, mask)
    return scores, rows


def _search_block(vectors: F32, queries: F32, k: int, mask: Mask | None) -> tuple[F32, I64]:
    similarity = queries @ vectors.T
    if mask is not None:
        similarity[:, ~mask] = -np.inf
    scores, rows = largest(similarity, min(k + 1, len(vectors)))  # one more, to see whether it ties with the last
    tied = scores[:, :-1] - scores[:, 1:] <= ROUNDING
    scores, rows = scores[:, :k], rows[:, :k]
    if tied.any():
        for line in np.flatnonzero(tied.any(axis=1)):
            scores[line], rows[line] = _ordered_line(similarity[line], vectors, queries[line], scores[line])
    return scores, rows


def largest(values: F32, k: int) -> tuple[F32, I64]:
    """The k largest of each line of [b, n], descending, and their columns; k <= n. Ties in no particular order."""
    batch, n = values.shape
    if batch == 1:  # half the time of the general way, which is as long as the product itself for one query and few rows
        line = values[0]
        columns = line.argpartition(n - k)[n - k :] if 0 < k < n else np.arange(n)[:k]
        columns = columns[np.argsort(-line[columns], kind="stable")]
        return line[columns][None], columns[None]
    lines = np.arange(batch)[:, None]
    if k < n:
        columns = np.argpartition(values, n - k, axis=1)[:, n - k :]
        columns = columns[lines, np.argsort(-values[lines, columns], axis=1, kind="stable")]
    else:
        columns = np.argsort(-values, axis=1, kind="stable")
    return values[lines, columns], columns


def _ordered_line(similarity: F32, vectors: F32, query: F32, scores: F32) -> tuple[F32, I64]:
    """One line's answer with rows that score alike in the order of their number."""
    sure = np.flatnonzero(similarity > scores[-1] + ROUNDING)
    band = np.flatnonzero(np.abs(similarity - scores[-1]) <= ROUNDING)[: len(scores) - len(sure)]
    rows = np.concatenate([sure, band])
    again = (vectors[rows] * query).sum(axis=1, dtype=np.float64).astype(np.float32)  # the same for equal vectors wherever they stand
    order = np.lexsort((rows, -again))
    return again[order], rows[order]
