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


def test_who_tells_what_is_asked_for_gives_way_to_such_alone() -> None:
    assert renewed(SCORE, leaders(told=[True, False, False, True]), ALWAYS).tolist() == [9, 7, 7, 9]
    apart = np.eye(4, dtype=np.float32)
    assert renewed(SCORE, leaders(vectors=apart, told=[True, False, False, True]), ALWAYS).tolist() == [9, 7, 5, 9], "however it is worded"


def test_a_speaker_is_meant_by_i_and_by_name() -> None:
    texts = [("Ann", "I moved to Rome."), ("Bo", "I live in Cork."), ("Bo", "Ann lives in Cork now."), ("Ann", "Do I live in Rome?")]
    assert tells(asked_slots("Where does Ann live?"), texts).tolist() == [True, False, True, False]
    assert tells(asked_slots("Where do I live?"), texts).tolist() == [True, True, False, False]
    assert tells(asked_slots("Where do I live?"), [("Ann", "I live in Rome. " + "And so on. " * 40)]).tolist() == [False], (
        "too long to be one thing"
    )
