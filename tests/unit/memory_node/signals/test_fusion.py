"""One score out of many signals: what each adds alone, along which links it spreads, and that the shares are the score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.memory_node.signals.fusion import WIDTH, Candidates, SignalWeights, fuse

NOTHING = SignalWeights(*[0.0] * len(SignalWeights._fields))
USUAL = SignalWeights(2.0, 1.0, 1.0, 2.0, 1.0, 0.3, 3.0, 0.75, 0.75, 0.75, slot=2.0, newest=1.0)


def candidates(count: int, **given: Any) -> Candidates:
    """`count` rows that nothing speaks for, each without a session."""
    alone = np.full((count, 2 * WIDTH + 1), -1)
    alone[:, WIDTH] = np.arange(count)
    made: dict[str, Any] = {
        "dense": np.zeros(count, np.float32),
        "lexical": np.zeros(count, np.float32),
        "words": np.empty((0, count), np.float32),
        "word_weights": np.empty(0, np.float32),
        "around": alone,
        "speaker": np.zeros(count, np.int64),
        "session": np.zeros(count, np.int64),
        **{name: np.zeros(count, np.bool_) for name in ("asks", "assistant", "dated", "named", "another")},
    }
    for name, value in given.items():
        made[name] = np.asarray(value, made[name].dtype)
    return Candidates(**made)


def line(count: int) -> np.ndarray:
    """Every row in one session, in order."""
    around = np.arange(count)[:, None] + np.arange(-WIDTH, WIDTH + 1)
    return np.where((around >= 0) & (around < count), around, -1)


def score(found: Candidates, weights: SignalWeights) -> np.ndarray:
    return np.sum(list(fuse(found, weights).values()), axis=0)


def standard(values: list[float]) -> np.ndarray:
    return (np.array(values) - np.mean(values)) / np.std(values)


@pytest.mark.parametrize("name", ["dense", "lexical"])
def test_a_measured_signal_counts_in_deviations_from_the_mean(name: str) -> None:
    values = [0.9, 0.1, 0.3, 0.3]
    shares = fuse(candidates(4, **{name: values}), NOTHING._replace(**{name: 2.0}))
    assert list(shares) == [name] and shares[name].dtype == np.float32
    np.testing.assert_allclose(shares[name], 2 * standard(values), rtol=1e-5)


def apart(words: np.ndarray) -> np.ndarray:
    """How far each cosine stands out from those of the same word."""
    return (words - words.mean(axis=1, keepdims=True)) / (words.std(axis=1, keepdims=True) + 0.15)


def test_late_interaction_is_the_weighted_mean_over_the_querys_words() -> None:
    words, weights = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]), np.array([3.0, 1.0])
    shares = fuse(candidates(3, words=words, word_weights=weights), NOTHING._replace(late=1.0))
    np.testing.assert_allclose(shares["late"], standard((weights @ apart(words) / 4).tolist()), rtol=1e-5)


def test_a_word_counts_by_how_far_a_row_stands_out() -> None:
    words = np.array([[0.50, 0.60, 0.55, 0.45], [0.60, 0.10, 0.05, 0.05]])
    late = fuse(candidates(4, words=words, word_weights=[3.0, 1.0]), NOTHING._replace(late=1.0))["late"]
    assert np.argmax(late) == 1, "by the word that weighs three times as much, though its cosines lie close together"
    noise = np.array([[0.500, 0.501, 0.500, 0.500], words[1]])
    late = fuse(candidates(4, words=noise, word_weights=[3.0, 1.0]), NOTHING._replace(late=1.0))["late"]
    assert np.argmax(late) == 0, "but not where they are all alike"


def test_with_its_neighbours_a_row_has_their_words_too() -> None:
    words = np.array([[0.9, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.9, 0.0, 0.0]])
    found = candidates(5, words=words, word_weights=[1.0, 1.0], around=line(5))
    context = fuse(found, NOTHING._replace(late_context=1.0))["late_context"]
    # Row 1 has both words a step away, rows 0 and 2 one and the other two steps away, row 3 a word a step away, row 4 two.
    expected = [(0.9 + 0.9 * 0.64) / 2, 0.9 * 0.8, (0.9 + 0.9 * 0.64) / 2, 0.9 * 0.8 / 2, 0.9 * 0.64 / 2]
    np.testing.assert_allclose(context, standard(expected), rtol=1e-4)


def test_a_word_that_is_far_from_all_is_no_nearer_for_having_neighbours() -> None:
    words, alone = [[-0.2, -0.4, 0.5]], [[-1, -1, i, -1, -1] for i in range(3)]
    context = fuse(candidates(3, words=words, word_weights=[1.0], around=alone), NOTHING._replace(late_context=1.0))["late_context"]
    assert context[2] > context[0] >= context[1]
    together = fuse(candidates(3, words=words, word_weights=[1.0], around=line(3)), NOTHING._replace(late_context=1.0))["late_context"]
    assert together[2] > together[1] > together[0], "the nearer it stands to what is near"


def spread(asks: list[bool], speakers: list[int], assistant: list[bool], from_row: int) -> np.ndarray:
    """What a row that alone is similar gives to the others around it, in parts of its own score."""
    dense = np.zeros(len(asks))
    dense[from_row] = 1
    found = candidates(len(asks), dense=dense, around=line(len(asks)), asks=asks, speaker=speakers, assistant=assistant)
    shares = fuse(found, NOTHING._replace(dense=1.0, links=1.0))
    return shares["links"] / shares["dense"][from_row]


def test_between_people_a_question_leads_to_the_others_reply() -> None:
    asked = spread([False, True, False, False, False], [2, 1, 2, 1, 2], [False] * 5, 1)
    np.testing.assert_allclose(asked, [0.25 * 0.4, 0, 0.5, 0.25 * 0.25, 0], atol=1e-6)
    said = spread([False] * 5, [2, 1, 2, 1, 2], [False] * 5, 1)
    np.testing.assert_allclose(said[2], 0.25 * 0.5, atol=1e-6)
    themselves = spread([False, True, False, False, False], [1] * 5, [False] * 5, 1)
    np.testing.assert_allclose(themselves, [0.5 * 0.4, 0, 0.25 * 0.5, 0.25 * 0.25, 0], atol=1e-6)


def test_with_an_assistant_its_reply_leads_back_to_what_it_replied_to() -> None:
    turns = [False, True, False, True, False]  # user, assistant, user, assistant, user
    replied = spread([False] * 5, [1, 2, 1, 2, 1], turns, 3)
    np.testing.assert_allclose(replied, [0, 0.25 * 0.25, 0.5, 0, 0.25 * 0.5], atol=1e-6)
    # Its question is no question between people: what follows it gets no more.
    asked = spread([False, True, False, False, False], [1, 2, 1, 2, 1], turns, 1)
    np.testing.assert_allclose(asked[2], 0.25 * 0.5, atol=1e-6)


def test_what_is_below_the_mean_takes_nothing_from_its_neighbours() -> None:
    found = candidates(3, dense=[0, -5, 0], around=line(3))
    shares = fuse(found, NOTHING._replace(dense=1.0, links=1.0))
    assert (shares["links"] >= 0).all() and shares["links"][1] > 0


def test_a_row_without_a_session_is_one_of_its_own() -> None:
    shares = fuse(candidates(4, dense=[1, 2, 3, 9]), NOTHING._replace(dense=1.0, links=1.0, session=0.5))
    assert not shares["links"].any()
    np.testing.assert_allclose(shares["session"], 0.5 * shares["dense"], atol=1e-6)


def test_the_best_of_a_session_lift_the_others_in_it() -> None:
    found = candidates(6, dense=[9, 8, 0, 0, 1, 2], session=[1, 1, 1, 2, 2, 0])
    lift = fuse(found, NOTHING._replace(dense=1.0, session=0.5))["session"]
    assert lift[0] == lift[1] == lift[2] > 0 > lift[3] == lift[4]
    assert lift[3] < lift[5] < lift[0], "who has no session stands for itself"
    many = candidates(8, dense=[9, 9, 9, 0, 0, 0, 8.9, 0], session=[1, 1, 1, 1, 1, 1, 2, 3])
    lift = fuse(many, NOTHING._replace(dense=1.0, session=1.0))["session"]
    assert lift[0] > lift[6], "three count, so a long session is not worse for all else that was said in it"


@pytest.mark.parametrize(
    ("flag", "weight", "sign"), [("dated", "date", 1), ("named", "speaker", 1), ("asks", "asks", -1), ("another", "another", -1)]
)
def test_a_flag_counts_in_deviations_of_the_score(flag: str, weight: str, sign: int) -> None:
    flags = [True, False, True, False]
    found = candidates(4, dense=[1, 2, 3, 9], **{flag: flags})
    shares = fuse(found, NOTHING._replace(dense=2.0, **{weight: 0.5}))
    np.testing.assert_allclose(shares[weight], [sign * 0.5 * 2 * each for each in flags], rtol=1e-5)
    assert not fuse(candidates(4, **{flag: flags}), NOTHING._replace(**{weight: 5.0}))[weight].any(), "no score, no deviation"


def test_a_signal_without_weight_is_left_out() -> None:
    rng = np.random.default_rng(0)
    given = {"dense": rng.random(5), "lexical": rng.random(5), "words": rng.random((2, 5)), "word_weights": [1, 2]}
    flags = {
        "dated": [1, 0, 0, 0, 0],
        "named": [0, 1, 0, 0, 0],
        "asks": [0, 0, 1, 0, 0],
        "another": [0, 1, 0, 0, 0],
        "session": [1, 1, 1, 2, 2],
        "around": line(5),
    }
    found = candidates(5, **given, **flags)
    fused = set(SignalWeights._fields) - {"slot", "newest"}
    assert set(fuse(found, USUAL)) == fused
    for name in fused:
        assert set(fuse(found, USUAL._replace(**{name: 0.0}))) == fused - {name}
    assert fuse(found, NOTHING) == {}
    assert set(fuse(found, USUAL.fast())) == {"dense", "lexical"}
    assert USUAL.fast() == NOTHING._replace(dense=2.0, lexical=1.0)


def test_a_query_without_content_words_has_no_late_interaction() -> None:
    shares = fuse(candidates(3, dense=[1, 2, 3], words=np.empty((0, 3)), around=line(3)), USUAL)
    assert "late" not in shares and "late_context" not in shares and np.argmax(shares["dense"]) == 2


@pytest.mark.parametrize("count", [1, 5])
def test_candidates_that_are_all_alike_have_equal_scores(count: int) -> None:
    same = {"dense": np.full(count, 0.3), "lexical": np.full(count, 7.0), "words": np.full((2, count), 0.5), "word_weights": [1, 1]}
    found = candidates(count, **same, around=line(count), session=np.ones(count), dated=np.ones(count), asks=np.ones(count))
    shares = fuse(found, USUAL)
    assert all(not share.any() for share in shares.values()), "nothing tells them apart"


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_scores_are_finite_and_follow_the_rows_wherever_they_stand(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    scale = data.draw(st.sampled_from([0.0, 1e-9, 1.0, 1e4]))
    words = data.draw(st.integers(0, 3))
    bits = {name: rng.integers(0, 2, count) for name in ("asks", "assistant", "dated", "named", "another")}
    numbers = {"speaker": rng.integers(0, 3, count), "session": rng.integers(0, 3, count)}
    measured = {"dense": scale * rng.standard_normal(count), "lexical": scale * rng.random(count)}
    late = {"words": rng.uniform(-1, 1, (words, count)), "word_weights": rng.uniform(0.05, 9, words)}
    found = candidates(count, **measured, **late, **bits, **numbers, around=line(count))
    total = score(found, USUAL)
    assert np.isfinite(total).all() and total.shape == (count,)
    order = np.array(data.draw(st.permutations(range(count))))
    place = np.argsort(order)
    around = np.where(line(count) >= 0, place[line(count)], -1)[order]
    moved = {name: value[order] for name, value in {**measured, **bits, **numbers}.items()}
    again = candidates(count, **moved, words=late["words"][:, order], word_weights=late["word_weights"], around=around)
    np.testing.assert_allclose(score(again, USUAL), total[order], atol=1e-3)
