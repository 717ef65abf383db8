"""What a query names: days, one speaker, content words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ndml.language.terms import content_words
from services.memory_node.columns import Columns
from services.memory_node.signals.understanding import Understood, understood
from tests.unit.memory_node.signals.rows import DAY_US, columns_of, row

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


def us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


NOW_US = us(NOW)
NEWEST = columns_of([row(1, "", us(datetime(2024, 5, 20, tzinfo=UTC))), row(2, "", us(datetime(2021, 1, 1, tzinfo=UTC)))])


def days(query: Understood) -> list[tuple[str, str]]:
    """First and last day of each span, slack included."""
    return [tuple(str((datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).date()) for at in span) for span in query.spans]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What did Ann do on 2023-03-05?", [("2023-03-05", "2023-03-08")]),
        ("Where were we on 5 March 2023?", [("2023-03-05", "2023-03-08")]),
        ("Who came on March 5?", [("2024-03-05", "2024-03-08")]),
        ("Who came on July 5?", [("2023-07-05", "2023-07-08")]),  # the newest memory is of 20 May 2024: there is no later July
        ("Who is to come in August?", [("2023-08-01", "2023-09-03")]),
        ("Who is to come on July 5, 2024?", [("2024-07-05", "2024-07-08")]),
        ("Who was born on 29 February?", [("2024-02-29", "2024-03-03")]),
        ("What is planned for next August?", [("2024-08-01", "2024-09-03")]),
        ("What did we say 3 days ago, or 2 weeks ago?", []),  # when the asker asks
        ("Who came on 5 Mar?", [("2024-03-05", "2024-03-08")]),
        ("What happened in March 2023?", [("2023-03-01", "2023-04-03")]),
        ("What did she paint in February?", [("2024-02-01", "2024-03-03")]),
        ("What did she paint last August?", [("2023-08-01", "2023-09-03")]),
        ("What was built in 1999?", [("1999-01-01", "2000-01-03")]),
        ("From 2023-03-05 or 2023-04-01?", [("2023-03-05", "2023-03-08"), ("2023-04-01", "2023-04-04")]),
        ("What did we say last week?", []),
        ("What is on Friday, tomorrow or next year?", []),
        ("May I ask who marches?", []),
        ("Where is the red notebook?", []),
        ("Room 12, chapter 3, 31 April 2023", []),
        ("", []),
    ],
)
def test_days_are_those_that_the_query_names_by_themselves(text: str, expected: list[tuple[str, str]]) -> None:
    assert days(understood(text, NEWEST, NOW_US)) == expected


def test_years_left_out_are_measured_from_the_newest_living_memory_and_not_from_the_future() -> None:
    assert days(understood("on 5 March", Columns(), NOW_US)) == [("2026-03-05", "2026-03-08")]
    ahead = columns_of([row(1, "", us(datetime(2999, 1, 1, tzinfo=UTC)))])
    assert days(understood("on 5 March", ahead, NOW_US)) == [("2026-03-05", "2026-03-08")]
    columns = columns_of([row(1, "", us(datetime(2010, 3, 9, tzinfo=UTC))), row(2, "", us(datetime(2020, 3, 9, tzinfo=UTC)))])
    columns.alive[1] = False
    assert days(understood("on 5 March", columns, NOW_US)) == [("2010-03-05", "2010-03-08")]


def test_a_leap_day_is_that_of_the_last_leap_year() -> None:
    columns = columns_of([row(1, "", us(datetime(2023, 12, 24, tzinfo=UTC)))])
    assert days(understood("What was on 29 February?", columns, NOW_US)) == [("2020-02-29", "2020-03-03")]
    assert days(understood("What is in February?", columns, NOW_US)) == [("2023-02-01", "2023-03-03")]


def test_the_first_years_of_the_calendar_break_nothing() -> None:
    first = columns_of([row(1, "", us(datetime(1, 1, 1, tzinfo=UTC)))])
    for text in ("on 5 March", "in May", "last May", "3 years ago", "2023-03-05", "last December", "9999-12-31"):
        understood(text, first, NOW_US)


def test_a_day_begins_and_ends_at_midnight_with_three_days_of_slack() -> None:
    query = understood("2023-03-05", NEWEST, NOW_US)
    begins = us(datetime(2023, 3, 5, tzinfo=UTC))
    said = np.array([begins - 1, begins, begins + DAY_US, begins + 4 * DAY_US - 1, begins + 4 * DAY_US])
    assert query.said(said).tolist() == [False, True, True, True, False]
    assert understood("no day", NEWEST, NOW_US).said(said).tolist() == [False] * 5


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("What did Ann say?", "Ann"),
        ("what did ANN's sister say", "Ann"),
        ("Anna annotates the banner", "Anna"),
        ("the banner of planning", None),
        ("What did Ann tell Bo?", "Ann"),  # whom it asks about comes first
        ("What did Bo get from Ann?", "Bo"),
        ("What do Ann and Bo share?", None),
        ("What did Ann's, Bo's and Anna's mothers cook?", None),
        ("What did Ann, Bo read?", None),
        ("Do both like tea, Ann as well as Bo?", None),
        ("Did C++ (bot) answer?", "C++ (bot)"),
        ("Jean Luc went home", "Jean Luc"),
        ("Jean-Luc went home", None),
        ("Strasse von Müller", "Müller"),
        ("", None),
    ],
)
def test_whom_a_query_asks_about(text: str, named: str | None) -> None:
    names = ["Ann", "Bo", "Anna", "C++ (bot)", "Jean Luc", "Müller", "", "Ann"]
    columns = columns_of([row(n, speaker=name) for n, name in enumerate(names, 1)])
    query = understood(text, columns, NOW_US)
    found = query.named(columns.ints("speaker"), columns.strings).tolist()
    assert found == [named is not None and name in (named, "") for name in names], "nobody known may be anybody"
    assert not query.named(np.zeros(3, np.int64), columns.strings).any(), "who has no name is not named"


def test_a_name_counts_against_those_who_may_be_meant() -> None:
    columns = columns_of([row(n, speaker=name) for n, name in enumerate(["Ann", "Bo", "Cy"], 1)])
    query = understood("What did Ann and Bo say?", columns, NOW_US)
    assert query.named(columns.ints("speaker")[[0, 2]], columns.strings).tolist() == [True, False], "Bo is no candidate"


def test_each_content_word_counts_once_with_its_first_place() -> None:
    text = "The dog saw the dogs, and the cat saw a DOG"
    query = understood(text, NEWEST, NOW_US)
    places = [(word.terms, place) for word, place in query.words]
    assert places == [(("dog",), 0), (("saw",), 1), (("cat",), 3)]
    assert list(query.terms) == ["dog", "saw", "cat"]
    assert [content_words(text)[place] for _, place in query.words] == [word for word, _ in query.words]
    assert (understood("what was it of the", NEWEST, NOW_US).words, understood("?!", NEWEST, NOW_US).terms) == ([], [])


def test_the_words_of_a_day_are_met_in_the_same_words_alone() -> None:
    query = understood("Where did Ann sing on 5 March 2023?", NEWEST, NOW_US)
    assert [word.terms for word, _ in query.words] == [("ann",), ("sing",)]
    assert list(query.terms) == ["ann", "sing", "5", "march", "2023"]
    assert [word.terms for word, _ in understood("In March 2023?", NEWEST, NOW_US).words] == [("march",), ("2023",)], "there are no others"


@pytest.mark.parametrize("part", ["x", "rain 2023-03-05 ", "5 March ", "猫が好き", "(" * 5, "Ann\n", "\x00", "1.", "in 2 days "])
def test_a_query_of_any_length_is_read_in_part(part: str) -> None:
    columns = columns_of([row(1, speaker="Ann"), row(2, speaker="(" * 256)])
    text = (part * (100_000 // len(part) + 1))[:100_000]
    query = understood(text, columns, NOW_US)
    assert len(query.words) <= 512 and len(query.terms) <= 1024 and len(query.spans) <= 64
    query.named(columns.ints("speaker"), columns.strings)


def test_days_and_names_are_looked_for_in_the_beginning() -> None:
    columns = columns_of([row(1, speaker="Ann")])
    query = understood("x " * 5000 + "on 2023-03-05 Ann", columns, NOW_US)
    assert not query.spans and not query.named(columns.ints("speaker"), columns.strings).any()
