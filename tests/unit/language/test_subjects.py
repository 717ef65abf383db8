"""Of whom a statement tells, and about whom and when a question asks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndml.language.statements import asks_about_the_asker, asks_what_holds
from ndml.language.subjects import about_another


@pytest.mark.parametrize(
    "text",
    [
        "My sister moved to Rome.",
        "Our old neighbour has a dog",
        "Greta from work drives a van",
        "Tom's car is red.",
        "She called",
        "Uncle Pete works here",
    ],
)
def test_these_tell_of_somebody_else(text: str) -> None:
    assert about_another(text)


@pytest.mark.parametrize(
    "text",
    [
        "I moved to Rome.",
        "My flat is in Rome",
        "The keys are on the hook.",
        "Climbing is on Friday",
        "Nora is my manager.",
        "Nora looks after our garden.",
        "My doctor raised my dose.",
        "Thanks, that helped",
        "Good news: I bought a house.",
        "As mentioned before, I prefer tea.",
        "Yesterday changed everything.",
        "My mother tongue is Welsh.",
        "",
        "¿Qué?",
    ],
)
def test_these_do_not(text: str) -> None:
    assert not about_another(text)


@pytest.mark.parametrize(
    ("question", "now", "then"),
    [
        ("Where do I live?", True, True),
        ("Where did I live?", False, True),
        ("Where does Nadia live now?", True, True),
        ("Where does Nadia live?", False, False),
        ("Where did I live before?", False, True),
        ("Where does my sister live?", False, False),
    ],
)
def test_what_holds_is_asked_in_the_present_or_of_a_given_time(question: str, now: bool, then: bool) -> None:
    assert (asks_what_holds(question), asks_what_holds(question, then=True)) == (now, then)


def test_what_is_the_askers_needs_no_word_that_says_so_but_is_not_asked_of_the_past() -> None:
    asked = "How much may the kitchen cost?"
    assert (asks_what_holds(asked), asks_what_holds(asked, own=True)) == (False, True)
    past = "What was the kitchen budget?"
    assert (asks_what_holds(past, own=True), asks_what_holds(past, then=True, own=True)) == (False, True)


def test_a_relative_is_not_the_asker() -> None:
    assert asks_about_the_asker("What is my name?") and not asks_about_the_asker("What is my sister's name?")


def test_what_is_shared_is_not_about_the_asker_alone() -> None:
    assert asks_about_the_asker("Where do we meet?") and not asks_about_the_asker("Where do we meet?", alone=True)
    assert asks_about_the_asker("Where do I live?", alone=True)


@pytest.mark.parametrize(
    "question",
    [
        "Who is my boss?",
        "Do you know when my grandmother's talk starts?",
        "What is my older cousin allergic to?",
        "Tell me when Fud's move starts.",
        "Can you remind me who painted the kitchen?",
        "I'd like to know where Ana works.",
        "I forgot what Tom eats.",
        "Could I ask where the keys are?",
    ],
)
def test_who_asks_about_somebody_else_is_only_told_of_it(question: str) -> None:
    assert not asks_about_the_asker(question, alone=True)


@pytest.mark.parametrize(
    "question", ["Tell me where I work.", "Remind me of my password.", "I forgot what I ordered.", "What is mine?", "Do you know my name?"]
)
def test_who_is_told_of_themselves_asks_about_themselves(question: str) -> None:
    assert asks_about_the_asker(question, alone=True)


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    about_another(text), asks_what_holds(text)
