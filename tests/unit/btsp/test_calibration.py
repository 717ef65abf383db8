"""Calibration: thresholds are the quantiles they claim to be, and a profile survives its file."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from ndml.btsp.calibration import GateProfile, Sample, calibrate, degraded, from_json, mean_of, nearest_cosine, plain, shipped
from ndml.errors import EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid, ModelNotConfigured

F32 = NDArray[np.float32]


def unit(rows: NDArray[np.float64]) -> F32:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def sample(rows: int = 400) -> Sample:
    random = np.random.default_rng(3)
    stored = unit(random.standard_normal((rows, 32)) + 0.5)
    restated, copied = (unit(stored + noise * random.standard_normal(stored.shape)) for noise in (0.1, 0.05))
    return Sample(stored, restated, copied)


def crowded(mean: F32, stored: F32, asked: F32) -> F32:
    """A familiarity that rises with the fill, as the index's does."""
    return (
        np.asarray(nearest_cosine(unit((stored - mean).astype(np.float64)), unit((asked - mean).astype(np.float64))) / 2, np.float32)
        + len(stored) / 2000
    )


def profile(target_miss: float = 0.02) -> GateProfile:
    return calibrate(sample(), crowded, (100, 400, 9999), model="m", index="i", calibrated_on="noise", target_miss=target_miss)


@pytest.mark.parametrize("target", [0.02, 0.1])
def test_the_target_share_of_restatements_is_missed(target: float) -> None:
    made, texts = profile(target), sample()
    at = made.thresholds(400)
    known = crowded(mean_of(texts.stored), texts.stored, texts.restated)
    assert (known < at.novel).mean() == pytest.approx(target, abs=0.003)
    cosine = nearest_cosine(texts.stored, texts.restated)
    assert (cosine < at.distant).mean() == pytest.approx(target, abs=0.003)
    assert (cosine < at.related).mean() == pytest.approx(0.5, abs=0.003)
    assert (np.einsum("nd,nd->n", texts.stored, texts.copied) < at.duplicate).mean() == pytest.approx(0.1, abs=0.003)


def test_novelty_is_a_curve_over_the_fill() -> None:
    made = profile()
    assert [fill for fill, _ in made.novel] == [100, 400]
    low, high = (level for _, level in made.novel)
    assert low < high
    assert made.thresholds(250).novel == pytest.approx((low + high) / 2)
    assert made.thresholds(0).novel == low and made.thresholds(10**6).novel == high


def test_a_profile_survives_its_file() -> None:
    made = profile()
    read = from_json(made.to_json())
    assert read.to_json() == made.to_json()
    assert read.mean.tobytes() == made.mean.tobytes() and read.thresholds(250) == made.thresholds(250)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"model"', '"modell"'),
        ('"dimension": 32', '"dimension": 31'),
        ('"mean": "', '"mean": "!'),
        ('"related": 0', '"related": 9'),
        ("{", "["),
    ],
)
def test_a_broken_file_is_refused(old: str, new: str) -> None:
    text = profile().to_json()
    assert old in text
    with pytest.raises((FieldInvalid, EmbeddingDimensionMismatch)):
        from_json(text.replace(old, new, 1))


def test_the_shipped_profile_is_for_its_model() -> None:
    made = shipped("all-MiniLM-L6-v2")
    assert made.dimension == 384 and made.count >= 5000 and made.target_miss == 0.02
    levels = [level for _, level in made.novel]
    assert levels == sorted(levels) and 0 < levels[0] < levels[-1] < 0.6
    assert made.distant < made.related < made.duplicate
    for unknown in ("nomic", "../calibration", "a/b"):
        with pytest.raises(ModelNotConfigured, match="no gate profile"):
            shipped(unknown)


def test_restatements_lose_three_words_in_ten_and_never_all() -> None:
    words = [f"w{i}" for i in range(2000)]
    left = degraded(" ".join(words), Random(1)).split()
    assert len(left) / 2000 == pytest.approx(0.7, abs=0.04)
    assert left == [word for word in words if word in set(left)]
    assert degraded("hello there", Random(1), dropout=1.0) == "hello there"
    assert degraded("one two three", Random(4)) == degraded("one two three", Random(4))
    assert plain("Well, Tom's  CAT—gone?") == "well tom's cat gone"


def test_a_models_mean_steadies_a_small_partition() -> None:
    model, own = np.ones(4, np.float32), np.zeros((32, 4), np.float32)
    assert mean_of(own, model).tolist() == [0.5] * 4
    assert mean_of(np.zeros((0, 4), np.float32), model).tolist() == [1.0] * 4
    assert mean_of(np.repeat(own, 100, axis=0), model).max() < 0.02


def test_bad_samples_are_refused() -> None:
    good = sample(100)
    with pytest.raises(EmbeddingDimensionMismatch):
        Sample(good.stored, good.restated[:-1], good.copied)
    with pytest.raises(FieldInvalid, match="at least 100"):
        Sample(good.stored[:50], good.restated[:50], good.copied[:50])
    with pytest.raises(EmbeddingNotFinite):
        Sample(good.stored * np.nan, good.restated, good.copied)
    for fills in ((), (10,)):
        with pytest.raises(FieldInvalid, match="fills"):
            calibrate(good, crowded, fills, model="m", index="i", calibrated_on="")
    with pytest.raises(FieldInvalid, match="familiarity"):
        calibrate(good, lambda mean, stored, asked: asked[:1, 0], (100,), model="m", index="i", calibrated_on="")
