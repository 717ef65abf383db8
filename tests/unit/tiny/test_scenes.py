"""What the model is trained on: right, repeatable, and apart from what it is tested with."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from ndml.tiny import lists
from ndml.tiny.grammar import ASSISTANT, USER, Subject, say
from ndml.tiny.relations import BY_NAME, RELATIONS
from ndml.tiny.scenes import Fact, Plan, Scene, Writer
from ndml.tiny.smalltalk import UNKNOWN
from ndml.tiny.words import Words, is_test


def scenes(count: int, seed: int, plan: Plan | None = None, test: bool = False) -> list[Scene]:
    writer = Writer(Random(seed), plan or Plan(), test=test)
    return [writer.scene() for _ in range(count)]


def facts(made: list[Scene]) -> Iterator[Fact]:
    return (fact for scene in made for line in scene.lines for fact, _, _ in line.facts)


def test_a_seed_is_a_scene() -> None:
    assert scenes(20, seed=1) == scenes(20, seed=1)
    assert scenes(20, seed=1) != scenes(20, seed=2)


def test_training_and_test_values_never_meet() -> None:
    trained, tested = ({f.value.casefold() for f in facts(scenes(400, 1, test=test))} for test in (False, True))
    assert len(trained) > 1000 and len(tested) > 1000
    assert trained & tested == set()


@pytest.mark.parametrize("test", [False, True])
def test_names_are_of_their_side(test: bool) -> None:
    words = Words(Random(3), test)
    assert {is_test(word) for _ in range(300) for word in words.person().split()} == {test}


@pytest.mark.parametrize("kind", ["people", "cities", "companies", "foods", "jobs", "languages", "subjects", "plays", "spots"])
def test_both_sides_of_a_list_hold_something(kind: str) -> None:
    sides = [is_test(word) for word in lists.words(kind)]
    assert sides.count(True) >= 2
    assert sides.count(False) >= 2 * sides.count(True)


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda r: r.name)
def test_held_out_phrasings_stay_out_of_training(relation: object) -> None:
    found = BY_NAME[getattr(relation, "name", "")]
    for side in (found.asked, found.said):
        assert side(True) and side(False)
        assert not set(side(True)) & set(side(False))
    plan = Plan(plain=1.0, people=0.0, talk=0.0, unknown=0.0, lines=(2, 2), noise=0.0)
    made = [Writer(Random(seed), plan, relations=[found]).scene() for seed in range(40)]
    asked = {turn.user for scene in made for turn in scene.turns}
    held_out = {
        say(template, Subject(), USER, "", fact.attribute).text
        for fact in facts(made)
        for template in found.asked(True)
    }  # fmt: skip
    assert asked and not asked & held_out


def test_a_value_stands_where_its_line_and_its_answer_say() -> None:
    for scene in scenes(300, seed=4):
        for line in scene.lines:
            for fact, start, end in line.facts:
                assert line.text[start:end] == fact.value
        for turn in scene.turns:
            assert [turn.answer[a:b] for slot, a, b in turn.spans if slot == "v"] == ([turn.value] if turn.value else [])


def test_an_answer_cites_the_newest_line_that_says_so() -> None:
    changed = 0
    for scene in scenes(300, seed=5, plan=Plan(changes=0.5, talk=0.0)):
        assert [line.said for line in scene.lines] == sorted(line.said for line in scene.lines)
        for turn in (t for t in scene.turns if t.line >= 0):
            line = scene.lines[turn.line]
            fact = next(
                f
                for f, _, _ in line.facts
                if (f.relation.name, f.value) == (turn.relation, turn.value) and turn.answer.startswith(f.answer().text)
            )
            assert turn.answer == f"{fact.answer().text} [{line.number}]"
            assert fact.key not in {f.key for later in scene.lines[turn.line + 1 :] for f, _, _ in later.facts}
            changed += turn.kind == "changed"
    assert changed > 50


def test_the_unknown_is_nowhere_in_memory() -> None:
    made = scenes(300, seed=6, plan=Plan(unknown=0.9, talk=0.0))
    turns = [turn for scene in made for turn in scene.turns if turn.kind == "unknown"]
    assert len(turns) > 300
    assert {turn.answer for turn in turns} == {UNKNOWN}


def test_who_speaks_decides_who_is_meant() -> None:
    home = "{I} {live} in {v}, {my} bike too; {I} {have} {am}."
    ana = Subject("Ana")
    assert say("{I} {live} in {v}.", ana, "Ana", "Porto").text == "I live in Porto."
    assert say("{I} {live} in {v}.", ana, USER, "Porto").text == "Ana lives in Porto."
    assert say("{I} {live} in {v}.", ana, ASSISTANT, "Porto").text == "Ana lives in Porto."
    assert say("{I} {live} in {v}.", Subject(), ASSISTANT, "Porto").text == "You live in Porto."
    assert say("{my} cat {am} {v}.", Subject("Ana", "brother"), "Ana", "Rex").text == "My brother's cat is Rex."
    assert say("{my} cat {am} {v}.", Subject("Ana", "brother"), ASSISTANT, "Rex").text == "Ana's brother's cat is Rex."
    assert say("{I} {study} {v}, {do}n't {I}?", Subject(USER, "aunt"), ASSISTANT, "law").text == "Your aunt studies law, doesn't your aunt?"
    assert say(home, ana, USER, "Porto", pronoun="her").text == "Ana lives in Porto, her bike too; Ana has is."


def test_spans_point_at_the_slots() -> None:
    phrase = say("{my} {k} is {v}.", Subject("Ana"), USER, "red", "bike")
    assert [(slot, phrase.text[a:b]) for slot, a, b in phrase.spans] == [("s", "Ana's"), ("k", "bike"), ("v", "red")]
