"""One decision for a set of siblings, whoever computes it and in whatever order they came."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.crdt.oscillator import OscillatorOptions, vectorised
from ndml.crdt.resolve import LARGEST_SCORE, ResolveOptions, Sibling, components, quantised, resolve, resolve_all, similarities
from ndml.errors import EmbeddingNotFinite, FieldInvalid

QUICK = ResolveOptions(OscillatorOptions(steps=2200))
"""Three periods: enough for phases, few enough for a thousand examples where the C port was not built."""


def key(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def sibling(name: str, vector: Sequence[float], score: int = 100, clock: int = 1) -> Sibling:
    return Sibling(key(name), quantised(np.array(vector, "<f4").tobytes()), score, clock)


@st.composite
def sibling_sets(draw: st.DrawFn) -> list[Sibling]:
    """Few contents, few values: equal scores, clocks, vectors and contents are common, and so are vectors of other lengths."""
    vectors = st.lists(st.integers(-2, 2), min_size=2, max_size=3).map(lambda values: np.array(values, np.int8))
    one = st.builds(Sibling, st.sampled_from([key(name) for name in "abcdef"]), vectors, st.integers(0, 3), st.integers(1, 2))
    return draw(st.lists(one, min_size=1, max_size=6))


def decision(siblings: Sequence[Sibling], options: ResolveOptions = QUICK) -> tuple[object, ...]:
    """Everything that is decided, by contents instead of places."""
    found = resolve(siblings, options)
    phases = {(one.key, phase) for one, phase in zip(siblings, found.phases, strict=True)} if found.phases else set()
    best = siblings[found.winner]
    return best.key, best.score, best.clock, {siblings[i].key for i in found.coalition}, found.support, phases, found.why


@settings(max_examples=40, deadline=None)
@given(siblings=sibling_sets(), data=st.data())
def test_order_and_repetition_change_nothing(siblings: list[Sibling], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.sampled_from(siblings), max_size=3))
    shuffled = data.draw(st.permutations([*siblings, *again]))
    assert decision(shuffled) == decision(siblings)


@settings(max_examples=30, deadline=None)
@given(siblings=sibling_sets())
def test_the_scorer_decides_not_the_oscillators(siblings: list[Sibling]) -> None:
    still = resolve(siblings, ResolveOptions(OscillatorOptions(steps=1)))  # nothing has switched yet
    found = resolve(siblings, QUICK)
    assert still.phases == () and (still.winner, still.coalition, still.support) == (found.winner, found.coalition, found.support)


@settings(max_examples=20, deadline=None)
@given(sets=st.lists(sibling_sets(), max_size=4))
def test_many_sets_at_once_are_resolved_as_one_by_one(sets: list[list[Sibling]]) -> None:
    together = resolve_all(sets, QUICK, relaxing=vectorised)
    assert together == [resolve(siblings, QUICK) for siblings in sets]


def test_every_order_of_five_real_sized_siblings_decides_the_same() -> None:
    random = np.random.default_rng(4)
    truth, others = random.normal(size=384), random.normal(size=(2, 384))
    vectors = [*(truth + 0.5 * random.normal(size=(3, 384))), *others]
    siblings = [sibling(str(at), vector, score=500 + 300 * (at > 2), clock=at) for at, vector in enumerate(vectors)]
    first = decision(siblings, ResolveOptions())
    assert first[3] == {key("0"), key("1"), key("2")}
    assert all(decision(order, QUICK) == decision(siblings, QUICK) for order in itertools.permutations(siblings))
    assert decision(list(reversed(siblings)), ResolveOptions()) == first


def test_agreement_outweighs_one_louder_and_later_voice() -> None:
    siblings = [
        sibling("liar", [0, 1], 900, clock=9),
        sibling("a", [1, 0.1], 500),
        sibling("b", [1, 0.2], 500),
        sibling("c", [1, 0.3], 500),
    ]
    found = resolve(siblings)
    assert found.winner == 2 and found.coalition == (1, 2, 3)  # b: in the middle of those that agree
    assert 3 * 500 * 240 < found.support < 3 * 500 * 256
    assert found.phases[2] == 0 and found.why == "3 of 4 agree, in step"
    trusted = [Sibling(one.key, one.embedding, one.score * (10 if at == 0 else 1), one.clock) for at, one in enumerate(siblings)]
    assert resolve(trusted).winner == 0 and resolve(trusted).why == "one of 4, stronger than those that agree"


def test_between_equals_the_later_then_the_smaller_key_is_shown() -> None:
    apart = [sibling("x", [1, 0], 5, clock=1), sibling("y", [0, 1], 5, clock=2)]
    assert resolve(apart).winner == 1 and resolve(apart).why == "the strongest of 2; no two agree"
    same_clock = [sibling("x", [1, 0], 5), sibling("y", [0, 1], 5)]
    assert resolve(same_clock).winner == min((0, 1), key=lambda at: same_clock[at].key)


def test_equal_contents_are_one_voice_with_its_best_evidence() -> None:
    siblings = [sibling("x", [1, 0], 3, 1), sibling("x", [1, 0], 4, 1), sibling("x", [1, 0], 4, 2), sibling("y", [0, 1], 5, 1)]
    found = resolve(siblings)
    assert found.winner == 3 and found.coalition == (3,)
    assert len(found.phases) == 4 and len(set(found.phases[:3])) == 1
    only = resolve(siblings[:3])
    assert (only.winner, only.coalition, only.support, only.phases) == (2, (2,), 4 * 256, ()) and only.why == "the only content"


def test_vectors_of_another_length_agree_with_nobody() -> None:
    embeddings = [np.array(values, np.int8) for values in ([127, 0], [127, 0, 0], [100, 30], [0, 0], [])]
    sim = similarities(embeddings)
    assert (np.diag(sim) == 256).all() and np.array_equal(sim, sim.T)
    assert sim[0].tolist() == [256, 0, 245, 0, 0]


def test_components_join_what_a_chain_of_agreement_connects() -> None:
    sim = np.array([[256, 200, 0, 0], [200, 256, 128, 0], [0, 128, 256, 127], [0, 0, 127, 256]])
    assert [one.members for one in components(sim, ResolveOptions())] == [(0, 1, 2), (3,)]


def test_a_crowd_is_decided_without_oscillators_and_within_bounds() -> None:
    around = [sibling(f"n{at}", [1, at / 100], 10, at) for at in range(30)]
    loud = [sibling(f"l{at}", [-1, at / 100], 1000 + at, at) for at in range(3)]
    crowd = resolve([*around, *loud])
    assert crowd.winner >= 30 and crowd.phases == () and 3003 * 250 < crowd.support <= 3003 * 256
    judged = resolve([*around, *loud], ResolveOptions(most_cells=2, most_judged=4))
    assert set(judged.coalition) == {30, 31, 32}
    few = resolve(around, ResolveOptions(most_cells=2, most_judged=4))
    assert few.coalition == (26, 27, 28, 29)  # of equal scores the latest


def test_where_the_oscillators_come_to_nothing_thresholds_decide() -> None:
    siblings = [sibling("liar", [0, 1], 900), sibling("a", [1, 0.1], 500), sibling("b", [1, 0.2], 500)]
    found = resolve(siblings, ResolveOptions(OscillatorOptions(steps=200)))
    assert found.phases == () and found.coalition == (1, 2) and found.why == "2 of 3 agree, alike"
    assert found.winner == resolve(siblings).winner


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=8),
    power=st.sampled_from([-120, -3, 0, 60]),
)
def test_quantised_rounds_exactly(values: list[float], power: int) -> None:
    vector = np.array([value if abs(value) > 1e-3 else 0.0 for value in values], "<f4")
    found = quantised((vector * np.float32(2.0**power)).tobytes())
    assert found.dtype == np.int8 and found.shape == vector.shape
    largest = max(abs(Fraction(float(value))) for value in vector)
    for level, value in zip(found.tolist(), vector, strict=True):
        exact = abs(Fraction(float(value))) * 127 / (largest or 1)
        assert abs(abs(level) - exact) <= Fraction(1, 2) + Fraction(1, 1 << 20)
        assert level * float(value) >= 0
    if largest:
        assert np.abs(found).max() == 127


def test_quantised_knows_its_edges() -> None:
    assert quantised(np.array([-2, 1, 0, 2], "<f4").tobytes()).tolist() == [-127, 64, 0, 127]  # 63.5 away from zero
    assert quantised(np.zeros(3, "<f4").tobytes()).tolist() == [0, 0, 0]
    assert quantised(np.array([1e-45, -1e-45], "<f4").tobytes()).tolist() == [127, -127]
    assert quantised(b"").tolist() == []
    with pytest.raises(EmbeddingNotFinite):
        quantised(np.array([1, np.nan], "<f4").tobytes())
    with pytest.raises(FieldInvalid, match="4 bytes each"):
        quantised(b"12345")


def test_bad_siblings_and_options_are_named() -> None:
    good = np.zeros(2, np.int8)
    bad: dict[str, Callable[[], object]] = {
        "siblings": lambda: resolve([]),
        "embedding": lambda: Sibling(key("x"), good.astype(np.float32), 1, 1),
        "score": lambda: Sibling(key("x"), good, -1, 1),
        "most_judged": lambda: ResolveOptions(most_cells=16, most_judged=16),
        "tolerance": lambda: ResolveOptions(tolerance=0),
    }
    for name, make in bad.items():
        with pytest.raises(FieldInvalid) as caught:
            make()
        assert caught.value.violations[0].field == name
    with pytest.raises(FieldInvalid):
        Sibling(key("x"), good, LARGEST_SCORE + 1, 1)
