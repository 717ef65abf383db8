"""The mathematics of `ndml tune`: measures, the division of the questions, what is learned and when it is used."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from ndml.cli.tuning.asking import LEFT_ALONE, SHIPPED, TUNED
from ndml.cli.tuning.learning import LEAST, MOST, Ranking, learned, order, rescored
from ndml.cli.tuning.measures import Interval, Quality, by_question, held_out, interval, quality, question_of
from ndml.cli.tuning.tuning import verdict
from services.memory_node.settings import RankingSection
from services.memory_node.signals.fusion import SignalWeights

ONE = np.ones(2)


def made_up(n: int, seed: int, *, right: float, noise: float, candidates: int = 30) -> list[Ranking]:
    """n questions of one helpful memory each. Signal 0 sees it, by `right` deviations; signal 1, of `noise` times the weight, does not."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        helpful = np.zeros(candidates, np.bool_)
        helpful[random.integers(candidates)] = True
        shares = random.normal(size=(candidates, 2)) * (1, noise)
        shares[:, 0] += right * helpful
        best = order(shares.sum(axis=1))
        found.append(Ranking(shares.sum(axis=1)[best], shares[best], helpful[best]))
    return found


def reciprocal(rankings: list[Ranking], multipliers: NDArray[np.float64]) -> NDArray[np.float64]:
    ranks = [int(np.flatnonzero(each.helpful[order(rescored(each, multipliers))])[0]) for each in rankings]
    return 1 / (1 + np.array(ranks, np.float64))


def test_the_weights_that_it_starts_from_are_those_that_ship() -> None:
    shipped = RankingSection()
    assert {name: getattr(shipped, name) for name in SignalWeights._fields} == SHIPPED
    assert set(TUNED) | {"slot", "newest"} == set(SHIPPED) and {"slot", "newest"} <= set(LEFT_ALONE)


def test_multipliers_of_one_give_the_order_that_there_was() -> None:
    for ranking in made_up(20, 1, right=1, noise=1):
        assert np.array_equal(rescored(ranking, ONE), ranking.score)
        assert np.array_equal(order(rescored(ranking, ONE)), np.arange(len(ranking.score)))
    tied = Ranking(np.array([2.0, 1, 1, 1]), np.zeros((4, 2)), np.array([False, True, False, False]))
    assert order(rescored(tied, ONE * 3)).tolist() == [0, 1, 2, 3]


def test_the_signal_that_is_right_gains_and_the_noise_loses_on_questions_that_taught_nothing() -> None:
    at = learned(made_up(80, 2, right=2, noise=3), ONE)
    assert at[0] > 1.3 and at[1] < 0.7
    unseen = made_up(60, 3, right=2, noise=3)
    gain = interval(reciprocal(unseen, at) - reciprocal(unseen, ONE), seed=0)
    assert gain.low > 0.1
    assert verdict({"dense": 2.2}, gain, 0.0)[0]


def test_labels_at_random_move_little_and_are_hardly_ever_used() -> None:
    """Twenty draws: an interval of 95 % would let one through in forty, by its lower end."""
    used = 0
    for seed in range(20):
        at = learned(made_up(60, 2 * seed + 100, right=0, noise=1), ONE)
        assert np.abs(at - 1).max() < 0.5
        unseen = made_up(30, 2 * seed + 101, right=0, noise=1)
        used += verdict({"dense": 2.2}, interval(reciprocal(unseen, at) - reciprocal(unseen, ONE), seed), 0.0)[0]
    assert used <= 1


def test_little_feedback_changes_little_and_no_feedback_nothing() -> None:
    few, many = (np.abs(learned(made_up(n, 5, right=2, noise=3), ONE) - 1).max() for n in (2, 80))
    assert few < many / 2
    nothing = [Ranking(each.score, each.shares, np.zeros_like(each.helpful)) for each in made_up(5, 6, right=1, noise=1)]
    assert learned(nothing, ONE * 2).tolist() == [2, 2]
    assert learned([], ONE).tolist() == [1, 1]


def test_what_is_learned_stays_in_its_bounds_and_is_the_same_each_time() -> None:
    extreme = made_up(400, 7, right=6, noise=40)
    at = learned(extreme, ONE)
    assert ((at >= LEAST) & (at <= MOST)).all() and at[1] == pytest.approx(LEAST, abs=0.01)
    assert np.array_equal(at, learned(extreme, ONE))


def test_a_second_look_from_where_the_first_ended_stays_there() -> None:
    """Where shares are linear in their weights, the problem is the same from anywhere but for the softmax's sharpness."""
    first = made_up(80, 8, right=2, noise=1.2)
    at = learned(first, ONE)
    moved = [Ranking(rescored(each, at), each.shares * at, each.helpful) for each in first]
    assert learned(moved, at) == pytest.approx(at, abs=0.15)


def test_a_question_that_was_asked_often_teaches_as_one() -> None:
    one, other = made_up(2, 9, right=1, noise=2)
    thrice = [Ranking(one.score, one.shares, one.helpful, 1 / 3)] * 3
    assert learned([*thrice, other], ONE) == pytest.approx(learned([one, other], ONE), abs=1e-4)


def test_measures() -> None:
    ids = [f"{i}" for i in range(20)]
    assert quality(ids, frozenset({"3", "15"})) == Quality(0.25, 0.5)
    assert quality(ids, frozenset({"gone"})) == quality([], frozenset({"1"})) == Quality(0, 0)
    means = by_question(["a", "b", "a"], [Quality(1, 1), Quality(0.5, 1), Quality(0, 0)])
    assert means.tolist() == [[0.5, 0.5], [0.5, 1]]


def test_an_interval_covers_its_mean_and_repeats() -> None:
    differences = np.random.default_rng(1).normal(0.2, 1, 50)
    found = interval(differences, 4)
    assert found == interval(differences, 4) != interval(differences, 5)
    assert found.low < found.mean < found.high
    standard = differences.std() / math.sqrt(len(differences))
    assert found.high - found.low == pytest.approx(3.92 * standard, rel=0.1)
    assert interval(np.zeros(20), 0) == Interval(0, 0, 0)
    gains = [interval(np.array([1.0] * better + [0.0] * (20 - better)), 0).low for better in range(8)]
    assert gains[:3] == [0, 0, 0] and gains[5] > 0 and all(a <= b for a, b in pairwise(gains))


def test_a_third_is_held_out_by_its_words_alone() -> None:
    sides = [held_out(question_of(f"Where did I leave number {i}?")) for i in range(3_000)]
    assert 900 < sum(sides) < 1_100
    assert question_of(" Where\tdid I  LEAVE it?") == question_of("where did i leave it?") != question_of("where did i leave it")


@pytest.mark.parametrize(
    ("changed", "gain", "recall", "used", "word"),
    [
        ({"dense": 1.0}, Interval(0.1, 0.01, 0.2), 0.0, True, "are better"),
        ({"dense": 1.0}, Interval(0.1, 0.0, 0.2), 0.1, False, "reaches zero"),
        ({"dense": 1.0}, Interval(-0.1, -0.2, 0.1), 0.1, False, "reaches zero"),
        ({"dense": 1.0}, Interval(0.1, 0.01, 0.2), -0.01, False, "lose others"),
        ({"dense": 1.0}, Interval(0.002, 0.001, 0.003), 0.0, False, "too little"),
        ({}, Interval(0, 0, 0), 0.0, False, "nothing was learned"),
    ],
)
def test_weights_are_used_only_where_they_are_better(
    changed: dict[str, float], gain: Interval, recall: float, used: bool, word: str
) -> None:
    better, why = verdict(changed, gain, recall)
    assert better is used and word in why
