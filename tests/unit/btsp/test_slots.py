"""Slots by rules: what statements of one property share, however they are worded, and what has no slot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndml.btsp.contradiction import contradicts
from ndml.btsp.slots import Slot, slots, speaks_of_own

ONE = {
    Slot("i", "residence"): [
        "I live in Rome.",
        "By the way, I moved to Rome!",
        "Rome is where I live",
        "My home is in Rome now.",
        "we're living in Rome",
    ],
    Slot("my sister", "residence"): ["My sister lives in Rome.", "My sister has moved to Rome.", "My sister's flat is in Rome."],
    Slot("maja", "employer"): [
        "Maja works for Rome.",
        "Rome is Maja's employer.",
        "Maja got a new job at Rome.",
        "I heard that Maja joined Rome.",
    ],
    Slot("i", "profession"): ["I work as a rome", "My job is a rome.", "By profession I am a rome", "I became a rome."],
    Slot("i", "name"): ["My name is Rome.", "Please call me Rome from now on.", "I changed my name to Rome."],
    Slot("i", "naming", "cat"): [
        "My cat is called Rome.",
        "My new cat's name is Rome.",
        "I have a cat named Rome.",
        "The name of my cat is Rome.",
    ],
    Slot("i", "favourite", "tea"): ["My favourite tea is Rome.", "Rome is my favorite tea.", "The tea I like best is Rome."],
    Slot("i", "place", "race"): [
        "My race is in Rome.",
        "My race was moved to Rome.",
        "In Rome is my race.",
        "I have a race in Rome.",
        "The place of my race is Rome",
    ],
    Slot("anna", "place", "keys"): [
        "Anna keeps her keys in the rome.",
        "Anna moved Anna's keys to Rome.",
        "Anna's keys can be found in rome",
    ],
    Slot("i", "value", "seat"): [
        "My seat is Rome.",
        "My seat changed to Rome",
        "Rome is my seat.",
        "I use Rome as my seat.",
        "My seat: Rome",
    ],
    Slot("i", "naming", "manager"): [
        "I report to Rome.",
        "My manager is Rome.",
        "My new boss is Rome!",
        "Rome took over as my manager.",
        "Rome manages me.",
        "My supervisor is called Rome.",
    ],
    Slot("i", "naming", "dentist"): ["My dentist is Rome.", "I see Rome for my teeth.", "Rome looks after my teeth."],
    Slot("i", "naming", "landlord"): ["I rent from Rome.", "Rome became our landlord.", "I'm renting a flat from Rome"],
    Slot("i", "value", "phone number"): [
        "My phone number is Rome.",
        "My number: Rome",
        "People reach me at Rome.",
        "I have a new phone number, Rome.",
        "You can call me at Rome.",
    ],
    Slot("i", "value", "bank"): ["I bank with Rome.", "My account is with Rome.", "I opened an account at Rome.", "My bank is Rome now."],
    Slot("i", "value", "bike"): ["I ride a Rome.", "My bicycle is a Rome.", "I bought a new bike, Rome."],
    Slot("i", "value", "evening class"): [
        "I study Rome in the evenings.",
        "I'm learning Rome at night school.",
        "I started Rome as my new evening class.",
        "I switched my evening class to Rome.",
    ],
    Slot("i", "budget", "kitchen"): [
        "The budget for the kitchen is Rome.",
        "The kitchen budget went to Rome.",
        "Our kitchen may cost Rome.",
        "We have Rome for the kitchen.",
        "We raised the kitchen budget to Rome.",
    ],
    Slot("tom", "meal", "lunch"): ["Tom eats rome for lunch.", "For lunch Tom always has rome.", "Tom's lunch is rome."],
}
TIMES = {
    Slot("i", "time", "race"): [
        "My race starts at 9:30.",
        "My race is at 10 am.",
        "At 9:30 my race begins.",
        "My race was moved to 11:00.",
    ],
    Slot("i", "day", "race"): [
        "My race is on 3 May.",
        "On March 3, 2027 there is my race.",
        "My race has been moved to Friday.",
        "I have a race on Monday.",
    ],
}
NONE = [
    "",
    "I like tea.",
    "What a day!",
    "I used to live in Rome.",
    "I moved to Rome in 2010.",
    "I lived in Rome",
    "I do not live in Rome.",
    "My dog is ill.",
    "My boss is ill.",
    "My manager is always late",
    "My sister is tall now",
    "He said nothing",
    "I met Anna in Rome.",
    "ROME",
    "I moved from Rome",
    "We bought the sofa in May",
]


@pytest.mark.parametrize(("slot", "text"), [(slot, text) for slot, texts in ONE.items() for text in texts])
def test_a_property_is_known_in_other_words(slot: Slot, text: str) -> None:
    assert slots(text) == {slot: frozenset({"rome"})}


@pytest.mark.parametrize(("slot", "text"), [(slot, text) for slot, texts in TIMES.items() for text in texts])
def test_when_something_is_is_a_time_or_a_day(slot: Slot, text: str) -> None:
    assert list(slots(text)) == [slot]


@pytest.mark.parametrize("text", NONE)
def test_what_tells_of_no_such_property_or_of_the_past_has_no_slot(text: str) -> None:
    assert slots(text) == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Rome is where I live.", "We moved to Porto!"),
        ("On September 6 Anna has a vaccination.", "Anna's vaccination has been moved to August 4, 2028."),
        ("My seat is 12.", "So, my new seat is 14."),
        ("My manager is Astrid.", "I report to Ivo."),
        ("The kitchen may cost 9,800 euros.", "We have 9,900 euros for the kitchen."),
        ("My phone number is 555 0117.", "I have a new phone number, 555 0142."),
        ("I am going to Rome on holiday.", "I am going to Porto instead."),
        ("I have a cat called Tom.", "My new cat is called Kitty."),
    ],
)
def test_another_value_replaces_the_first_and_is_not_replaced_by_it(old: str, new: str) -> None:
    assert contradicts(old, new)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I have a cat called Tom.", "I have a cat called Kitty."),
        ("I am going to Rome.", "I am going to Porto."),
        ("I live in Porto.", "I live in Porto, Portugal."),
        ("My sister lives in Rome.", "I moved to Porto."),
        ("My race is in Rome.", "My race is at 9:30."),
        ("My dog is brown.", "My dog is ill now."),
        ("I live in Oslo.", "I work for Oslo Trams now."),
        ("My friend is Tom.", "My friend is Ana."),
        ("My manager is Astrid.", "My dentist is Ivo."),
        ("The budget for the kitchen is 9,800 euros.", "The budget for the garden is 900 euros."),
    ],
)
def test_what_may_stand_beside_each_other_does(one: str, other: str) -> None:
    assert not contradicts(one, other) and not contradicts(other, one)


@pytest.mark.parametrize(
    ("text", "what", "own"),
    [
        ("My boss Ivo came by.", "manager", True),
        ("Our line manager is ill", "manager", True),
        ("My mother eats no lettuce.", "mother intolerant to", True),
        ("My new bike is red", "bike", True),
        ("Greta has Dr Weiss as a dentist.", "dentist", False),
        ("My flatmate goes to Dr Lund, the dentist.", "dentist", False),
        ("My bikes", "bike", False),
        ("My home is here", "", False),
    ],
)
def test_a_text_names_what_is_the_speakers_own_by_any_of_its_names(text: str, what: str, own: bool) -> None:
    assert speaks_of_own(text, what) is own


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    assert all(slot.whose and slot.kind and value for slot, value in slots(text).items())
