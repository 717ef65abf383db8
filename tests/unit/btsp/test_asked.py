"""Which property a question asks for: the slot that a statement of it gives, however either is worded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndml.btsp.asked import asked_slots, open_slots
from ndml.btsp.slots import slots


@pytest.mark.parametrize(
    ("question", "statement"),
    [
        ("Where do I live?", "I moved to Rome"),
        ("Which city do I live in these days?", "My flat is in Rome."),
        ("What town was I living in on 3 May?", "I live in Rome"),
        ("Who is my manager?", "My manager is Dr. Wolf."),
        ("Which company do I work for?", "I joined Acme"),
        ("What's my sister's job?", "My sister's job is at a clinic"),
        ("What is the name of my cat?", "My cat is called Moss"),
        ("Where are my skis?", "My skis are in the cellar."),
        ("Which colour do I like best?", "My favourite colour is teal"),
        ("What colour is my favourite colour?", "Teal is my favourite colour."),
        ("When is my flight?", "My flight is at 7:40."),
        ("Where does Nadia live?", "Nadia moved to Rome."),
        ("Who do I report to?", "My manager is Rome."),
        ("Who is my boss now?", "I report to Rome."),
        ("Under which number am I reached?", "My phone number is 555 0117."),
        ("Which bank am I with?", "I bank with Credo."),
        ("Which dentist do I go to?", "Rome looks after my teeth."),
        ("How much may the kitchen cost?", "The kitchen budget is 9,800 euros now."),
        ("What subject is my evening class?", "I study botany in the evenings."),
        ("Which bike do I ride?", "My bike is a Kona."),
        ("When do I have my lesson?", "My lesson is at 7:40."),
    ],
)
def test_a_question_asks_for_the_slot_that_its_answer_gives(question: str, statement: str) -> None:
    assert asked_slots(question) & open_slots(slots(statement)), (asked_slots(question), slots(statement))


@pytest.mark.parametrize(
    ("question", "statement"),
    [
        ("Where do I live?", "My sister moved to Rome."),
        ("Where does Nadia live?", "I moved to Rome"),
        ("Who is my dentist?", "My doctor is Dr. Wolf."),
        ("Who do I report to?", "My manager is ill."),
        ("How much may the kitchen cost?", "The budget for the garden is 900 euros."),
        ("Where do I work?", "I live in Rome"),
        ("What is the name of my cat?", "My dog is called Moss"),
    ],
)
def test_another_property_or_another_person_is_another_slot(question: str, statement: str) -> None:
    assert not asked_slots(question) & open_slots(slots(statement))


@pytest.mark.parametrize("text", ["", "?", "What?", "Why did the deploy fail?", "Tell me a joke", "I moved to Rome", "where " * 80])
def test_most_questions_ask_for_none(text: str) -> None:
    assert asked_slots(text) == frozenset()


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    asked_slots(text)
