"""What the model is trained on: right, repeatable, and apart from what it is tested with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import astuple
from random import Random

import pytest

from ndml.tiny import lists
from ndml.tiny.grammar import ASSISTANT, USER, Subject, say
from ndml.tiny.relations import BY_NAME, RELATIONS, Relation
from ndml.tiny.scenes import Fact, Plan, Scene, Writer
from ndml.tiny.smalltalk import FRAMES, UNKNOWN
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


def test_every_piece_of_a_vocabulary_is_said_and_words_stay_on_their_side() -> None:
    pieces = (["Pro", "acc", "Helsin"], ["ject", "ount", "ki"])
    words = Words(Random(5), False, pieces)
    made = [words.made() for _ in range(3000)]
    assert not any(is_test(word) for word in made)
    spelled = [word for word in made if word.startswith(tuple(pieces[0]))]
    assert {piece for piece in (*pieces[0], *pieces[1]) if any(piece in word for word in spelled)} == {*pieces[0], *pieces[1]}
    assert 0.4 < len(spelled) / len(made) < 0.7, "the others are spelled from syllables"


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


def bare(phrasing: str) -> str:
    """A phrasing without capitals, signs, slots' braces and shortenings."""
    long = phrasing.lower().replace("'m ", " am ").replace("'s ", " am ")
    return " ".join(re.sub(r"[^a-z ]", "", long).split())


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda r: r.name)
def test_what_is_for_training_alone_is_said_otherwise_than_what_is_held_out(relation: Relation) -> None:
    said = (relation.more.statements, relation.said(False), relation.more.changes, relation.changes)
    framed = [frame.replace("…", each.removesuffix(".")) for each in sum(said, ()) for frame in ("…", *FRAMES)]
    reworded = [Writer(Random(16), Plan())._vary(each, myself) for each in sum(said, ()) for myself in (True, False)]
    assert not {bare(each) for each in (*framed, *reworded)} & {bare(each) for each in relation.said(True)}
    assert not {bare(each) for each in relation.more.questions} & {bare(each) for each in relation.asked(True)}
    for slots in (each.count("{v}") for each in (*relation.more.statements, *relation.more.changes)):
        assert slots == 1
    assert {"{k}" in each for wordings in astuple(relation.more) for each in wordings} == {"{k}" in relation.answer}
    assert bool(relation.more.changes) == bool(relation.changes)


@pytest.mark.parametrize("wide", [0.0, 1.0])
def test_what_is_for_training_alone_is_said_where_the_plan_says_so(wide: float) -> None:
    plan = Plan(plain=1.0, people=0.0, noise=0.0, lines=(3, 3), talk=0.0, unknown=0.0, wide=wide)
    lines = [line for scene in scenes(100, 17, plan) for line in scene.lines if len(line.facts) == 1]
    found = 0
    for line, fact in ((line, line.facts[0][0]) for line in lines):
        wordings = (*fact.relation.more.statements, *fact.relation.more.changes)
        found += any(line.text.startswith(say(each, Subject(), USER, fact.value, fact.attribute).text) for each in wordings)
    assert found == len(lines) * wide


def test_a_value_stands_where_its_line_and_its_answer_say() -> None:
    for scene in scenes(300, seed=4):
        for line in scene.lines:
            for fact, start, end in line.facts:
                assert line.text[start:end] == fact.value
        for turn in scene.turns:
            assert [turn.answer[a:b] for slot, a, b in turn.spans if slot == "v"] == ([turn.value] if turn.value else [])


def test_a_reworded_statement_still_says_its_value() -> None:
    frames = tuple(frame.split("…")[0] for frame in FRAMES if frame[0] != "…")
    framed = []
    for varied in (0.0, 1.0):
        lines = [line for scene in scenes(200, 13, Plan(plain=1.0, noise=0.0, lines=(5, 5), varied=varied)) for line in scene.lines]
        assert all(line.text[start:end] == fact.value for line in lines for fact, start, end in line.facts)
        assert not any("{" in line.text or "…" in line.text for line in lines)
        framed.append(sum(line.text.startswith(frames) for line in lines) / len(lines))
    assert framed[0] < 0.05 and 0.2 < framed[1] < 0.4


@pytest.mark.parametrize(("myself", "said"), [(True, "I'm reading {v}."), (False, "Ana's reading {v}.")])
def test_who_speaks_decides_how_a_statement_is_shortened(myself: bool, said: str) -> None:
    writer, found = Writer(Random(14), Plan()), set()
    for _ in range(200):
        template = writer._vary("{I} {am} reading {v}.", myself)
        found.add(say(template, Subject("Ana"), "Ana" if myself else USER, "{v}").text)
    assert {said, "I am reading {v}." if myself else "Ana is reading {v}."} <= found
    assert not any(text.startswith("I's" if myself else "Ana'm") for text in found)


def test_numbers_of_lines_reach_past_their_count_where_they_are_scattered() -> None:
    made = scenes(60, seed=15, plan=Plan(lines=(4, 4), scattered=1.0))
    numbers = [{line.number for line in scene.lines} for scene in made]
    assert all(len(each) == 4 for each in numbers) and max(max(each) for each in numbers) == 40


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
