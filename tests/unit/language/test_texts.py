"""Sentences, entities, dates, and the facts made of them."""

from __future__ import annotations

from datetime import date

import pytest

from ndml.language import dates, entities, facts, sentences

SAID = date(2026, 11, 21)  # a Saturday


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("I live in Oslo. My dog is Rex! ok? yes", ["I live in Oslo.", "My dog is Rex!", "ok?", "yes"]),
        ("Dr. Smith met J. K. Rowling at 5 p.m. in London. Then left.", ["Dr. Smith met J. K. Rowling at 5 p.m. in London.", "Then left."]),
        ("1. buy milk\n2. call Ann\n- eat\n* sleep", ["buy milk", "call Ann", "eat", "sleep"]),
        ('He said "I am off." and left. "Bye!" He', ['He said "I am off." and left.', '"Bye!"', "He"]),
        ("私は東京に住んでいます。犬がいます！はい", ["私は東京に住んでいます。", "犬がいます！", "はい"]),
        ("मैं दिल्ली में हूँ। मेरा नाम राम है।", ["मैं दिल्ली में हूँ।", "मेरा नाम राम है।"]),
        ("ما اسمك؟ أنا علي.", ["ما اسمك؟", "أنا علي."]),
        ("It cost 3.50. See example.com. i like it... but no.", ["It cost 3.50.", "See example.com.", "i like it... but no."]),
        ("I work at Acme Inc. We sell tea etc. and more.", ["I work at Acme Inc.", "We sell tea etc. and more."]),
        ("before\n```\na. b\n```\nafter. x", ["before", "```\na. b\n```", "after.", "x"]),
        ("a line\nanother line", ["a line", "another line"]),
        ("", []),
        ("  \n ", []),
    ],
)
def test_sentences(text: str, parts: list[str]) -> None:
    assert [span.text for span in sentences(text)] == parts


def test_a_wrapped_line_goes_on() -> None:
    long = "This line is quite long and was wrapped by some mail client at\nsixty characters. Next."
    assert len(sentences(long)) == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I live in Oslo with Ann Smith.", ["Oslo:name", "Ann Smith:name"]),
        ("Maria's brother Tom works at Bank of America in New York City.", "Maria:name Tom:name Bank of America:name New York City:name"),
        ("I paid $35.50 for 3 kg of rice, 20% off.", ["$35.50:number", "3 kg:number", "20%:number"]),
        ("Mail ann.b@example.co.uk, or see https://x.y/z?a=1.", ["ann.b@example.co.uk:email", "https://x.y/z?a=1:url"]),
        ('I read “War and Peace” and "Dune".', ["War and Peace:quoted", "Dune:quoted"]),
        ("On Monday I met Dr. J. K. Rowling in May.", ["J. K. Rowling:name"]),
        ("Vincent van Gogh painted it.", ["Vincent van Gogh:name"]),
        ("I LIVE IN OSLO", []),
        ("Please note my code is 4821.", ["4821:number"]),
        ("私は「猫」が好き", ["猫:quoted"]),
        ("i like tea", []),
    ],
)
def test_entities(text: str, found: list[str] | str) -> None:
    got = [f"{entity.text}:{entity.kind}" for entity in entities(text)]
    assert got == found if isinstance(found, list) else " ".join(got) == found


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("on 2026-03-05 and 2026/3/6", ["2026-03-05", "2026-03-06"]),
        ("12.03.2026, 25/12/2025, 12/25/2025", ["2026-03-12", "2025-12-25", "2025-12-25"]),
        ("3/4/2025 could be two days", []),
        ("3 March", ["2027-03-03"]),
        ("December 1st", ["2026-12-01"]),
        ("3rd of March 2025 or March 4, 2025", ["2025-03-03", "2025-03-04"]),
        ("31 April, 30 February 2024, 2026-13-45, 32 May", []),
        ("29 February", ["2028-02-29"]),
        ("March 2025", ["2025-03"]),
        ("see you in May", ["2027-05"]),
        ("I moved here in May", ["2026-05"]),
        ("since 2015", ["2015"]),
        ("room 2015", []),
        ("today, tomorrow, the day after tomorrow", ["2026-11-21", "2026-11-22", "2026-11-23"]),
        ("yesterday I ate", ["2026-11-20"]),
        ("in two days, in 3 weeks", ["2026-11-23", "2026-W50"]),
        ("a year ago, two months ago", ["2025", "2026-09"]),
        ("next Friday, last Friday, this Friday", ["2026-11-27", "2026-11-20", "2026-11-20"]),
        ("lunch on Friday", ["2026-11-27"]),
        ("we met on Friday", ["2026-11-20"]),
        ("on Saturday", ["2026-11-28"]),
        ("next week, last month, this year", ["2026-W48", "2026-10", "2026"]),
        ("next weekend", ["2026-11-28/2026-11-29"]),
        ("I may go, march on, the sun, Fridays", []),
    ],
)
def test_dates(text: str, days: list[str]) -> None:
    assert [found.iso for found in dates(text, SAID)] == days


def test_the_ends_of_the_calendar_are_no_fault() -> None:
    assert dates("in 999 years", date(9999, 12, 31)) == dates("yesterday, 3 years ago, last week", date(1, 1, 1)) == []


def test_weeks_and_months_are_whole() -> None:
    [week], [month] = dates("last week", SAID), dates("in February 2028", SAID)
    assert (week.first, week.last, week.precision) == (date(2026, 11, 9), date(2026, 11, 15), "week")
    assert (month.first, month.last, month.precision) == (date(2028, 2, 1), date(2028, 2, 29), "month")


def test_facts_are_the_statements_with_what_they_are_about() -> None:
    text = "Hello! I moved to Porto last week. What is new? My sister is Ann. She lives in Rome. Thanks!"
    found = facts(text, SAID)
    assert [fact.text for fact in found.kept] == ["I moved to Porto last week.", "My sister is Ann. She lives in Rome."]
    assert found.left_out == 3
    moved, sister = found.kept
    assert ([e.text for e in moved.entities], [d.iso for d in moved.dates]) == (["Porto"], ["2026-W46"])
    assert [e.text for e in sister.entities] == ["Ann", "Rome"]
    [birthday] = facts("My birthday is on 3 March, with Bob.", SAID).kept
    assert ([e.text for e in birthday.entities], [d.iso for d in birthday.dates]) == (["Bob"], ["2027-03-03"])
    assert facts("It is late. I ate.", SAID).kept[0].weight < moved.weight <= 1


def test_a_sentence_leans_on_its_neighbour_only() -> None:
    apart = facts("My sister is Ann. Who are you? She lives in Rome.", SAID)
    assert [fact.text for fact in apart.kept] == ["My sister is Ann.", "She lives in Rome."]
    long = facts("My sister is Ann. " + "She likes tea. " * 40, SAID)
    assert len(long.kept) > 1 and all(len(fact.text) <= 400 for fact in long.kept)
