"""FSRS-6 against py-fsrs, whatever the history; grades between the ratings; numbers that stay in their ranges."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp import stability as fsrs6
from ndml.errors import FieldInvalid

START = datetime(2025, 1, 1, tzinfo=UTC)
reviews = st.lists(st.tuples(st.integers(1, 4), st.floats(0, 400)), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(reviews)
def test_equals_py_fsrs(history: list[tuple[int, float]]) -> None:
    """AT-2e: S, D and R of the reference implementation to 1e-9, relative."""
    fsrs = pytest.importorskip("fsrs")
    scheduler, card, now = fsrs.Scheduler(enable_fuzzing=False), fsrs.Card(), START
    s = d = np.zeros(1)
    for i, (rating, days) in enumerate(history):
        gap = timedelta(days=days) if i else timedelta()
        now += gap
        whole = float(gap.days)
        if i:
            expected = scheduler.get_card_retrievability(card, now)
            assert fsrs6.retrievability(whole, s)[0] == pytest.approx(expected, rel=1e-9)
        s, d = fsrs6.review(s, d, [rating], whole) if i else fsrs6.initial(np.array([float(rating)]))
        card, _ = scheduler.review_card(card, fsrs.Rating(rating), now)
        assert (s[0], d[0]) == (pytest.approx(card.stability, rel=1e-9), pytest.approx(card.difficulty, rel=1e-9))


def test_recorded_values() -> None:
    """The same without py-fsrs: values that it gave for good, good after 3 days, again after 10, hard the same day, easy after 20."""
    s, d = fsrs6.initial([3.0])
    seen = [(s[0], d[0])]
    for rating, days in ((3.0, 3.0), (1.0, 10.0), (2.0, 0.0), (4.0, 20.0)):
        s, d = fsrs6.review(s, d, [rating], days)
        seen.append((s[0], d[0]))
    np.testing.assert_allclose(seen, RECORDED, rtol=1e-9)


RECORDED = [
    (2.3065, 2.118103970459016),
    (13.826903694354568, 2.111214235785395),
    (1.6661407475790257, 7.392238132342694),
    (1.6661407475790257, 8.254074519842886),
    (16.764638303459137, 7.655895953798593),
]


@settings(max_examples=100, deadline=None)
@given(st.floats(0.01, 1000), st.floats(1, 10), st.floats(0, 500), st.floats(-1, 1), st.floats(-1, 1))
def test_a_better_grade_never_leaves_less(s: float, d: float, days: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    (worse, harder), (better, easier) = (fsrs6.graded(np.array([s]), np.array([d]), [grade], [days]) for grade in (low, high))
    assert worse[0] <= better[0] * (1 + 1e-12)
    # Up to the pull that every review has towards the start, a thousandth of the way.
    assert harder[0] >= easier[0] - 0.01 * (fsrs6.DIFFICULTY_MAX - fsrs6.DIFFICULTY_MIN)


def test_grades_at_the_ends_are_reviews_and_zero_is_none() -> None:
    s, d = np.array([2.0, 2.0, 2.0]), np.array([5.0, 5.0, 5.0])
    after_s, after_d = fsrs6.graded(s, d, [1.0, -1.0, 0.0], 4.0)
    expected = [fsrs6.review(s[:1], d[:1], [rating], 4.0) for rating in (fsrs6.GOOD, fsrs6.AGAIN)]
    np.testing.assert_allclose(after_s, [expected[0][0][0], expected[1][0][0], 2.0])
    np.testing.assert_allclose(after_d, [expected[0][1][0], expected[1][1][0], 5.0])


def test_encoding_strength_runs_from_a_failed_to_an_easy_first_review() -> None:
    s, d = fsrs6.encoded(np.linspace(0, 1, 25))
    assert (s[0], s[-1]) == pytest.approx((0.212, 8.2956))
    assert (np.diff(s) > 0).all() and (np.diff(d) <= 0).all()


def test_a_million_reviews_stay_in_range() -> None:
    s, d = fsrs6.initial(np.array([3.0, 1.0]))
    for _ in range(2000):
        s, d = fsrs6.review(s, d, [4.0, 1.0], 500.0)
    assert s.tolist() == pytest.approx([fsrs6.STABILITY_MAX, s[1]]) and fsrs6.STABILITY_MIN <= s[1] < 1
    assert ((d >= 1) & (d <= 10)).all()


def test_a_clock_that_went_back_is_the_same_moment() -> None:
    s, d = np.array([3.0]), np.array([5.0])
    assert fsrs6.retrievability(-40.0, s)[0] == 1.0
    assert fsrs6.review(s, d, [3.0], -40.0) == fsrs6.review(s, d, [3.0], 0.0)


@pytest.mark.parametrize(
    ("grades", "days", "field"), [([math.nan], 1.0, "grades[0]"), ([1.5], 1.0, "grades[0]"), ([1.0], math.nan, "elapsed_days")]
)
def test_bad_grades_are_refused(grades: list[float], days: float, field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        fsrs6.graded(np.array([1.0]), np.array([5.0]), grades, days)
    assert caught.value.violations[0].field == field


@pytest.mark.parametrize("weights", [(1.0,), (*fsrs6.DEFAULT_WEIGHTS[:-1], 0.0), (math.nan, *fsrs6.DEFAULT_WEIGHTS[1:])])
def test_bad_parameters_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(FieldInvalid, match="weights"):
        fsrs6.StabilityOptions(weights)
