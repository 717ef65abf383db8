"""Vectors from outside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndml.errors import EmbeddingDimensionMismatch, EmbeddingModelMismatch, EmbeddingNotFinite
from ndml.v1 import types_pb2
from services.gateway.vectors import VectorSpace

SPACE = VectorSpace("m", 4)


def _embedding(values: list[float], model: str = "") -> types_pb2.Embedding:
    return types_pb2.Embedding(vector=np.array(values, "<f4").tobytes(), model=model)


rows = st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4).filter(lambda v: sum(x * x for x in v) > 1e-6)


@given(st.lists(rows, max_size=6))
def test_accepted_vectors_have_unit_length_and_keep_their_direction(rows: list[list[float]]) -> None:
    accepted = SPACE.accept([_embedding(r) for r in rows], lambda i: f"v[{i}]")
    for row, vector in zip(rows, accepted, strict=True):
        unit = np.frombuffer(vector, "<f4").astype(np.float64)
        assert abs(np.linalg.norm(unit) - 1) < 1e-5
        assert np.dot(unit, row) > 0.999 * np.linalg.norm(row)


@pytest.mark.parametrize("values", [[np.nan, 1, 1, 1], [np.inf, 0, 0, 0], [0, 0, 0, 0], [3e38, 3e38, 3e38, 3e38]])
def test_values_that_have_no_direction_are_refused_by_position(values: list[float]) -> None:
    with pytest.raises(EmbeddingNotFinite) as caught:
        SPACE.accept([_embedding([1, 0, 0, 0]), _embedding(values)], lambda i: f"memories[{i}].embedding")
    assert caught.value.violations[0].field == "memories[1].embedding.vector"


def test_dimension_and_model_are_the_suites() -> None:
    with pytest.raises(EmbeddingDimensionMismatch, match="expected 16"):
        SPACE.accept([_embedding([1, 2, 3])], lambda _: "e")
    with pytest.raises(EmbeddingModelMismatch):
        SPACE.accept([_embedding([1, 2, 3, 4], "other")], lambda _: "e")
    assert SPACE.accept([_embedding([1, 2, 3, 4], "m")], lambda _: "e")
