"""Sparse codes: exact, alike for like vectors, defined for every input."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp.code import F32, CodeOptions, SparseCoder, scale_exponent, signs
from ndml.btsp.kernels.reference import ReferenceKernels
from ndml.errors import EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid


def unit(rng: np.random.Generator, n: int, d: int) -> F32:
    rows = rng.standard_normal((n, d)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@settings(max_examples=25, deadline=None)
@given(d=st.integers(1, 700), n=st.integers(0, 4), length=st.floats(0, 1), seed=st.integers(0, 99))
def test_any_dimension_gives_one_unit_a_block_and_the_references_code(d: int, n: int, length: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    options, mean = CodeOptions.fitting(d), np.float32(length) * unit(rng, 1, d)[0]
    vectors = unit(rng, n, d)
    codes = SparseCoder(options, mean).encode(vectors)
    assert codes.shape == (n, options.active) and codes.dtype == np.int32
    assert (codes // (options.units // options.active) == np.arange(options.active)).all()
    assert np.array_equal(codes, SparseCoder(options, mean, ReferenceKernels()).encode(vectors))


def test_a_code_is_the_same_on_every_machine() -> None:
    """Vectors made by integer arithmetic, so that the digest holds wherever IEEE floats do."""
    rows = ((np.arange(40 * 384) * 7919 % 2003 - 1001).astype(np.float32) / np.float32(16384)).reshape(40, 384)
    mean = (np.arange(384) % 13 - 6).astype(np.float32) / np.float32(512)
    codes = SparseCoder(CodeOptions(384), mean).encode(rows)
    assert hashlib.sha256(codes.astype("<i4").tobytes()).hexdigest() == DIGEST


DIGEST = "d63130dfb154b12e13cf30d1db07dc79a755ed6e2b4f4a5a3a999b8b4853f8f6"


def test_like_vectors_share_more_units() -> None:
    rng = np.random.default_rng(0)
    coder, rows, noise = SparseCoder(CodeOptions(384)), unit(rng, 300, 384), unit(rng, 300, 384)
    shares = []
    for cosine in (1.0, 0.95, 0.8, 0.5, 0.0):
        mixed = cosine * rows + np.sqrt(1 - cosine**2) * noise
        near = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
        shares.append(float((coder.encode(rows) == coder.encode(near)).mean()))
    assert shares == pytest.approx([1.0, 0.667, 0.401, 0.174, 1 / 32], abs=0.006)  # as measured; unrelated: one of the 32 units of a block


def test_length_does_not_matter_and_the_mean_itself_has_a_code() -> None:
    rng = np.random.default_rng(1)
    rows = unit(rng, 50, 384)
    coder = SparseCoder(CodeOptions(384))
    assert (coder.encode(rows) == coder.encode(np.float32(0.5) * rows)).mean() > 0.95  # up to rounding
    mean = np.float32(0.5) * rows[0]
    silent = SparseCoder(CodeOptions(384), mean).encode(mean[None])
    assert np.array_equal(silent[0], 32 * np.arange(256))


def test_zero_and_constant_vectors_have_codes_of_their_own() -> None:
    coder, flat = SparseCoder(CodeOptions(384)), np.full((1, 384), 1 / np.sqrt(384), np.float32)
    zero, up, down, shorter = (coder.encode(rows)[0] for rows in (np.float32(0) * flat, flat, -flat, np.float32(0.25) * flat))
    assert np.array_equal(zero, 32 * np.arange(256)), "no block has a largest sum: the first unit of each"
    assert np.array_equal(up, shorter) and (up == down).mean() < 0.05, "direction counts and length does not"
    meaningful = coder.encode(unit(np.random.default_rng(2), 300, 384))
    for odd in (zero, up, down):
        assert (meaningful == odd).mean(axis=1).max() < 0.12  # chance is 1/32, with a spread of .011


@pytest.mark.parametrize(("d", "length"), [(1, 1.0), (384, 0.0), (384, 1.0), (1000, 1.0), (4096, 1.0), (16384, 1.0)])
def test_no_sum_of_the_worst_vector_leaves_sixteen_bits(d: int, length: float) -> None:
    coder = SparseCoder(CodeOptions.fitting(d), np.full(d, -length / np.sqrt(d), np.float32))
    worst = coder.quantised(np.full((1, d), 1 / np.sqrt(d), np.float32)).astype(np.int64)
    assert np.abs(worst).sum() <= 32767
    assert 2.0 ** scale_exponent(d, length) / np.sqrt(d) >= 0.5, "a typical component is half a step of the rounding and more"


def test_signs_are_balanced_and_belong_to_the_seed() -> None:
    first, second = signs(CodeOptions(384)), signs(CodeOptions(384, seed=1))
    assert set(np.unique(first)) == {-1, 1} and abs(float(first.mean())) < 0.05
    assert abs(float((first * second).mean())) < 0.05


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (np.zeros((2, 383), np.float32), EmbeddingDimensionMismatch),
        (np.zeros(384, np.float32), EmbeddingDimensionMismatch),
        (np.full((1, 384), np.nan, np.float32), EmbeddingNotFinite),
        (np.full((1, 384), np.inf, np.float32), EmbeddingNotFinite),
        (np.ones((1, 384), np.float32), FieldInvalid),
    ],
)
def test_bad_vectors_are_refused_with_their_field(rows: np.ndarray, error: type[FieldInvalid]) -> None:
    with pytest.raises(error) as caught:
        SparseCoder(CodeOptions(384)).encode(rows)
    assert caught.value.violations[0].field == "embedding"


CHANGES = [
    *({"dimension": 0}, {"dimension": 16385}, {"units": 8200}, {"units": 0}, {"active": 100}, {"active": 0}, {"active": 8192}),
    *({"active": 4, "units": 1 << 18}, {"active": 4096, "units": 1 << 17}, {"seed": -1}),
]


@pytest.mark.parametrize("changed", CHANGES)
def test_bad_options_are_refused_with_their_field(changed: dict[str, int]) -> None:
    with pytest.raises(FieldInvalid) as caught:
        CodeOptions(**{"dimension": 384, **changed})
    assert caught.value.violations[0].field in changed
