"""The one-shot head: against a slow model of itself, its gate, its capacity, its bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndml.btsp.kernels.reference import ReferenceKernels
from ndml.btsp.kernels.vectorised import VectorisedKernels
from ndml.btsp.recruitment import RecruitmentHead, RecruitmentOptions
from ndml.errors import FieldInvalid

SMALL = RecruitmentOptions(inputs=128, neurons=256, per_item=4, candidates=16, voters=12)
ACTIVE = 12


def key(i: int) -> bytes:
    return i.to_bytes(16, "little")


def codes_of(random: np.random.Generator, count: int, inputs: int = 128) -> NDArray[np.int64]:
    return np.argsort(random.random((count, inputs)), axis=1)[:, :ACTIVE]


class Model:
    """A set of active inputs for each neuron: what the bits have to give."""

    def __init__(self, options: RecruitmentOptions) -> None:
        self.options, self.head = options, RecruitmentHead(options)
        self.held: list[set[int]] = [set() for _ in range(options.neurons)]
        self.label = [-1] * options.neurons
        self.latest: dict[int, int] = {}
        self.writes = 0

    def answer(self, code: set[int]) -> tuple[int, float]:
        overlap = [len(code & held) for held in self.held]
        strongest = sorted(range(len(overlap)), key=lambda neuron: -overlap[neuron])[: self.options.voters]
        votes: dict[int, int] = {}
        for neuron in strongest:
            if overlap[neuron]:
                votes[self.label[neuron]] = votes.get(self.label[neuron], 0) + overlap[neuron] ** self.options.power
        if not votes:
            return -1, 0.0
        winner = max((label for label, vote in votes.items() if vote == max(votes.values())), key=lambda label: self.latest[label])
        near = [overlap[neuron] for neuron in strongest[: self.options.per_item]]
        return winner, sum(near) / (self.options.per_item * len(code))

    def learn(self, code: set[int], label: int, item: bytes) -> bool:
        predicted, familiarity = self.answer(code)
        familiar = self.options.familiar
        # The head keeps float64 sums, so the comparison at the threshold is the same.
        if familiar is not None and predicted == label and familiarity >= familiar:
            return False
        for neuron in self.head._recruit(item).tolist():
            self.held[neuron], self.label[neuron] = set(code), label
            self.head._written[neuron] += 1
        self.latest[label] = self.writes = self.writes + 1
        return True


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), familiar=st.sampled_from([None, 0.3, 0.6]), items=st.integers(1, 150))
def test_bits_equal_sets(seed: int, familiar: float | None, items: int) -> None:
    random = np.random.default_rng(seed)
    options = RecruitmentOptions(inputs=128, neurons=256, per_item=4, candidates=16, voters=12, familiar=familiar)
    prototypes = codes_of(random, 5)
    # Items near a few prototypes, so that the gate both opens and closes; more items than the head has room for.
    labels = random.integers(0, 5, items)
    codes = np.array([random.permutation(np.union1d(prototypes[label][:9], codes_of(random, 1)[0]))[:ACTIVE] for label in labels])
    head, model = RecruitmentHead(options), Model(options)
    written = head.learn(codes, labels.tolist(), [key(i) for i in range(items)])
    expected = [model.learn(set(code.tolist()), int(label), key(i)) for i, (code, label) in enumerate(zip(codes, labels, strict=True))]
    assert written.tolist() == expected
    assert head.writes == sum(expected)
    cues = np.concatenate([codes[:20], codes_of(random, 10)])
    found = head.predict(cues)
    answers = [model.answer(set(code.tolist())) for code in cues]
    assert found.labels.tolist() == [label for label, _ in answers]
    assert found.familiarity.tolist() == pytest.approx([familiarity for _, familiarity in answers], abs=1e-6)


def test_one_look_is_enough_and_a_second_writes_nothing() -> None:
    codes = codes_of(np.random.default_rng(1), 10)
    head = RecruitmentHead(SMALL)
    keys = [key(i) for i in range(10)]
    assert head.learn(codes, list(range(10)), keys).all()
    found = head.predict(codes)
    assert found.labels.tolist() == list(range(10))
    assert found.familiarity.min() == 1.0
    assert not head.learn(codes, list(range(10)), keys).any()
    assert head.writes == 10


def test_a_wrong_answer_is_corrected_by_one_write_however_familiar() -> None:
    codes = codes_of(np.random.default_rng(2), 1)
    head = RecruitmentHead(SMALL)
    head.learn(codes, [1], [key(0)])
    assert head.learn(codes, [2], [key(0)]).all()
    assert head.predict(codes).labels.tolist() == [2]
    assert not head.learn(codes, [2], [key(1)]).any()


def test_least_written_neurons_go_first_and_keys_alone_decide() -> None:
    random = np.random.default_rng(3)
    codes, labels = codes_of(random, 40), [0] * 40
    spread = RecruitmentOptions(inputs=128, neurons=256, per_item=4, candidates=256, familiar=None)
    first, second = RecruitmentHead(spread), RecruitmentHead(spread)
    for head in (first, second):
        head.learn(codes, labels, [key(i) for i in range(40)])
    assert first.recruited == 160  # with all neurons as candidates nobody is written twice before everybody was
    assert np.array_equal(first._synapses, second._synapses)
    blind = RecruitmentHead(RecruitmentOptions(inputs=128, neurons=256, per_item=4, candidates=4, familiar=None))
    blind.learn(codes, labels, [key(i) for i in range(40)])
    assert blind.recruited < 160


def test_a_rewritten_neuron_holds_one_item_only() -> None:
    options = RecruitmentOptions(inputs=128, neurons=64, per_item=64, candidates=64, voters=64, familiar=None)
    head = RecruitmentHead(options)
    codes = codes_of(np.random.default_rng(4), 30)
    head.learn(codes, list(range(30)), [key(i) for i in range(30)])
    held = np.bitwise_count(head._synapses).sum(1)
    assert sorted(np.flatnonzero(held).tolist()) == sorted(codes[-1].tolist())
    assert head.predict(codes[-1:]).labels.tolist() == [29]


def test_an_empty_head_answers_nothing_and_long_codes_count() -> None:
    head = RecruitmentHead(RecruitmentOptions(inputs=1024, neurons=64, per_item=2, candidates=8, voters=2))
    code = np.arange(600)[None]
    empty = head.predict(code)
    assert (empty.labels.tolist(), empty.familiarity.tolist()) == ([-1], [0.0])
    head.learn(code, [7], [key(0)])
    assert head.predict(code).familiarity.tolist() == [1.0]
    half = head.predict(np.arange(300, 900)[None])
    assert (half.labels.tolist(), half.familiarity.tolist()) == ([7], [0.5])
    assert head.predict(np.zeros((0, 600), np.int64)).labels.shape == (0,)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("neurons", {"neurons": 100}),
        ("candidates", {"per_item": 9, "candidates": 8}),
        ("voters", {"voters": 7}),
        ("familiar", {"familiar": 1.5}),
        ("inputs", {"inputs": 0}),
    ],
)
def test_options_name_the_field(field: str, options: dict[str, float]) -> None:
    with pytest.raises(FieldInvalid) as raised:
        RecruitmentOptions(**options)  # type: ignore[arg-type]
    assert raised.value.violations[0].field == field


@pytest.mark.parametrize(
    ("codes", "labels"),
    [
        (np.zeros((1, 3), np.float32), [0]),
        (np.array([[0, 128]]), [0]),
        (np.array([[0, -2]]), [0]),
        (np.array([[0, 1]]), [0, 1]),
        (np.array([[0, 1]]), [-1]),
        (np.zeros((1, 0), np.int64), [0]),
        (np.zeros((1, 4096), np.int64), [0]),
    ],
)
def test_bad_items_change_nothing(codes: NDArray[np.int64], labels: list[int]) -> None:
    head = RecruitmentHead(SMALL)
    with pytest.raises(FieldInvalid):
        head.learn(codes, labels, [key(i) for i in range(len(labels))])
    assert head.writes == 0
    assert not head._synapses.any()


def test_silent_blocks_add_nothing_and_a_silent_item_is_not_written() -> None:
    head = RecruitmentHead(SMALL)
    silent = np.full((1, 4), -1)
    assert not head.learn(silent, [3], [key(0)]).any()
    assert head.learn(np.array([[5, -1, 9, -1]]), [3], [key(1)]).all()
    found = head.predict(np.concatenate([np.array([[9, 5, -1, -1], [5, 1, 2, 3]]), silent]))
    assert found.labels.tolist() == [3, 3, -1]
    assert found.familiarity.tolist() == [1.0, 0.25, 0.0]


def test_every_set_of_kernels_gives_the_same_head() -> None:
    codes = codes_of(np.random.default_rng(6), 30)
    heads = [RecruitmentHead(SMALL, kernels) for kernels in (None, ReferenceKernels(), VectorisedKernels())]
    written = [head.learn(codes, [i % 3 for i in range(30)], [key(i) for i in range(30)]).tolist() for head in heads]
    answers = [head.predict(codes).labels.tolist() for head in heads]
    assert written[0] == written[1] == written[2]
    assert answers[0] == answers[1] == answers[2]


def test_labels_have_a_bound() -> None:
    head = RecruitmentHead(RecruitmentOptions(inputs=128, neurons=64, per_item=2, candidates=8, max_labels=2))
    codes = codes_of(np.random.default_rng(5), 3)
    with pytest.raises(FieldInvalid, match="max_labels"):
        head.learn(codes, [0, 1, 2], [key(i) for i in range(3)])
    assert head.predict(codes[:2]).labels.tolist() == [0, 1]
