"""On a machine with a GPU: the index it picks answers like the exact one. Elsewhere test_index.py runs the same code on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from ndml.testing.vectors import sentence_like
from services.memory_node.index import IndexOptions
from services.memory_node.index.flat import FlatIndex
from services.memory_node.index.gpu import gpu_builder


def test_the_gpu_index_equals_the_exact_one() -> None:
    build = gpu_builder()
    if build is None:
        pytest.skip("no GPU that FAISS or torch can use")
    vectors, queries = sentence_like(20_000, 128)
    options = IndexOptions(384)
    gpu, flat = build(options, vectors[:64]), FlatIndex(options)
    rng = np.random.default_rng(0)
    gone = np.flatnonzero(rng.random(20_000) < 0.1)
    for index in (gpu, flat):
        index.add(vectors)
        index.remove(gone)
    for allowed in (None, rng.random(20_000) < 0.3, rng.random(20_000) < 0.002):
        expected, _ = flat.search(queries, 10, allowed)
        scores, rows = gpu.search(queries, 10, allowed)
        np.testing.assert_allclose(scores, expected, atol=2e-3)
        assert not np.isin(rows, gone).any()
    assert gpu.compact().tolist() == flat.compact().tolist()
    np.testing.assert_allclose(gpu.search(queries, 10)[0], flat.search(queries, 10)[0], atol=2e-3)
