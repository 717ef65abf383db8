"""Consolidation: what is merged, that it is the same object on every node, and what is refused."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndml.btsp.consolidation import ConsolidationOptions, Episodes, leave_one_out_r2, plan, priority, semantic_id
from ndml.errors import EmbeddingNotFinite, FieldInvalid

DIMENSION = 24
TEXTS = ["we planted an orchard", "the orchard was planted in rain", "we planted an orchard"]


def topics(seed: int, sizes: list[int], noise: float = 0.25) -> NDArray[np.float32]:
    """Unit vectors: one tight group for each size, then as many single ones."""
    random = np.random.default_rng(seed)
    centres = np.repeat(np.linalg.qr(random.standard_normal((DIMENSION, DIMENSION)))[0][: len(sizes)], sizes, axis=0)
    rows = centres + noise / np.sqrt(DIMENSION) * random.standard_normal(centres.shape)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def episodes(vectors: NDArray[np.float32], texts: list[str] | None = None, urgency: list[float] | None = None) -> Episodes:
    ids = [hashlib.sha256(bytes([row])).digest()[:16] for row in range(len(vectors))]
    said = texts or [f"{chr(97 + row)}{chr(97 + row)} something was said" for row in range(len(vectors))]
    return Episodes(ids, said, vectors, np.array(urgency or [1.0] * len(vectors)))


def shuffled(given: Episodes, order: list[int]) -> Episodes:
    return Episodes(
        [given.trace_ids[i] for i in order], [given.texts[i] for i in order], given.vectors[order], given.priority[order], given.links[::-1]
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 5), min_size=1, max_size=6), st.randoms())
def test_the_plan_is_of_the_set_of_traces(seed: int, sizes: list[int], random) -> None:  # type: ignore[no-untyped-def]
    base = episodes(topics(seed, sizes))
    order = list(range(len(base.trace_ids)))
    random.shuffle(order)
    before, after = list(plan(base)), list(plan(shuffled(base, order)))
    assert [c.members for c in before] == [c.members for c in after]
    for a, b in zip(before, after, strict=True):
        assert (a.r2, a.why, a.semantic is None) == (b.r2, b.why, b.semantic is None)
        if a.semantic and b.semantic:
            assert a.semantic.trace_id == b.semantic.trace_id and a.semantic.text == b.semantic.text
            assert a.semantic.vector.tobytes() == b.semantic.vector.tobytes()


def test_groups_become_semantic_traces_with_their_provenance() -> None:
    base = episodes(topics(1, [3, 4, 1, 1]))
    clusters = list(plan(base))
    assert sorted(len(c.members) for c in clusters) == [3, 4]
    for cluster in clusters:
        merged = cluster.semantic
        assert merged is not None and merged.members == cluster.members == tuple(sorted(cluster.members))
        assert merged.trace_id == hashlib.sha256(b"".join(sorted(cluster.members))).digest()[:16] == semantic_id(cluster.members[::-1])
        assert np.linalg.norm(merged.vector) == pytest.approx(1.0, abs=1e-6)
        rows = [base.trace_ids.index(member) for member in cluster.members]
        assert (base.vectors[rows] @ merged.vector).min() > 0.9
        assert f"R2 {cluster.r2:.2f} > 0.30" in cluster.why


def test_a_cluster_that_does_not_predict_its_members_is_refused() -> None:
    """Around one centre alone, the mean of everything predicts as well as the mean of the cluster."""
    refused = list(plan(episodes(topics(2, [6], noise=0.5)), ConsolidationOptions(related=0.5)))
    assert refused and all(cluster.semantic is None and "does not predict" in cluster.why for cluster in refused)


def test_contradicting_members_are_refused_with_both_values() -> None:
    vectors = topics(3, [2, 1, 1])
    texts = ["Our rent is 950 euros a month", "Our rent is 800 euros a month", "a tent", "a canoe"]
    (cluster,) = plan(episodes(vectors, texts))
    assert cluster.semantic is None and "members contradict (another number" in cluster.why


def test_the_text_is_extracted_nearest_first_and_says_nothing_twice() -> None:
    vectors = np.zeros((5, DIMENSION), np.float32)
    vectors[0, :2] = vectors[1, :2] = vectors[2, :2] = (1, 0)
    vectors[1, :2] = (np.cos(0.3), np.sin(0.3))
    vectors[3, 5] = vectors[4, 6] = 1
    (cluster,) = plan(episodes(vectors, [*TEXTS, "a tent", "a canoe"]))
    assert cluster.semantic is not None
    assert cluster.semantic.text == "we planted an orchard\nthe orchard was planted in rain"


def test_the_text_has_a_bound() -> None:
    long = ["ä" * 3000, "b" * 3000, "tent", "canoe"]
    (cluster,) = plan(episodes(topics(4, [2, 1, 1]), long), ConsolidationOptions(text_bytes=101))
    assert cluster.semantic is not None
    assert set(cluster.semantic.text) <= {"ä", "b"} and 99 < len(cluster.semantic.text.encode()) <= 101


def test_the_most_urgent_cluster_comes_first_and_the_rest_is_not_computed() -> None:
    calls = []

    def watching(old: str, new: str) -> None:
        calls.append((old, new))

    base = episodes(topics(5, [2, 2, 2]), urgency=[0.1, 0.1, 0.9, 0.9, 0.5, 0.5])
    first = next(plan(base, contradicting=watching))
    assert set(first.members) == set(base.trace_ids[2:4])
    assert len(calls) == 2
    assert [c.priority for c in plan(base)] == [0.9, 0.5, 0.1]


def test_links_make_candidates_of_traces_that_are_not_near() -> None:
    vectors = topics(6, [1, 1, 1, 1], noise=0.0)
    vectors[1] = (vectors[0] + 0.9 * vectors[1]) / np.linalg.norm(vectors[0] + 0.9 * vectors[1])
    base = episodes(vectors)
    assert list(plan(base)) == []
    unknown = b"\xff" * 16
    linked = Episodes(
        base.trace_ids, base.texts, vectors, base.priority, [(base.trace_ids[1], base.trace_ids[0]), (unknown, base.trace_ids[2])]
    )
    (cluster,) = plan(linked)
    assert set(cluster.members) == set(base.trace_ids[:2])


@pytest.mark.parametrize("block", [1, 7, 512])
def test_clusters_are_bounded_whatever_the_crowd(block: int) -> None:
    """Identical traces: every pair is a neighbour."""
    vectors = np.concatenate([np.repeat(topics(7, [1]), 60, axis=0), topics(8, [1, 1, 1])])
    clusters = list(plan(episodes(vectors), ConsolidationOptions(most_members=8, neighbours=3, block=block)))
    assert clusters and max(len(c.members) for c in clusters) <= 8
    members = [member for cluster in clusters for member in cluster.members]
    assert len(members) == len(set(members))


def test_leave_one_out_r2_is_its_definition() -> None:
    random = np.random.default_rng(9)
    x, mean = random.standard_normal((5, 4)), random.standard_normal(4)
    errors = sum(float(((x[i] - np.delete(x, i, axis=0).mean(axis=0)) ** 2).sum()) for i in range(5))
    assert leave_one_out_r2(x, mean) == pytest.approx(1 - errors / float(((x - mean) ** 2).sum()))
    assert leave_one_out_r2(np.ones((3, 4)), np.ones(4)) == -np.inf


def test_priority_is_need_times_what_is_about_to_be_lost_times_salience() -> None:
    values = priority(np.array([2.0, 2.0, -1.0, 1.0]), np.array([0.5, 1.0, 0.0, np.nan]), np.array([0.5, 0.5, 1.0, 0.5]))
    assert values.tolist() == [0.5, 0.0, 0.0, 0.5]


def test_bad_input_is_refused() -> None:
    good = episodes(topics(1, [2]))
    with pytest.raises(FieldInvalid, match="twice"):
        Episodes([good.trace_ids[0]] * 2, good.texts, good.vectors, good.priority)
    with pytest.raises(FieldInvalid, match="one text, one vector"):
        Episodes(good.trace_ids, good.texts[:1], good.vectors, good.priority)
    with pytest.raises(EmbeddingNotFinite):
        Episodes(good.trace_ids, good.texts, good.vectors * np.nan, good.priority)
    with pytest.raises(FieldInvalid, match="at most 1 a plan"):
        plan(good, ConsolidationOptions(most_traces=1))
    with pytest.raises(FieldInvalid, match="most_members"):
        ConsolidationOptions(most_members=1)
    assert list(plan(episodes(np.zeros((0, DIMENSION), np.float32)))) == []
