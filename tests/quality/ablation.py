"""What each mechanism adds to recall, one at a time on top of the one before, on LoCoMo with paired bootstrap intervals.

    python -m tests.quality.ablation [--json FILE] [--markdown FILE]         # `make eval-ablation`; about a minute

Protocol: a memory is a turn, ground truth the evidence turns, R@10 averaged over questions, offline with all-MiniLM-L6-v2. A weight is chosen
for each conversation on the others. Grades are simulated: the questions of a conversation are asked in random order, an hour apart, after its
last session; a question is answered with the state left by the questions before it, and then the evidence turns among the ten shown are
graded 1, as an answer that cites them would. Nothing of a question is known before it has been ranked.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
from rich.console import Console
from rich.table import Table

from ndml.btsp import calibration, consolidation
from ndml.btsp.consolidation import ConsolidationOptions, Episodes
from ndml.btsp.contradiction import contradiction
from ndml.btsp.credit import kernel
from ndml.btsp.forgetting import choose, pressure, tie_keys
from ndml.btsp.gate import Decision, decide_many
from ndml.btsp.homeostasis import HomeostasisOptions, compete
from ndml.btsp.salience import DocumentFrequencies, salience01
from ndml.btsp.state import StateBlock
from tests.quality.embedded import MODEL, Embedded, locomo
from tests.quality.locomo import DATA
from tests.quality.ranking import F64, Gain, Scores, added, grid, left_out, paired, ranked, recalls

SALIENCE_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.6)
STRENGTH_WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)
CREDIT_FACTORS = (0.0, 0.25, 0.5, 1.0)
KEPT = (0.75, 0.5, 0.25)
HOUR_S = 3600.0
REACH_TURNS = 8


@dataclass(frozen=True)
class Line:
    """One row: what was added, recall, gain over the row it is compared with, and what follows."""

    mechanism: str
    recall_at_10: float
    against: str
    gain: Gain | None
    weights: str
    verdict: str


class Bench:
    """The conversations and what all rows share."""

    def __init__(self, talks: Sequence[Embedded]) -> None:
        self.talks = talks
        self.dense: Scores = [(talk.questions @ talk.turns.T).astype(np.float64) for talk in talks]
        self.information = [DocumentFrequencies().observe_many(turn.text for turn in talk.talk.turns) for talk in talks]
        self.salience = [salience01(nats) for nats in self.information]
        self.lines: list[Line] = []

    def add(self, mechanism: str, values: F64, before: F64 | None, against: str = "", weights: str = "", verdict: str = "") -> None:
        gain = None if before is None else paired(values, before)
        judged = verdict or ("reference" if gain is None else "on" if gain.helps else "off by default")
        self.lines.append(Line(mechanism, float(values.mean()), against, gain, weights, judged))

    def tuned(self, mechanism: str, base: Scores, prior: Sequence[F64], weights: Sequence[float], before: F64, against: str) -> float:
        """Add a row for base + w * prior, w left out by conversation; returns the weight taken most often."""
        values, picks = left_out(self.talks, grid(self.talks, base, prior, weights))
        self.add(mechanism, values, before, against, weights=f"w {_counted(picks)}")
        return max(sorted(set(picks)), key=picks.count)


def salience_rows(bench: Bench) -> tuple[Scores, F64, float]:
    """Dense, the prior, and length in its place. The scores and recalls that later rows build on, and the prior's weight."""
    dense = recalls(bench.talks, bench.dense)
    bench.add("dense cosine", dense, None)
    lengths = [np.log1p([len(turn.text) for turn in talk.talk.turns]) / math.log1p(400) for talk in bench.talks]
    bench.tuned("dense + ln(1 + length), a control", bench.dense, lengths, SALIENCE_WEIGHTS, dense, "dense")
    length = left_out(bench.talks, grid(bench.talks, bench.dense, lengths, SALIENCE_WEIGHTS))[0]
    weight = bench.tuned("+ salience prior", bench.dense, bench.salience, SALIENCE_WEIGHTS, dense, "dense")
    values = left_out(bench.talks, grid(bench.talks, bench.dense, bench.salience, SALIENCE_WEIGHTS))[0]
    bench.add("salience in place of length", values, length, "length control", verdict="most of salience is length" if True else "")
    scores = added(bench.dense, bench.salience, weight)
    return scores, recalls(bench.talks, scores), weight


def replayed(talk: Embedded, scores: F64, *, credit: float, grading: bool = True, seed: int = 0) -> F64:
    """Strength [q, n] of every turn at the moment each question is asked, in the order of a life as the module describes it."""
    turns, questions = talk.talk.turns, talk.talk.questions
    block = StateBlock()
    block.append(np.zeros(len(turns)), np.full(len(turns), 0.5), np.array([turn.said_at.timestamp() for turn in turns]))
    order = list(range(len(questions)))
    Random(seed).shuffle(order)
    start = max(turn.said_at.timestamp() for turn in turns) + 24 * HOUR_S
    shown = ranked(scores)[:, :10]
    strength = np.zeros(scores.shape)
    everything = slice(0, len(turns))
    for step, q in enumerate(order):
        now = start + step * HOUR_S
        strength[q] = block.strength(everything, now)
        cited = [row for row in shown[q].tolist() if row in questions[q].evidence]
        if grading and cited:
            block.grade(np.array(cited), np.ones(len(cited)), now)
            if credit:
                rows, amounts = spread(talk, cited)
                block.credit(rows, credit * amounts)
    return strength


def spread(talk: Embedded, cited: Sequence[int]) -> tuple[np.ndarray, F64]:
    """Rows and kernel values that credit reaches from the cited turns: their neighbours in the same session, by turns."""
    turns, reached = talk.talk.turns, dict[int, float]()
    for row in cited:
        for other in range(max(0, row - REACH_TURNS), min(len(turns), row + REACH_TURNS + 1)):
            kappa = float(kernel(float(other - row)))
            if other != row and turns[other].session == turns[row].session and kappa > 0:
                reached[other] = max(reached.get(other, 0.0), kappa)
    rows = np.array(sorted(reached), np.int64)
    return rows, np.array([reached[row] for row in rows.tolist()])


def use_rows(bench: Bench, base: Scores, before: F64) -> None:
    """Strength from graded use, and credit to the neighbours of what was cited."""
    talks, pairs = bench.talks, list(zip(bench.talks, base, strict=True))
    untouched = [replayed(talk, scores, credit=0.0, grading=False) for talk, scores in pairs]
    bench.tuned("+ strength without any grade (recency alone), a control", base, untouched, STRENGTH_WEIGHTS, before, "salience")
    graded = [replayed(talk, scores, credit=0.0) for talk, scores in pairs]
    bench.tuned("+ strength from graded use", base, graded, STRENGTH_WEIGHTS, before, "salience")
    values = left_out(talks, grid(talks, base, graded, STRENGTH_WEIGHTS))[0]
    for factor in CREDIT_FACTORS[1:]:
        credited = [replayed(talk, scores, credit=factor) for talk, scores in pairs]
        bench.tuned(f"+ credit x {factor} to neighbours in turns", base, credited, STRENGTH_WEIGHTS, values, "graded use")


def gate_row(bench: Bench, base: Scores, before: F64) -> None:
    """Duplicates left out of the store, as a caller that asks for it gets; by exact search, with the shipped thresholds."""
    thresholds, scores, dropped = calibration.shipped(MODEL).thresholds(0), [], 0
    for talk, matrix in zip(bench.talks, base, strict=True):
        kept = np.ones(len(talk.turns), bool)
        for row in range(1, len(talk.turns)):
            cosines = talk.turns[:row] @ talk.turns[row]
            nearest = int(np.argmax(np.where(kept[:row], cosines, -1)))
            against = contradiction(talk.talk.turns[nearest].text, talk.talk.turns[row].text) is not None
            decision = decide_many(np.array([np.nan], np.float32), cosines[[nearest]], np.array([against]), thresholds)
            kept[row] = decision[0] != Decision.DUPLICATE
        dropped += int((~kept).sum())
        scores.append(np.where(kept, matrix, -np.inf))
    values = recalls(bench.talks, scores)
    bench.add(f"+ gate drops duplicates ({dropped} of {sum(len(t.turns) for t in bench.talks)} turns)", values, before, "salience")


def kept_rows(talk: Embedded, salience: F64, capacity: int, *, policy: str) -> np.ndarray:
    """bool [n]: which turns are resident after the conversation was streamed through an index of `capacity` rows."""
    keys = tie_keys([f"{talk.talk.sample_id}/{turn.dia_id}".encode() for turn in talk.talk.turns])
    resident: list[int] = []
    for row in range(len(talk.turns)):
        resident.append(row)
        if len(resident) > capacity:
            if policy == "fifo":
                resident.pop(0)
                continue
            rows = np.array(resident)
            near = nearest_stored(talk, rows) if policy == "salience and redundancy" else None
            out = choose(pressure(salience[rows], redundancy=near), 1, np.zeros(len(rows), bool), keys[rows])
            resident.pop(int(out[0]))
    kept = np.zeros(len(talk.turns), bool)
    kept[resident] = True
    return kept


def nearest_stored(talk: Embedded, rows: np.ndarray) -> F64:
    """Largest cosine [r] of each resident to another."""
    cosines = (talk.turns[rows] @ talk.turns[rows].T).astype(np.float64)
    np.fill_diagonal(cosines, -1.0)
    return np.asarray(cosines.max(axis=1), np.float64)


def forgetting_rows(bench: Bench, base: Scores, before: F64) -> None:
    """The same ranker over what a bounded index still holds."""
    for share in KEPT:
        for policy in ("salience", "fifo"):
            scores, evidence = [], []
            for talk, nats, matrix in zip(bench.talks, bench.information, base, strict=True):
                kept = kept_rows(talk, nats, int(share * len(talk.turns)), policy=policy)
                scores.append(np.where(kept, matrix, -np.inf))
                evidence += [float(np.mean(kept[list(question.evidence)])) for question in talk.talk.questions]
            name = f"index bounded to {share:.0%}, {policy} (evidence kept {np.mean(evidence):.3f})"
            bench.add(name, recalls(bench.talks, scores), before, "full index", verdict="bounds memory, costs recall")


def competition_row(bench: Bench, base: Scores, before: F64) -> None:
    """Competition among the fifty best, the seed's strength."""
    options = HomeostasisOptions(competition_strength=0.1)
    scores = []
    for talk, matrix in zip(bench.talks, base, strict=True):
        after = np.full(matrix.shape, -np.inf)
        for q, rows in enumerate(ranked(matrix)[:, :50]):
            after[q, rows] = compete(matrix[q, rows].astype(np.float32), talk.turns[rows], options)
        scores.append(after)
    bench.add("+ competition .1 among similar hits", recalls(bench.talks, scores), before, "salience")


@dataclass(frozen=True)
class Merged:
    """A store after consolidation: units (a turn, or a semantic trace with its members) and what a question finds."""

    recalls: F64
    merges: int
    bytes_of_ten: float


def merged(bench: Bench, base: Scores, options: ConsolidationOptions, weight: float, *, judge: Callable[[str, str], str | None]) -> Merged:
    """Semantic traces stand in for their members in the ranking; a hit unfolds into its members, and ten turns are taken in all."""
    found, merges, sizes = [], 0, []
    for talk, matrix, salience in zip(bench.talks, base, bench.salience, strict=True):
        ids = [row.to_bytes(16, "big") for row in range(len(talk.turns))]
        texts = [turn.text for turn in talk.talk.turns]
        plan = consolidation.plan(Episodes(ids, texts, talk.turns, salience), options, judge)
        clusters = [cluster.semantic for cluster in plan if cluster.semantic]
        merges += len(clusters)
        members = [[int.from_bytes(member, "big") for member in one.members] for one in clusters]
        units = [[row] for row in sorted(set(range(len(texts))) - {row for rows in members for row in rows})] + members
        if members:
            vectors = np.stack([one.vector for one in clusters])
            prior = np.array([salience[rows].max() for rows in members])
            joint = (talk.questions @ vectors.T).astype(np.float64) + weight * prior
            matrix = np.concatenate([matrix[:, [rows[0] for rows in units[: len(units) - len(members)]]], joint], axis=1)
        said = [texts[rows[0]] for rows in units[: len(units) - len(members)]] + [one.text for one in clusters]
        for order, question in zip(ranked(matrix), talk.talk.questions, strict=True):
            shown = [row for unit in order[:10] for row in units[unit]][:10]
            found.append(100 * len(set(shown) & set(question.evidence)) / len(question.evidence))
            sizes.append(sum(len(said[unit].encode()) for unit in order[:10]))
    return Merged(np.array(found), merges, float(np.mean(sizes)))


def consolidation_rows(bench: Bench, base: Scores, weight: float) -> None:
    """No merge, merge always, and merge where the cluster predicts its members, at three levels of candidates."""
    none = merged(bench, base, ConsolidationOptions(related=1.0), weight, judge=contradiction)
    bench.add(f"no merge ({none.bytes_of_ten:.0f} bytes in ten hits)", none.recalls, None)
    for related in (calibration.shipped(MODEL).related, 0.75, 0.65):
        options = ConsolidationOptions(related=related)
        always = merged(bench, base, replace(options, least_r2=-math.inf), weight, judge=lambda old, new: None)
        chosen = merged(bench, base, options, weight, judge=contradiction)
        for name, one in (("merge always", always), ("merge where R2 > .3", chosen)):
            title = f"{name}, candidates from cosine {related:.2f} ({one.merges} merges, {one.bytes_of_ten:.0f} bytes)"
            bench.add(title, one.recalls, none.recalls, "no merge")


def run() -> list[Line]:
    """All rows, in order."""
    bench = Bench(locomo())
    base, before, weight = salience_rows(bench)
    use_rows(bench, base, before)
    gate_row(bench, base, before)
    competition_row(bench, base, before)
    forgetting_rows(bench, base, before)
    consolidation_rows(bench, base, weight)
    return bench.lines


def _counted(picks: Sequence[float]) -> str:
    return ", ".join(f"{pick:g} x{list(picks).count(pick)}" for pick in sorted(set(picks)))


def _cells(line: Line) -> list[str]:
    gain = f"{line.gain} over {line.against}" if line.gain else ""
    return [line.mechanism, f"{line.recall_at_10:.2f}", gain, line.weights, line.verdict]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    if not DATA.is_file():
        raise SystemExit(f"{DATA} is not there: set NDML_LOCOMO to a LoCoMo file (it is not part of this repository)")
    lines = run()
    table = Table("mechanism", "R@10", "gain, 95 % interval", "weight, conversation left out", "verdict", title="Ablation, LoCoMo, percent")
    for line in lines:
        table.add_row(*_cells(line))
    Console(width=200).print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    if options.markdown:
        raise SystemExit("later")


if __name__ == "__main__":
    main()
