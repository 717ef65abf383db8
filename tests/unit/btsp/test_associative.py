"""The associative index: knows again what it stored, names it, completes it, fades gracefully, gives the same bits however it was fed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp.associative import AssociativeIndex, AssociativeOptions, controlled_plateaus, rebuilt
from ndml.btsp.code import CodeOptions, SparseCoder
from ndml.btsp.kernels.native import library
from ndml.btsp.kernels.ports import Kernels
from ndml.btsp.kernels.reference import ReferenceKernels
from ndml.btsp.kernels.vectorised import VectorisedKernels
from ndml.errors import EmbeddingNotFinite, FieldInvalid
from ndml.testing.vectors import sentence_like

CODE = CodeOptions(64, units=1024, active=64)
SMALL = AssociativeOptions(CODE, neurons=512)


def keys(n: int, first: int = 0) -> list[bytes]:
    return [(first + i).to_bytes(16, "big") for i in range(n)]


def index(options: AssociativeOptions, kernels: Kernels | None = None) -> AssociativeIndex:
    return AssociativeIndex(options, SparseCoder(options.code, kernels=kernels), kernels)


def codes(n: int, seed: int = 0, options: CodeOptions = CODE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 2 * options.half, (n, options.active)) + 2 * options.half * np.arange(options.active)).astype(np.int32)


def silenced(block: np.ndarray, share: float) -> np.ndarray:
    return np.where(np.random.default_rng(9).random(block.shape) < share, -1, block).astype(np.int32)


@pytest.mark.parametrize("rule", ["set", "flip"])
@pytest.mark.parametrize("plateaus", [1, 8])
def test_what_was_stored_is_familiar_and_named_from_half_a_cue(rule: Literal["set", "flip"], plateaus: int) -> None:
    memory = index(replace(SMALL, rule=rule, plateaus=plateaus))
    known, new = codes(40), codes(200, seed=1)
    memory.store(known, keys(40))
    assert (memory.familiarity(known) > 0.9).all()
    assert memory.familiarity(new).max() < 0.5 < memory.familiarity(silenced(known, 0.5)).min()
    _, recalled = memory.recall(silenced(known, 0.5), limit=3)
    assert np.array_equal(recalled.rows[:, 0], np.arange(40))
    assert (np.diff(recalled.overlap, axis=1) <= 0).all()


def test_an_empty_index_and_an_empty_cue_know_nothing() -> None:
    memory = index(SMALL)
    nothing = np.full((2, CODE.active), -1, np.int32)
    for stored in (0, 3):
        memory.store(codes(stored), keys(stored))
        familiar, recalled = memory.recall(nothing)
        assert memory.count == stored
        assert not familiar.any() and (recalled.rows == -1).all() and not recalled.overlap.any()
        assert memory.recall(nothing[:0])[1].rows.shape == (0, 16)


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=4), plateaus=st.integers(1, 3), flip=st.booleans(), seed=st.integers(0, 9))
def test_state_depends_on_the_sequence_and_on_nothing_else(cuts: list[int], plateaus: int, flip: bool, seed: int) -> None:
    options = replace(SMALL, neurons=64, plateaus=plateaus, rule="flip" if flip else "set", feedback=True, load=64)
    whole, parts, slow = index(options), index(options, VectorisedKernels()), index(options, ReferenceKernels())
    known, cues = codes(60, seed), silenced(codes(60, seed), 0.3)
    whole.store(known, keys(60))
    edges = [0, *sorted(cuts), 60]
    for start, end in itertools.pairwise(edges):
        parts.store(known[start:end], keys(60)[start:end])
        slow.store(known[start:end], keys(60)[start:end])
    for other in (parts, slow):
        assert other.density == whole.density and other.count == whole.count
        assert np.array_equal(other.familiarity(cues), whole.familiarity(cues))
        for ours, theirs in zip(_fields(other, cues), _fields(whole, cues), strict=True):
            assert np.array_equal(ours, theirs)
        assert np.array_equal(other.complete(cues), whole.complete(cues))


def _fields(memory: AssociativeIndex, cues: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    recalled = memory.recall(cues)[1]
    return recalled.rows, recalled.overlap


def test_completion_restores_masked_codes_and_leaves_silent_what_nothing_drives() -> None:
    memory = index(replace(SMALL, plateaus=4, feedback=True))
    known = codes(30)
    memory.store(known, keys(30))
    assert np.array_equal(memory.complete(silenced(known, 0.6)), known)
    assert (memory.complete(np.full((1, CODE.active), -1, np.int32)) == -1).all()
    with pytest.raises(FieldInvalid, match="feedback"):
        index(SMALL).complete(known)


def test_beyond_capacity_older_traces_fade_first_and_nothing_breaks() -> None:
    memory = index(replace(SMALL, neurons=64, load=2.0))
    known = codes(640)
    for start in range(0, 640, 64):
        assert memory.full == (start >= 128)
        memory.store(known[start : start + 64], keys(64, start))
    familiar = memory.familiarity(known)
    assert familiar[:128].mean() < familiar[-128:].mean()
    assert memory.density < 0.5


def test_recruiting_the_least_loaded_keeps_new_codes_unfamiliar() -> None:
    """What is stored is known either way; crowded neurons, which hold many codes at once, answer to new ones too."""
    spread, blind = index(SMALL), index(replace(SMALL, choices=1))
    for memory in (spread, blind):
        memory.store(codes(512), keys(512))
        assert memory.familiarity(codes(512)).mean() > 0.95
    new = codes(512, seed=1)
    assert spread.familiarity(new).mean() < blind.familiarity(new).mean() - 0.05
    assert (spread.recall(codes(512), limit=1)[1].rows[:, 0] >= 0).all()


def test_a_flood_of_one_text_leaves_the_index_bounded_and_the_others_known() -> None:
    """A million of one code under a million ids, far past `full`: every neuron holds it in the end, and it alone."""
    many = 1_000_000 if library() is not None else 20_000
    memory, others, new, flood = index(SMALL), codes(200, seed=5), codes(200, seed=6), np.repeat(codes(1), 4096, axis=0)
    memory.store(others, keys(200))
    known, density, held = memory.familiarity(others), memory.density, memory.nbytes
    for first in range(0, many, len(flood)):
        memory.store(flood, keys(len(flood), 1000 + first))
    assert memory.full and memory.density <= density + CODE.active / CODE.units
    assert memory.nbytes <= held + 6 * memory.count, "a link of four bytes a trace, half as many again in reserve"
    familiar = memory.familiarity(others)
    assert familiar.mean() > known.mean() - 0.05 and familiar.min() > memory.familiarity(new).max() + 0.2
    assert memory.familiarity(flood[:1])[0] == 1.0
    assert 0 < (memory.recall(flood[:1], limit=500)[1].rows >= 0).sum() <= 500, "the work of a recall is bounded by `chain`"


def test_zero_and_constant_vectors_are_familiar_to_themselves_alone() -> None:
    vectors, flat = sentence_like(300, 0, seed=4)[0], np.full((1, 384), 1 / np.sqrt(384), np.float32)
    odd, options = np.concatenate([0 * flat, flat, -flat]), AssociativeOptions(CodeOptions(384)).sized(400)
    coder = SparseCoder(options.code, vectors.mean(axis=0))
    memory = rebuilt(options, coder, vectors, keys(300))
    before, known = memory.familiarity(coder.encode(odd)), memory.familiarity(coder.encode(vectors))
    assert before.max() < np.quantile(known, 0.01), "new, like any other"
    memory.store(coder.encode(odd), keys(3, 300))
    assert (memory.familiarity(coder.encode(odd)) > 0.9).all()
    assert memory.familiarity(coder.encode(vectors)).mean() > known.mean() - 0.01
    with pytest.raises(EmbeddingNotFinite):
        rebuilt(options, coder, np.full((1, 384), np.nan, np.float32), keys(1))


def test_sizes_follow_the_number_of_traces() -> None:
    options = AssociativeOptions(CodeOptions(384))
    sizes = [options.sized(n) for n in (0, 100, 640, 641, 10_000, 100_000, 10**9)]
    assert [each.neurons for each in sizes] == [512, 512, 512, 1024, 8192, 131072, 131072]
    assert all(each.capacity >= n for each, n in zip(sizes[:-1], (0, 100, 640, 641, 10_000, 100_000), strict=True))
    assert index(options.sized(100)).nbytes < 1 << 20
    assert replace(options, plateaus=20, load=64).capacity == int(0.5 * 8192 * 8192 / (2 * 20 * 256)), "M f_p f_q <= .5 bounds the load"


def test_sentences_are_told_apart_and_a_rebuild_is_the_same() -> None:
    vectors, near = sentence_like(1500, 400, seed=3)
    stored, foreign = vectors[:1000], vectors[1000:]
    options = AssociativeOptions(CodeOptions(384)).sized(1000)
    coder = SparseCoder(options.code, stored.mean(axis=0))
    memory, again = rebuilt(options, coder, stored, keys(1000)), rebuilt(options, coder, stored, keys(1000), step=77)
    same, new = memory.familiarity(coder.encode(stored)), memory.familiarity(coder.encode(foreign))
    assert np.quantile(same, 0.01) > np.quantile(new, 0.99)
    assert np.array_equal(again.familiarity(coder.encode(near)), memory.familiarity(coder.encode(near)))


@pytest.mark.parametrize(
    "changed",
    [{"neurons": 1}, {"plateaus": 0}, {"choices": 0}, {"load": 0.0}, {"rule": "other"}, {"completion": 0.0}, {"chain": 0}],
)
def test_bad_options_are_refused_with_their_field(changed: dict[str, Any]) -> None:
    with pytest.raises(FieldInvalid) as caught:
        replace(SMALL, **changed)
    assert caught.value.violations[0].field in changed


def test_bad_input_is_refused_and_nothing_stored() -> None:
    memory, known = index(SMALL), codes(2)
    for block, names in (
        (known[:, 1:], keys(2)),
        (known, keys(1)),
        (known, [b"short", b"short"]),
        (known[:, ::-1], keys(2)),
        (known - 2, keys(2)),
    ):
        with pytest.raises(FieldInvalid):
            memory.store(block, names)
    assert memory.count == 0 and memory.density == 0
    with pytest.raises(FieldInvalid):
        AssociativeIndex(SMALL, SparseCoder(CodeOptions(384)))


def test_homeostasis_moves_density_to_its_target() -> None:
    assert controlled_plateaus(4, 0.3) == 2
    assert controlled_plateaus(4, 0.1) == pytest.approx(6)
    assert controlled_plateaus(4, 0.001) == 8 and controlled_plateaus(4, 0.0) == 8
    assert controlled_plateaus(1, 0.9) == 1
