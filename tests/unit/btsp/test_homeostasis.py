"""Homeostasis: off it changes nothing, on it keeps signals in range."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ndml.btsp.homeostasis import HomeostasisOptions, LogGain, UsageEqualiser, compete
from ndml.errors import FieldInvalid

OFF = HomeostasisOptions()
RANDOM = np.random.default_rng(5)


def test_off_by_default() -> None:
    gain, usage = LogGain(OFF), UsageEqualiser(8, OFF)
    salience, scores = np.array([0.1, 0.9]), np.array([0.9, 0.8], np.float32)
    assert gain.observe(0.01) == 1.0
    assert gain.apply(salience) is salience
    usage.observe(np.zeros((5, 1), np.int64))
    assert not usage.bias.any() and usage.uses[0] == 5
    assert compete(scores, np.ones((2, 3), np.float32), OFF) is scores


@pytest.mark.parametrize("level", [0.2, 0.9])
def test_scaling_brings_the_mean_to_its_target_and_keeps_order(level: float) -> None:
    gain = LogGain(HomeostasisOptions(scaling_rate=0.05))
    saliences = np.clip(level + 0.05 * RANDOM.standard_normal(400), 0.01, 1.0)
    for value in saliences.tolist():
        gain.observe(value)
    scaled = gain.apply(saliences)
    assert scaled.mean() == pytest.approx(0.5, abs=0.05)
    assert (np.argsort(scaled, kind="stable") == np.argsort(saliences, kind="stable")).all()


def test_the_gain_has_a_bound() -> None:
    gain = LogGain(HomeostasisOptions(scaling_rate=1.0, most_gain=2.0))
    assert gain.observe(1e-12) == pytest.approx(2.0)
    assert gain.observe(0.0) == pytest.approx(2.0)
    assert gain.observe(math.nan) == pytest.approx(2.0)


def test_usage_is_evened_out() -> None:
    """Winners of noisy inputs with a few strong units: equalised, no unit is used more than five times the mean."""
    drive = np.where(np.arange(200) < 10, 0.8, 0.0)
    worst = {}
    for rate in (0.0, 0.02):
        usage = UsageEqualiser(200, HomeostasisOptions(usage_rate=rate))
        for _ in range(300):
            inputs = drive + RANDOM.random(200) + usage.bias
            usage.observe(np.argsort(-inputs)[None, :10])
        worst[rate] = usage.uses.max() / usage.uses.mean()
        assert (usage.overused().size > 0) == (rate == 0.0)
    assert worst[0.02] < 5 < worst[0.0]


def test_of_hits_that_say_the_same_the_weaker_yield() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    scores = np.array([0.9, 0.7, 0.6], np.float32)
    after = compete(scores, vectors, HomeostasisOptions(competition_strength=1.0))
    assert after[0] == scores[0] and after[2] == scores[2]
    assert after[1] == pytest.approx(0.7 - 0.2 * 0.2)


@pytest.mark.parametrize(
    "wrong", [{"scaling_rate": 2.0}, {"usage_rate": -1.0}, {"most_gain": 0.5}, {"competition_from": 1.0}, {"target_salience": 0.0}]
)
def test_options_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(FieldInvalid):
        HomeostasisOptions(**wrong)
