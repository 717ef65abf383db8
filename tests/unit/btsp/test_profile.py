"""What an owner's statements make of a profile: the last said holds, what it replaced is named, the rest is no property."""

from __future__ import annotations

from itertools import permutations

import pytest

from ndml.btsp.profile import MOST_REPLACED, Stated, profile
from ndml.btsp.slots import STATEMENT_CHARS


def of(*texts: str, speaker: str = "user") -> dict[tuple[str, str, str], tuple[str, int, list[str]]]:
    stated = [Stated(str(i), speaker, text, i) for i, text in enumerate(texts)]
    return {(p.whose, p.kind, p.what): (p.trace_id, p.since, p.replaced) for p in profile(stated)}


def test_the_last_said_holds_and_names_what_it_replaced() -> None:
    found = of("I live in Berlin.", "I work as a nurse.", "I moved to Rome.", "It rains.", "Where do I live?", "I live in Oslo now.")
    assert found["", "residence", ""] == ("5", 5, ["2", "0"])
    assert found["", "profession", ""] == ("1", 1, [])
    assert len(found) == 2


def test_what_is_said_again_holds_since_it_was_first_said() -> None:
    assert of("I live in Rome.", "I live in Rome now.", "I live in Rome.")["", "residence", ""] == ("2", 0, [])
    back = of("I live in Rome.", "I moved to Oslo.", "I moved back to Rome.")
    assert back["", "residence", ""] == ("2", 2, ["1", "0"])


def test_the_order_in_which_statements_come_is_nothing() -> None:
    stated = [Stated(str(i), "", text, i) for i, text in enumerate(("I live in Berlin.", "I moved to Rome.", "I moved to Oslo."))]
    assert len({str(profile(each)) for each in permutations(stated)}) == 1


def test_each_speaker_and_each_of_theirs_has_properties_of_their_own() -> None:
    stated = [
        Stated("a", "Ann", "I live in Berlin.", 1),
        Stated("b", "Bo", "I live in Rome.", 2),
        Stated("c", "Bo", "My sister lives in Oslo.", 3),
    ]
    assert [(p.whose, p.trace_id) for p in profile(stated)] == [("ann", "a"), ("bo", "b"), ("bo's sister", "c")]
    assert set(of("My sister moved to Oslo.")) == {("my sister", "residence", "")}


@pytest.mark.parametrize(
    "text",
    [
        "I drive a Volvo.",
        "I am reading Emma.",
        "I like tea.",
        "My keys are in the drawer.",
        "My course is on Friday.",
        "I live in Rome. " + "x" * STATEMENT_CHARS,
        "",
    ],
)
def test_what_may_be_many_or_no_rule_reads_is_no_property(text: str) -> None:
    assert of(text) == {}


def test_what_is_named_as_replaced_is_bounded() -> None:
    found = of(*(f"I live in City{i}." for i in range(3 * MOST_REPLACED)))
    [(trace_id, since, replaced)] = found.values()
    assert (trace_id, since, len(replaced)) == ("23", 23, MOST_REPLACED) and replaced[0] == "22"
