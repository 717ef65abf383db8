"""The ablation's own rules, on a made-up conversation with made-up vectors: no weight sees what it is judged on, no grade its question."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from ndml.btsp.consolidation import ConsolidationOptions
from tests.quality import ablation_page, bounded, merged, ranking, simulated
from tests.quality.ablation_page import Cost, Line, Report
from tests.quality.embedded import F32, Embedded
from tests.quality.locomo import Conversation, Question, Turn
from tests.quality.ranking import F64, Bench, Gain, Recalls

TURNS, QUESTIONS = 40, 24


def unit(rows: F64) -> F32:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def talk(seed: int = 0) -> Embedded:
    random, start = np.random.default_rng(seed), datetime(2025, 1, 1, tzinfo=UTC)
    turns = tuple(
        Turn(
            f"D{i}",
            f"session-{i // 10}",
            "A",
            " ".join(f"w{random.integers(200)}" for _ in range(i % 7 + 1)),
            start + timedelta(days=i // 10),
        )
        for i in range(TURNS)
    )
    questions = tuple(Question(f"q{i}", 1, tuple(random.choice(TURNS, 2, replace=False).tolist())) for i in range(QUESTIONS))
    vectors = unit(random.standard_normal((TURNS, 16)))
    asked = unit(np.stack([vectors[q.evidence[0]] + 0.2 * random.standard_normal(16) for q in questions]))
    return Embedded(Conversation(f"talk-{seed}", turns, questions), vectors, asked)


def other_evidence(made: Embedded, q: int, evidence: tuple[int, ...]) -> Embedded:
    questions = list(made.talk.questions)
    questions[q] = replace(questions[q], evidence=evidence)
    return replace(made, talk=replace(made.talk, questions=tuple(questions)))


@pytest.mark.parametrize("place", [0, 11, QUESTIONS - 1])
def test_a_question_moves_the_strength_of_those_after_it_alone(place: int) -> None:
    made, even = talk(), np.full(TURNS, 0.5)
    scores = Bench([made]).dense[0]
    order = simulated.asked(made)
    q = order[place]
    shown = ranking.ranked(scores)[q, : simulated.SHOWN]
    some, none = (other_evidence(made, q, rows) for rows in ((int(shown[3]),), (int(ranking.ranked(scores)[q, -1]),)))
    graded, ungraded = (simulated.replayed(each, scores, even, credit=1.0) for each in (some, none))
    until = order[: place + 1]
    assert (graded[until] == ungraded[until]).all(), "known before it was ranked"
    after = order[place + 1 :]
    assert (graded[after][:, shown[3]] > ungraded[after][:, shown[3]]).all()


def test_credit_stays_in_the_session_and_off_the_cited_turn() -> None:
    both, _ = simulated.spread(talk(), [9, 10])
    assert not {9, 10} & set(both.tolist()), "next to each other, but in two sessions"
    rows, amounts = simulated.spread(talk(), [9])
    assert rows.tolist() == list(range(10 - len(rows) - 1, 9)) and (np.diff(amounts) > 0).all() and amounts[0] > 0


def test_a_weight_is_chosen_without_the_conversation_that_it_is_judged_on() -> None:
    talks = [talk(seed) for seed in range(3)]
    owner = ranking.conversation_of(talks)
    # Weight 1 shines in the first conversation alone: the first must not have it.
    shines = Recalls(np.where(owner == 0, 50.0, 0.0), np.where(owner == 0, 100.0, 0.0))
    level = Recalls(np.full(len(owner), 20.0), np.full(len(owner), 30.0))
    found, picks = ranking.left_out(talks, {0.0: level, 1.0: shines})
    assert picks == [0.0, 1.0, 1.0]
    assert found.at10.tolist() == np.where(owner == 0, 30.0, 0.0).tolist() and found.at5[0] == 20.0


def test_recall_counts_evidence_among_the_first() -> None:
    made = other_evidence(talk(), 0, (3, 7))
    hits = [[3, 0, 1, 2, 4, 7, 5, 6, 8, 9]] + [list(q.evidence) for q in made.talk.questions[1:]]
    found = ranking.recalls_of([made], [hits])
    assert (found.at5[0], found.at10[0]) == (50.0, 100.0) and (found.at10[1:] == 100).all()
    gain = ranking.paired(found.at10, found.at5)
    assert gain.low <= gain.mean <= gain.high and gain.mean == pytest.approx(50 / QUESTIONS) and not gain.harms


def test_a_bounded_index_holds_its_share_under_every_policy() -> None:
    bench = Bench([talk()])
    for policy in get_args(bounded.Policy):
        kept = bounded.resident(bench, 0.5, policy)[0]
        assert kept.sum() == TURNS // 2
    assert bounded.resident(bench, 0.5, "first in first out")[0].tolist() == [False] * 20 + [True] * 20
    salient = bounded.resident(bench, 0.5, "salience")[0]
    assert bench.information[0][salient].mean() > bench.information[0][~salient].mean()
    assert bounded.evicted_at_once(bench.talks[0], -bench.information[0], 0.25).sum() == 10


def test_a_merge_shows_ten_different_turns_and_nothing_is_lost() -> None:
    made = talk()
    twins = made.turns.copy()
    twins[1] = twins[0]
    bench = Bench([replace(made, turns=twins)])
    for beside in (False, True):
        one = merged.merged(bench, bench.dense, 0.0, ConsolidationOptions(related=0.99), lambda old, new: None, beside=beside)
        assert one.merges == 1
        assert abs(one.recalls.at10.mean() - ranking.recalls(bench.talks, bench.dense).at10.mean()) < 5


def test_page_and_picture_hold_every_row(tmp_path: Path) -> None:
    report = Report(notes=["a note"])
    for mean, low in ((2.0, 1.0), (-2.0, -3.0), (0.1, -1.0)):
        gain = Gain(mean, low, mean + 1)
        report.lines.append(Line("Forgetting: room for 50% of the turns", f"row {mean}", 1.0, 2.0, "base", gain, gain, "", "on"))
        report.costs.append(Cost(low, gain, 90.0, gain))
    page = ablation_page.markdown(report)
    assert all(f"row {line.gain.mean}" in page for line in report.lines if line.gain) and "a note" in page
    assert report.salience_default == 1.0, "weight 1 gains, -1 gains a little, -3 costs"
    files = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for file in files:
        ablation_page.bars(report.lines, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert all(f"row {line.gain.mean}" in files[0].read_text() for line in report.lines if line.gain)
