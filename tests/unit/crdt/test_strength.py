"""Contributions of replicas: what each added, and that all show the same and count nothing twice."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest

from ndml.btsp import timescales
from ndml.btsp.record import decoded, encoded
from ndml.btsp.state import StateBlock, TraceFlag
from ndml.crdt import strength
from ndml.crdt.blocks import joined_states
from ndml.errors import FieldInvalid

NOW = timescales.ORIGIN_S + 4e7
REPLICAS = 3


def births(count: int, seed: int = 0) -> list[bytes]:
    rng = Random(seed)
    block = StateBlock()
    block.append([rng.random() for _ in range(count)], [0.3] * count, [NOW - rng.uniform(0, 1e7) for _ in range(count)])
    return block.pack(range(count))


def block_of(records: list[bytes]) -> StateBlock:
    block = StateBlock()
    block.extend_packed(records)
    return block


class Replica:
    """One store: it shows states, gives feedback and keeps its own contribution joined with the last."""

    def __init__(self, birth: list[bytes]) -> None:
        self.birth, self.block = birth, block_of(birth)
        self.others: dict[int, list[bytes]] = {}
        self.own: list[bytes] | None = None

    def foreign(self, trace: int) -> list[bytes]:
        return [states[trace] for states in self.others.values()]

    def feedback(self, rows: list[int], grades: list[float], at_s: float) -> list[bytes]:
        self.block.grade(rows, grades, at_s)
        count = len(self.birth)
        new = strength.contribution(self.block.pack(range(count)), self.birth, [self.foreign(i) for i in range(count)])
        if self.own is not None:
            first, second = np.zeros(count, np.uint64), np.ones(count, np.uint64)
            new = encoded(joined_states(first, decoded(self.own), second, decoded(new))[1])
        self.own = new
        return new

    def learn(self, author: int, states: list[bytes]) -> None:
        self.others[author] = states
        self.show()

    def show(self) -> list[bytes]:
        count = len(self.birth)
        everyone = [self.foreign(i) + ([self.own[i]] if self.own else []) for i in range(count)]
        shown = strength.combined(self.birth, everyone, self.block.pack(range(count)))
        self.block = block_of(shown)
        return shown


def test_replicas_show_the_sum_of_all_events_whoever_learnt_what_when() -> None:
    rng, count = Random(3), 20
    birth = births(count)
    replicas = [Replica(birth) for _ in range(REPLICAS)]
    latest: dict[int, list[bytes]] = {}
    exact = decoded(birth)["levels"].copy()
    uses, at = np.zeros(count, int), NOW
    for _ in range(60):
        author, at = rng.randrange(REPLICAS), at + 10 ** rng.uniform(0, 5)
        rows = sorted(rng.sample(range(count), 3))
        grades = [rng.choice([0.5, 1.0, -1.0]) for _ in rows]
        latest[author] = replicas[author].feedback(rows, grades, at)
        exact[rows] = timescales.event(exact[rows], at, np.maximum(grades, 0.0))
        uses[rows] += 1
        if rng.random() < 0.5:
            replicas[(author + 1) % REPLICAS].learn(author, latest[author])
    for at_replica, replica in enumerate(replicas):
        for author, states in latest.items():
            if author != at_replica:
                replica.learn(author, states)
    shown = [replica.show() for replica in replicas]
    assert shown[0] == shown[1] == shown[2]
    everything = decoded(shown[0])
    np.testing.assert_allclose(timescales.activity(everything["levels"], at), timescales.activity(exact, at), rtol=1e-6, atol=1e-12)
    assert everything["uses"].tolist() == uses.tolist()


def test_without_feedback_there_is_nothing_of_ones_own() -> None:
    birth = births(50)
    other = Replica(birth)
    theirs = other.feedback(list(range(25)), [1.0] * 25, NOW + 100.0)
    foreign = [[state] for state in theirs]
    shown = strength.combined(birth, foreign)
    own = decoded(strength.contribution(shown, birth, foreign))
    assert np.isneginf(own["levels"]).all()
    assert not own["uses"].any()
    assert np.isneginf(decoded(theirs)["levels"][25:]).all()
    assert np.isneginf(decoded(strength.contribution(birth, birth, [[]] * 50))["levels"]).all()


def test_a_contribution_is_its_events() -> None:
    birth = births(4)
    block = block_of(birth)
    expected = timescales.silent(4)
    for at in (NOW + 1, NOW + 4000, NOW + 9e5):
        block.restate(range(4), [0.7] * 4, at)
        expected = timescales.event(expected, at, 0.7)
    own = decoded(strength.contribution(block.pack(range(4)), birth, [[]] * 4))["levels"]
    np.testing.assert_allclose(own, expected, atol=1e-7)


def test_the_order_of_contributions_is_no_matter_of_the_result() -> None:
    birth = births(3)
    parts = [Replica(birth).feedback([0, 1, 2], [1.0, 0.3, -1.0], NOW + 77.7 * i) for i in range(5)]
    by_trace = [[part[i] for part in parts] for i in range(3)]
    first = strength.combined(birth, by_trace)
    for seed in range(20):
        assert strength.combined(birth, [Random(seed).sample(each, len(each)) for each in by_trace]) == first
    own = [
        strength.contribution(first, birth, [each[:3] for each in turned])
        for turned in (by_trace, [each[2::-1] + each[3:] for each in by_trace])
    ]
    assert own[0] == own[1]


def test_flags_and_lifecycle_stay_and_salience_is_the_contents() -> None:
    birth = births(2)
    local = block_of(birth)
    local.set_flag([0], TraceFlag.MERGED, True)
    local.set_lifecycle([1], [2])
    local.set_salience([0], [1.0])
    own = decoded(strength.contribution(local.pack([0, 1]), birth, [[], []]))
    assert own["flags"].tolist() == own["lifecycle"].tolist() == [0, 0]
    other = Replica(birth).feedback([0, 1], [1.0, 1.0], NOW)
    shown = decoded(strength.combined(birth, [[state] for state in other], local.pack([0, 1])))
    assert (shown["flags"].tolist(), shown["lifecycle"].tolist()) == ([int(TraceFlag.MERGED), 0], [0, 2])
    assert shown["salience"].tolist() == decoded(birth)["salience"].tolist()
    assert decoded(strength.combined(birth, [[state] for state in other]))["flags"].tolist() == [0, 0]


def test_all_else_comes_from_the_newest() -> None:
    birth = births(1)
    once, twice = Replica(birth), Replica(birth)
    first = once.feedback([0], [1.0], NOW + 50)
    twice.feedback([0], [-1.0], NOW + 10)
    second = twice.feedback([0], [-1.0], NOW + 20)
    shown = decoded(strength.combined(birth, [[first[0], second[0]]]))[0]
    newest = decoded(second)[0]
    assert [shown[name] for name in ("changes", "stability", "weight", "early")] == [
        newest[name] for name in ("changes", "stability", "weight", "early")
    ]
    assert (shown["uses"], shown["successes"], shown["failures"]) == (3, 1, 2)


def test_counts_end_at_their_bounds() -> None:
    birth = births(1)
    rows = decoded(birth).copy()
    rows["uses"] = 2**32 - 1
    full = encoded(rows)
    assert decoded(strength.combined(birth, [[full[0], full[0]]]))["uses"][0] == 2**32 - 1
    assert decoded(strength.contribution(birth, birth, [full]))["uses"][0] == 0


def test_what_does_not_fit_is_refused() -> None:
    birth = births(2)
    with pytest.raises(FieldInvalid, match="one of each"):
        strength.combined(birth, [[]])
    with pytest.raises(FieldInvalid, match="one of each"):
        strength.contribution(birth, birth[:1], [[], []])
    rows = decoded(birth).copy()
    rows["levels"][0, 0] = math.nan
    with pytest.raises(FieldInvalid):
        strength.combined(birth, [[encoded(rows)[0]], []])
