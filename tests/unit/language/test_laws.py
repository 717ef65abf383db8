"""What holds for every text: nothing raises, spans are parts of the text in order, and time grows no faster than length."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.language import asks_about_the_past, dates, entities, facts, is_question, sentences, states_something
from ndml.language.dates import MOST_DATES
from ndml.language.entities import MOST_ENTITIES

SAID = date(2026, 11, 21)
_WORDS = """. , ? ! … 。 ; : " ' “ ” « » ( ) [ ] - * 1. 2) ``` ~~~ I my Ann Oslo of de is was Dr. e.g. 3 31 2026 2026-03-05 3/4/2025 March
May Friday next last in two days ago a@b.co https://x.y $5 kg % مرحبا 猫 「 」 हूँ। İ ß ﬁ \u200d \u0301 \ud800 \x00"""
PIECES = st.sampled_from([*_WORDS.split(), " ", "\n", "\r\n", "\n\n", "\t"])
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=60).map("".join), st.lists(PIECES, max_size=60).map(" ".join))
DAYS = st.dates()


@settings(max_examples=300, deadline=None)
@given(TEXTS, DAYS)
def test_spans_lie_in_the_text_in_order_and_nothing_raises(text: str, said: date) -> None:
    for spans in (sentences(text), entities(text), dates(text, said), facts(text, said).kept):
        at = 0
        for span in spans:
            assert at <= span.start < span.end <= len(text) and text[span.start : span.end] == span.text
            at = span.end
    for found in dates(text, said):
        assert found.first <= found.last and found.iso
    assert not (states_something(text) and is_question(text))
    assert isinstance(asks_about_the_past(text), bool)


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_sentences_leave_nothing_out_but_marks_and_space(text: str) -> None:
    kept = "".join(span.text for span in sentences(text))
    letters = [char for char in text if char.isalpha()]
    # Markers of list items may be a letter: "a) ".
    assert sum(char.isalpha() for char in kept) >= len(letters) - len(sentences(text))


@settings(max_examples=100, deadline=None)
@given(TEXTS, DAYS)
def test_facts_are_whole_sentences_and_every_sentence_is_counted(text: str, said: date) -> None:
    found, spans = facts(text, said), sentences(text)
    edges = {span.start for span in spans}, {span.end for span in spans}
    assert all(fact.start in edges[0] and fact.end in edges[1] and 0 <= fact.weight <= 1 for fact in found.kept)
    inside = sum(any(fact.start <= span.start and span.end <= fact.end for fact in found.kept) for span in spans)
    assert inside + found.left_out == len(spans)


SEEDS = (
    "a",
    ".",
    "\n",
    "a. ",
    "1. ",
    "Ab of ",
    "a@b.",
    "https://",
    '"',
    "3 March ",
    "a couple of ",
    "2026-01-",
    "on Friday ",
    "so ",
    "x: ",
)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("read", [sentences, entities, lambda text: dates(text, SAID), states_something, lambda text: facts(text, SAID)])
def test_a_hundred_thousand_characters_of_anything_end(seed: str, read: Callable[[str], object]) -> None:
    """Quadratic rules would take minutes here: the bound is the test's time limit."""
    text = (seed * (100_000 // len(seed) + 1))[:100_000]
    read(text)
    read(text + "x")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", [".", "!?", "…", '."', ')"', "。", "\n ", "\r\n"])
def test_a_million_marks_that_end_nothing_are_read_once(seed: str) -> None:
    """The bound is the test's time limit, as above: tried from each mark anew they would take an hour."""
    assert sentences(seed * (1_000_000 // len(seed)) + "x")[-1].text.endswith("x")


def test_what_is_found_is_bounded() -> None:
    assert len(entities("Ann met Bob. " * 500)) == MOST_ENTITIES
    assert len(dates("On 2026-03-05. " * 500, SAID)) == MOST_DATES
