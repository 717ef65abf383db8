"""The closer look at the leaders: who takes whose place, and who does not."""

from __future__ import annotations

from typing import Any

import numpy as np

from ndml.btsp.asked import asked_slots
from services.memory_node.signals.leaders import Leaders, renewed, tells

ALWAYS = np.iinfo(np.int64).max
SCORE = np.array([9, 7, 5, 3], np.float32)


def leaders(**given: Any) -> Leaders:
    """Four rows that all say the same kind of thing, each said later than those before it, by one speaker."""
    made: dict[str, Any] = {
        "vectors": np.tile(np.eye(2, dtype=np.float32)[0], (4, 1)),
        "said": np.arange(4),
        "speaker": np.ones(4, np.int64),
        "apart": np.zeros(4, np.bool_),
        "told": np.zeros(4, np.bool_),
    }
    return Leaders(**{**made, **{name: np.asarray(value, made[name].dtype) for name, value in given.items()}})


def test_the_newer_takes_the_place_of_the_older_and_passes_it_on() -> None:
    assert renewed(SCORE, leaders(), ALWAYS).tolist() == [9, 9, 9, 9]
    assert renewed(SCORE, leaders(said=[3, 2, 1, 0]), ALWAYS).tolist() == SCORE.tolist(), "the older stays where it is"


def test_only_what_says_the_same_kind_of_thing_by_the_same_speaker() -> None:
    other = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
    assert renewed(SCORE, leaders(vectors=other), ALWAYS).tolist() == [9, 7, 9, 7]
    assert renewed(SCORE, leaders(speaker=[1, 2, 1, 3]), ALWAYS).tolist() == [9, 7, 9, 3]
    assert renewed(SCORE, leaders(apart=[False, True, False, False]), ALWAYS).tolist() == [9, 7, 9, 9]


def test_what_was_said_after_the_time_that_is_asked_about_takes_no_place() -> None:
    assert renewed(SCORE, leaders(), 1).tolist() == [9, 9, 5, 3]


def test_who_tells_what_is_asked_for_takes_places_however_it_is_worded() -> None:
    unlike = np.eye(4, dtype=np.float32)
    assert renewed(SCORE, leaders(vectors=unlike, told=[True, False, False, True]), ALWAYS).tolist() == [9, 7, 5, 9]


def test_a_property_that_no_rule_reads_in_the_newer_keeps_nobody_in_front() -> None:
    assert renewed(SCORE, leaders(told=[True, False, False, False]), ALWAYS).tolist() == [9, 9, 9, 9]


def test_the_better_the_newer_answers_the_less_alike_it_has_to_be() -> None:
    half = np.array([[1, 0], [0.5, 0.75**0.5], [0, 1], [0, 1]], np.float32)  # the second has a cosine of 1/2 to the first
    told_by_others = leaders(vectors=half, speaker=[1, 1, 2, 3])
    assert renewed(SCORE, told_by_others, ALWAYS).tolist() == [9, 9, 5, 3], "7 of 9: .44 is enough"
    few = np.array([9, 2, 1, 1], np.float32)
    assert renewed(few, told_by_others, ALWAYS).tolist() == few.tolist(), "2 of 9: .56 is wanted"
    below = np.array([-1, -2, -3, -4], np.float32)
    assert renewed(below, told_by_others, ALWAYS).tolist() == below.tolist(), "of scores below 0 no share is taken"


def test_a_speaker_is_meant_by_i_and_by_name() -> None:
    texts = [("Ann", "I moved to Rome."), ("Bo", "I live in Cork."), ("Bo", "Ann lives in Cork now."), ("Ann", "Do I live in Rome?")]
    assert tells(asked_slots("Where does Ann live?"), texts).tolist() == [True, False, True, False]
    assert tells(asked_slots("Where do I live?"), texts).tolist() == [True, True, False, False]
    assert tells(asked_slots("Where do I live?"), [("Ann", "I live in Rome. " + "And so on. " * 40)]).tolist() == [False], (
        "too long to be one thing"
    )
