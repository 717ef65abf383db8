"""The continual-learning bench is what it says: slopes are slopes, validation is not the test, forgetting is counted right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.quality import continual
from tests.quality.continual import (
    METHODS,
    Method,
    Outcome,
    choose,
    evaluate,
    halves,
    markdown,
    replace_results,
    run,
    split_tasks,
    summarise,
)
from tests.quality.continual_methods import F32, I64, Ewc, NearestNeighbours, Perceptron, Slda


def _loss(learner: Perceptron, images: F32, labels: I64) -> float:
    logits = learner._forward(images)[1].astype(np.float64)
    return float((np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]).mean())


def test_slopes_are_those_of_the_loss() -> None:
    random = np.random.default_rng(0)
    learner = Perceptron(random, 6, hidden=8)
    learner.parameters = [p.astype(np.float64) for p in learner.parameters]
    images, labels = random.random((5, 6)).astype(np.float32), random.integers(0, 10, 5)
    slopes = learner._gradient(images, labels, np.full(5, 0.2, np.float32))
    for parameter, slope in zip(learner.parameters, slopes, strict=True):
        at = tuple(int(random.integers(n)) for n in parameter.shape)
        losses = []
        for step in (-1e-5, 2e-5):
            parameter[at] += step
            losses.append(_loss(learner, images, labels))
        parameter[at] -= 1e-5
        assert (losses[1] - losses[0]) / 2e-5 == pytest.approx(float(slope[at]), abs=1e-5)


def test_a_stiff_anchor_holds_and_a_loose_one_does_not() -> None:
    training, asked = halves(np.random.default_rng(0), np.arange(150), 0.8)
    first, second = split_tasks(training, asked, 0)[:2]
    moved = {}
    for strength in (0.0, 1e6):
        learner = Ewc(np.random.default_rng(1), 64, strength=strength)
        learner.fit(first.images, first.labels)
        before, informed = learner.parameters[2].copy(), learner._fisher[2] > 1e-4
        learner.fit(second.images, second.labels)
        assert np.isfinite(learner.parameters[2]).all()
        moved[strength] = float(np.abs(learner.parameters[2] - before)[informed].max())
    assert moved[1e6] < 0.01 * moved[0.0]


def test_streaming_discriminant_equals_the_whole() -> None:
    random = np.random.default_rng(3)
    images, labels = random.random((60, 4)).astype(np.float32), np.arange(60) % 3
    learner = Slda(4)
    for part in (slice(0, 20), slice(20, 60)):
        learner.fit(images[part], labels[part])
    for label in range(3):
        assert learner._means[label] == pytest.approx(images[labels == label].mean(0), abs=1e-6)


def test_settings_are_chosen_without_the_test_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked during selection and what is asked at the end have no image in common, and the end asks each once a task row."""
    asked: list[set[bytes]] = []

    class Recorder(NearestNeighbours):
        def predict(self, images: F32) -> I64:
            asked[-1] |= {image.tobytes() for image in images}
            return super().predict(images)

    def make(random: np.random.Generator, settings: continual.Settings) -> Recorder:
        asked.append(set())
        return Recorder(64)

    monkeypatch.setattr(continual, "digits", lambda: _distinct())
    outcome = evaluate(Method("recorder", make, ({"a": 1}, {"a": 2})), "split", seed=0)
    assert len(asked) == 3
    assert asked[0] == asked[1]
    assert not asked[0] & asked[2]
    assert outcome.stored == 300


def _distinct() -> tuple[F32, I64]:
    random = np.random.default_rng(0)
    return random.random((400, 64)).astype(np.float32), np.arange(400) % 10


def test_forgetting_and_transfer_by_hand() -> None:
    table = np.array([[0.9, np.nan, np.nan], [1.0, 0.8, np.nan], [0.6, 0.7, 0.5]])
    outcome = Outcome(table, stored=3, items=9, nbytes=0, settings={})
    assert outcome.final == pytest.approx(0.6)
    assert outcome.forgetting == pytest.approx((0.4 + 0.1) / 2)
    assert outcome.backward_transfer == pytest.approx((-0.3 - 0.1) / 2)


def test_a_frugal_method_gives_a_standard_error_for_fewer_writes() -> None:
    class Fixed(NearestNeighbours):
        def __init__(self, right: float, kept: int) -> None:
            super().__init__(64)
            self.right, self.kept = right, kept

        def fit(self, images: F32, labels: I64) -> None: ...

        def predict(self, images: F32) -> I64:
            return np.arange(len(images)) >= int(self.right * len(images))  # type: ignore[return-value]

        @property
        def stored(self) -> int:
            return self.kept

    grid = ({"right": 0.95, "kept": 90}, {"right": 0.94, "kept": 50}, {"right": 0.80, "kept": 1})
    task = continual.Task(np.zeros((1, 64), np.float32), np.zeros(1, np.int64), np.zeros((200, 64), np.float32), np.zeros(200, np.int64))
    for frugal, kept in ((False, 90), (True, 50)):
        method = Method("fixed", lambda _r, s: Fixed(s["right"], s["kept"]), grid, frugal)
        assert choose(method, [task], 0)["kept"] == kept


def test_the_same_seed_gives_the_same_figures_and_the_page_takes_them(tmp_path: Path) -> None:
    method = next(m for m in METHODS if m.name == continual.GATE)
    training, asked = halves(np.random.default_rng(5), np.arange(400), 0.75)
    tasks = split_tasks(training, asked, 5)
    first, second = (run(method.make(np.random.default_rng(5), {"familiar": 0.55}), tasks, {"familiar": 0.55}) for _ in range(2))
    assert np.array_equal(first.accuracy, second.accuracy, equal_nan=True)
    assert first.final > 0.8
    line = summarise("split", method, [first, second], 1.0)
    assert (line.accuracy_sd, line.stored, line.curve[-1]) == (0.0, first.stored, first.final)
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- results -->\nold\n<!-- /results -->\nbelow\n")
    replace_results(page, markdown([line]))
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert "| split | 2 | BTSP, gated |" in text
