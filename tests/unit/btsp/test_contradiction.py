"""Contradiction by rules: tables of what must be found and of what must not."""

from __future__ import annotations

import pytest

from ndml.btsp.contradiction import contradiction, contradicts

FOUND = [
    ("I live in Berlin", "I live in Munich now"),
    ("I live in Berlin.", "I moved to Munich."),
    ("The meeting is on Tuesday at the office.", "The meeting is on Thursday at the office."),
    ("My flat is at 12 Elm Street, third floor", "My flat is at 14 Elm Street, third floor"),
    ("I like spicy food a lot", "I don't like spicy food a lot"),
    ("Nadia works at the clinic", "Nadia no longer works at the clinic"),
    ("My favourite colour is blue", "My favourite colour is green"),
    ("Biscuit, my dog, weighs eleven kilos", "Biscuit, my dog, weighs 12 kilos"),
    ("My phone number is 555 0100", "My phone number is 555 0199"),
    ("Our rent is 800 euros a month", "Our rent is 950 euros a month"),
    ("The race starts at 9:30 in the harbour", "The race starts at 10:00 in the harbour"),
    ("I can eat peanuts without problems", "I can't eat peanuts without problems"),
    ("My name is Anna Berg", "My name is Anna Holm"),
    ("I used to smoke cigarettes every day", "I never smoke cigarettes any day"),
    ("My sister was born on 3 May 1990", "My sister was born on 5 May 1990"),
    ("Tom works for Siemens", "Tom works for Bosch"),
    ("Our trip to the coast is planned", "Our trip to the coast is cancelled"),
    ("I take the night train to work", "I no longer take the night train to work"),
    ("The tram needs twenty minutes to the harbour", "The tram needs sixty minutes to the harbour"),
    ("Miete: 800 Euro im Monat", "Miete: 950 Euro im Monat"),
    ("I work as a baker", "I work as a nurse"),
    ("The name of my cat is Minka", "The name of my cat is Pablo"),
    ("My wife works at Siemens", "My wife works at Bosch"),
]
SILENT = [
    ("", ""),
    ("", "I live here"),
    ("I live in Berlin", "I live in Berlin"),
    ("I met Anna in the park", "I met Tom in the park"),
    ("Anna lives in Berlin", "Tom lives in Berlin"),
    ("I like Berlin", "I like Munich"),
    ("I live in Berlin", "Do you live in Munich?"),
    ("She lives in Rome", "I live in Oslo"),
    ("I have two cats", "I have two cats and a dog"),
    ("We ran 5 km on Monday", "We ran 8 km on Friday"),
    ("We bought the sofa in May", "We moved the sofa upstairs"),
    ("I love hiking in the hills", "I love hiking in the mountains with friends"),
    ("No, I really enjoy spicy food", "I really enjoy spicy food"),
    ("I like tea", "I like tea, not coffee"),
    ("The meeting is on Tuesday", "The dentist is on Thursday"),
    ("I work at the clinic in Porto", "I work at the clinic"),
    ("Thanks, that is great!", "Thanks, that is not great but fine"),
    ("I read a book", "I read three books"),
    ("My birthday is in May", "Your birthday is in June"),
    ("He likes jazz", "She doesn't like jazz"),
    ("I am working right now on the garden shed", "I am working on the garden shed"),
    ("See you at 5", "See you at 7"),
    ("I am working on Northstar", "I work for Siemens"),
    ("I work as a baker", "I work for Siemens"),
    ("My wife's job: a judge", "I am working as a baker"),
    ("Anna's partner works at Siemens", "Anna's job: a baker"),
    ("The name of my cat is Minka", "I changed my name to Tom"),
    ("The name of my cat is Minka", "My husband is called Tom"),
    ("The name is Minka", "The name of my turtle is Tom"),
    ("The name is Minka", "The name of Svetlana's mum is Ana"),
    ("My home town is lisbon", "I moved my ladder to the garage"),
    ("I changed my favourite game to chess", "My favourite coffee is mocha"),
]


@pytest.mark.parametrize(("old", "new"), FOUND)
def test_another_value_of_the_same_thing_contradicts(old: str, new: str) -> None:
    assert contradicts(old, new), (old, new)
    assert contradiction(old, new)


@pytest.mark.parametrize(("old", "new"), SILENT)
def test_rules_are_silent_where_both_can_be_true(old: str, new: str) -> None:
    assert not contradicts(old, new), contradiction(old, new)


@pytest.mark.parametrize("text", [old for old, _ in FOUND + SILENT])
def test_nothing_contradicts_itself(text: str) -> None:
    assert not contradicts(text, text)


def test_the_reason_names_both_values() -> None:
    assert contradiction("Our rent is 800 euros a month", "Our rent is 950 euros a month") == "another number: 800 -> 950"
