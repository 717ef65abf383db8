"""Sessions cut at surprises: topics, sessions, one turn, long sessions, and that a part is cut as the whole is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp.episodes import EpisodeOptions, boundaries, episode_of

OPTIONS = EpisodeOptions()


def talk(*lengths: int, seed: int = 1, noise: float = 0.25) -> np.ndarray:
    """Turns about one topic after the other, so many of each: unit vectors near the topic's."""
    random = np.random.default_rng(seed)
    topics = [random.normal(size=64) for _ in lengths]
    made = np.vstack(
        [topic / np.linalg.norm(topic) + noise * random.normal(size=(n, 64)) / 8 for topic, n in zip(topics, lengths, strict=True)]
    )
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def one(vectors: np.ndarray) -> np.ndarray:
    return np.zeros(len(vectors), np.int64)


def test_another_topic_begins_an_episode() -> None:
    vectors = talk(8, 9, 12, 7)
    begins = boundaries(vectors, one(vectors))
    assert {0, 8, 17, 29} <= set(np.flatnonzero(begins).tolist())
    assert begins.sum() <= 10, "most turns go on with what was said"


def test_another_session_begins_an_episode_whatever_is_said() -> None:
    vectors = np.tile(talk(1), (12, 1))
    sessions = np.repeat([1, 2, 1], 4)
    assert np.flatnonzero(boundaries(vectors, sessions)).tolist() == [0, 4, 8]


def test_one_turn_is_an_episode_and_no_turn_is_none() -> None:
    assert boundaries(talk(1), np.zeros(1, np.int64)).tolist() == [True]
    assert boundaries(np.empty((0, 64), np.float32), np.empty(0, np.int64)).tolist() == []


def test_what_is_said_again_and_again_is_one_episode() -> None:
    vectors = np.tile(talk(1), (200, 1))
    assert boundaries(vectors, one(vectors)).sum() == 1


def test_too_few_turns_are_not_cut() -> None:
    vectors = talk(2, 2)
    assert boundaries(vectors, one(vectors)).sum() == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 150), st.integers(1, 60))
def test_a_part_of_a_long_session_is_cut_as_the_whole_is(seed: int, start: int, length: int) -> None:
    vectors = talk(*[20] * 12, seed=seed, noise=1.0)
    whole = boundaries(vectors, one(vectors))
    # One turn more than the reach: the first turn of a part has no surprise of its own.
    seen = slice(start, start + OPTIONS.reach + 1 + length)
    part = boundaries(vectors[seen], one(vectors[seen]))
    assert part[OPTIONS.reach + 1 :].tolist() == whole[seen][OPTIONS.reach + 1 :].tolist()


@pytest.mark.parametrize(("turn", "expected"), [(0, (0, 2)), (2, (0, 2)), (3, (3, 3)), (4, (4, 6)), (6, (4, 6))])
def test_the_episode_of_a_turn(turn: int, expected: tuple[int, int]) -> None:
    assert episode_of(np.array([True, False, False, True, True, False, False]), turn) == expected
