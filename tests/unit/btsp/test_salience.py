"""Salience: what a text adds to what its owner said before."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp.salience import CAP_NATS, DocumentFrequencies, SalienceOptions, content_words, salience01, salience_of, words
from ndml.errors import FieldInvalid

VOCABULARY = [f"word{i}" for i in range(60)]
texts = st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=12).map(" ".join), max_size=20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I don't like O’Brien's café", ["i", "don't", "like", "o'brien's", "café"]),
        ("Straße 12, 2nd floor!", ["strasse", "12", "2nd", "floor"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("今日は天気", ["今日", "日は", "は天", "天気"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("cafe\u0301", ["café"]),
        ("snake_case 'quoted'", ["snake", "case", "quoted"]),
        ("…!?", []),
    ],
)
def test_words_of_many_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_content_is_distinct_and_without_function_words() -> None:
    assert content_words("The dog and the DOG of my neighbour, 7 years") == ["dog", "neighbour", "7", "years"]


@settings(max_examples=40, deadline=None)
@given(texts)
def test_information_is_the_formula_over_exact_counts(said: list[str]) -> None:
    """With more counters than words can share, hashed counts are exact."""
    frequencies, exact = DocumentFrequencies(SalienceOptions(buckets=1 << 22)), Counter[str]()
    for n, text in enumerate(said, 1):
        distinct = content_words(text)
        exact.update(distinct)
        expected = sum(math.log((n + 1) / exact[word]) for word in distinct)
        assert frequencies.information(text) == pytest.approx(expected, abs=1e-9)
        assert frequencies.observe(text) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(texts)
def test_shared_counters_never_make_a_text_more_salient(said: list[str]) -> None:
    few, many = (DocumentFrequencies(SalienceOptions(buckets=size)) for size in (16, 1 << 22))
    assert (few.observe_many(said) <= many.observe_many(said) + 1e-9).all()
    assert few.nbytes == 64


def test_what_is_said_again_tells_less() -> None:
    frequencies = DocumentFrequencies()
    told = frequencies.observe_many(["my sister bought a canoe in Ghent"] * 5)
    assert (np.diff(told) < 0).all()
    assert frequencies.observe("a locksmith from Tallinn") > told[-1]


def test_a_deleted_text_counts_no_more() -> None:
    frequencies, untouched = DocumentFrequencies(), DocumentFrequencies()
    for each in (frequencies, untouched):
        each.observe("we adopted a tortoise")
    frequencies.observe("the boiler leaks")
    frequencies.forget("the boiler leaks")
    assert frequencies.information("the tortoise leaks") == untouched.information("the tortoise leaks")
    for _ in range(3):
        frequencies.forget("never observed canoe")
    assert frequencies.observe("canoe") >= 0


def test_a_huge_text_costs_its_first_words() -> None:
    frequencies = DocumentFrequencies(SalienceOptions(words=8))
    frequencies.observe(" ".join(f"x{i}" for i in range(5000)))
    assert frequencies.information("x9 x10") == frequencies.information("y9 y10")


def test_salience_is_monotone_and_within_its_range() -> None:
    nats = np.array([np.nan, -1.0, 0.0, 1e-9, 5.0, 40.0, CAP_NATS, 1e9, np.inf])
    values = salience01(nats)
    assert values[:3].tolist() == [0.0, 0.0, 0.0]
    assert (np.diff(values[2:]) >= 0).all()
    assert values[-3:].tolist() == [1.0, 1.0, 1.0]


def test_the_writers_own_salience_wins() -> None:
    assert salience_of(0.0, 150.0) == 0.0
    assert salience_of(None, 0.0) == 0.0
    assert salience_of(None, CAP_NATS) == 1.0
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(FieldInvalid, match="salience"):
            salience_of(wrong, 1.0)


@pytest.mark.parametrize("wrong", [{"buckets": 1000}, {"buckets": 1}, {"cap_nats": 0.0}, {"cap_nats": math.nan}, {"words": 0}])
def test_options_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(FieldInvalid):
        SalienceOptions(**wrong)  # type: ignore[arg-type]
