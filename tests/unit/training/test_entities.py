"""The entity task: nobody trains on what is asked, and the control keeps everything but the truth."""

from __future__ import annotations

from random import Random

import numpy as np

from ndml.training.config import EntityTask
from ndml.training.data import Episode
from ndml.training.entities import OTHER, SAME, Entities, Entity, facts, held_out, vector

TASK = EntityTask(facts=40, first=8, easy=0.5, asks=12)


def entities_of(episode: Episode) -> set[Entity]:
    found = set()
    for entry in episode.readout.entries:
        first, second, third, *_ = entry.text.split()
        found.add((first, second, third))
    return found


def test_entities_that_are_asked_about_are_never_trained_on() -> None:
    source = Entities(TASK, seed=1)
    learned = set().union(*(entities_of(e) for step in range(60) for e in source.batch(step, 60)))
    asked = set().union(*(entities_of(e) for e in source.held_out(400)))
    assert len(learned) > 500 and len(asked) > 100 and not learned & asked
    assert not any(map(held_out, learned)) and all(map(held_out, asked))
    share = sum(held_out(f.entity) for f in facts(4000, Random(0), new=None)) / 4000
    assert 0.17 < share < 0.23


def test_a_step_follows_from_its_number_and_begins_easy() -> None:
    one, other = Entities(TASK, seed=1), Entities(TASK, seed=1)
    for step in (0, 7, 31):
        assert [e.asks for e in one.batch(step, 40)] == [e.asks for e in other.batch(step, 40)]
    assert one.batch(3, 40)[0].asks != Entities(TASK, seed=2).batch(3, 40)[0].asks
    sizes = [len(one.batch(step, 60)[0].readout) for step in (0, 9, 10, 19, 20, 29, 30, 59)]
    assert sizes == [8, 8, 16, 16, 32, 32, 40, 40]


def test_questions_have_their_answer_in_the_entry_that_they_name() -> None:
    asked = Entities(TASK, seed=1).held_out(90)
    assert sum(len(e.asks) for e in asked) == 90 and {a.kind for e in asked for a in e.asks} == {SAME, OTHER}
    for episode in asked:
        for ask in episode.asks:
            (entry,) = episode.readout.only(ask.used).entries
            *subject, relation, arrow, value = entry.text.split()
            said = f"{' '.join(subject)} {relation} {arrow}" if ask.kind == SAME else f"ask {relation} of {' '.join(subject)} {arrow}"
            assert (ask.question, ask.answer) == (said, value)


def test_the_control_keeps_keys_and_values_apart() -> None:
    source = Entities(TASK, seed=1)
    for was, now in zip(source.held_out(60), source.control(60), strict=True):
        before, after = ([e.text.rsplit(" ", 1) for e in each.readout.entries] for each in (was, now))
        assert [key for key, _ in before] == [key for key, _ in after]
        assert sorted(value for _, value in before) == sorted(value for _, value in after)
        moved = sum(a != b for (_, a), (_, b) in zip(before, after, strict=True))
        assert moved > 0.9 * len(before)  # values repeat, places do not
        assert not any(ask.used for ask in now.asks)


def test_vectors_say_which_word_stands_where() -> None:
    one, turned, other = (vector(f"{said} -> amberton") for said in ("ba bi city", "bi ba city", "ba bi job"))
    assert abs(float(np.linalg.norm(one)) - 1) < 1e-6
    assert float(one @ turned) < 0.95 and float(one @ other) < 0.95 and np.array_equal(one, vector("ba bi city -> amberton"))
    assert Entities(TASK, 0, vectors=True).batch(0, 2)[0].readout.dimension == len(one)
