"""What each mechanism adds to recall, one at a time on top of the one before, on LoCoMo with paired bootstrap intervals.

    python -m tests.quality.ablation [--json FILE] [--markdown FILE]         # `make eval-ablation`; about a minute

Protocol: a memory is a turn, ground truth the evidence turns, R@10 averaged over questions, offline with all-MiniLM-L6-v2. A weight is
chosen for each conversation on the others. Grades are simulated: the questions of a conversation are asked in random order, an hour apart,
after its last session; a question is ranked with the state left by the questions before it, and then the evidence turns among the ten shown
are graded 1, as an answer that cites them would. Nothing of a question is known before it has been ranked.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ndml.btsp import calibration, consolidation
from ndml.btsp.consolidation import ConsolidationOptions, Contradiction, Episodes
from ndml.btsp.credit import kernel
from ndml.btsp.gate import Decision, GateThresholds, contradiction, contradicts, decide
from ndml.btsp.homeostasis import HomeostasisOptions, compete
from ndml.btsp.state import StateBlock
from tests.quality.bounded import Policy, resident
from tests.quality.embedded import MODEL, Embedded, locomo
from tests.quality.locomo import DATA
from tests.quality.ranking import F64, Bench, Bools, Gain, Scores, added, left_out, only, paired, ranked, recalls

WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3)
"""Of a prior in 0..1 beside a cosine."""
CREDIT_FACTORS = (0.25, 0.5, 1.0)
LONG_TURN = 400
"""Characters at which the control by length reaches 1."""
KEPT = (0.75, 0.5, 0.25)
HOUR_S = 3600.0
REACH_TURNS = 8
SHOWN = 10
"""Hits of a search; grades go to evidence among them."""


@dataclass(frozen=True)
class Line:
    """One row: what was added, recall, gain over the row it is compared with, and what follows."""

    mechanism: str
    recall_at_10: float
    against: str
    gain: Gain | None
    weights: str
    verdict: str


class Report:
    """Rows as they come."""

    def __init__(self, talks: Sequence[Embedded]) -> None:
        self.bench = Bench(talks)
        self.lines: list[Line] = []
        self.notes: list[str] = []

    def add(self, mechanism: str, values: F64, before: F64 | None, against: str = "", *, weights: str = "", verdict: str = "") -> None:
        gain = None if before is None else paired(values, before)
        judged = verdict or ("reference" if gain is None else "on" if gain.helps else "off by default")
        self.lines.append(Line(mechanism, float(values.mean()), against, gain, weights, judged))

    def tuned(
        self, mechanism: str, base: Scores, prior: Sequence[F64], before: F64, against: str, *, verdict: str = ""
    ) -> tuple[F64, float]:
        """A row for base + w * prior, w chosen on the other conversations; its recalls, and the weight taken most often."""
        talks = self.bench.talks
        values, picks = left_out(talks, {w: recalls(talks, added(base, prior, w)) for w in WEIGHTS})
        self.add(mechanism, values, before, against, weights=_counted(picks), verdict=verdict)
        return values, max(sorted(set(picks)), key=picks.count)


def salience_rows(report: Report) -> tuple[Scores, F64, float]:
    """Dense, the prior, and length in its place. Scores and recalls with the prior, for later rows to build on, and its weight."""
    bench = report.bench
    dense = recalls(bench.talks, bench.dense)
    report.add("dense cosine", dense, None)
    lengths = [np.log1p([len(turn.text) for turn in talk.talk.turns]) / math.log1p(LONG_TURN) for talk in bench.talks]
    length, _ = report.tuned("dense + length of the turn", bench.dense, lengths, dense, "dense", verdict="a control")
    prior, weight = report.tuned("dense + salience", bench.dense, bench.salience, dense, "dense")
    report.add("salience rather than length", prior, length, "length", verdict="a control")
    scores = bench.with_salience(weight)
    return scores, recalls(bench.talks, scores), weight


def replayed(talk: Embedded, scores: F64, *, credit: float, grading: bool = True) -> F64:
    """Strength [q, n] of every turn at the moment each question is asked, in the order of a life as the module describes it."""
    turns, questions = talk.talk.turns, talk.talk.questions
    block = StateBlock()
    block.append(np.zeros(len(turns)), np.full(len(turns), 0.5), np.array([turn.said_at.timestamp() for turn in turns]))
    order = _asked(talk)
    start = max(turn.said_at.timestamp() for turn in turns) + 24 * HOUR_S
    shown = ranked(scores)[:, :SHOWN]
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


def spread(talk: Embedded, cited: Sequence[int]) -> tuple[NDArray[np.int64], F64]:
    """Rows and kernel values that credit reaches from the cited turns: their neighbours in the same session, by turns."""
    turns, reached = talk.talk.turns, dict[int, float]()
    for row in cited:
        for other in range(max(0, row - REACH_TURNS), min(len(turns), row + REACH_TURNS + 1)):
            kappa = float(kernel(float(other - row)))
            if other != row and turns[other].session == turns[row].session and kappa > 0:
                reached[other] = max(reached.get(other, 0.0), kappa)
    rows = np.array(sorted(reached), np.int64)
    return rows, np.array([reached[row] for row in rows.tolist()])


def use_rows(report: Report, base: Scores, before: F64) -> None:
    """Strength from graded use, and credit to the neighbours of what was cited."""
    pairs = list(zip(report.bench.talks, base, strict=True))
    untouched = [replayed(talk, scores, credit=0.0, grading=False) for talk, scores in pairs]
    report.tuned("+ strength without any grade: age alone", base, untouched, before, "salience", verdict="a control")
    graded = [replayed(talk, scores, credit=0.0) for talk, scores in pairs]
    values, _ = report.tuned("+ strength from graded use", base, graded, before, "salience")
    report.notes.append(reuse(pairs))
    for factor in CREDIT_FACTORS:
        credited = [replayed(talk, scores, credit=factor) for talk, scores in pairs]
        report.tuned(f"+ credit x {factor:g} to neighbours in turns", base, credited, values, "graded use")


def reuse(pairs: Sequence[tuple[Embedded, F64]]) -> str:
    """Whether what was cited is asked for again: the chance of evidence among shown turns that were cited before, and that were not."""
    counts = np.zeros((2, 2))
    for talk, scores in pairs:
        order, cited = _asked(talk), set[int]()
        for q in order:
            evidence = talk.talk.questions[q].evidence
            shown = ranked(scores)[q, :SHOWN].tolist()
            for row in shown:
                counts[int(row in cited), int(row in evidence)] += 1
            cited |= set(shown) & set(evidence)
    fresh, used = counts[:, 1] / counts.sum(axis=1)
    return (
        f"Of the ten turns shown, one that an earlier question cited is evidence in {used:.1%}, one that none cited in {fresh:.1%} "
        f"({int(counts[1].sum())} and {int(counts[0].sum())} turns shown)."
    )


def _asked(talk: Embedded, seed: int = 0) -> list[int]:
    """The questions in the order in which they are asked."""
    order = list(range(len(talk.talk.questions)))
    Random(seed).shuffle(order)
    return order


def gate_row(report: Report, base: Scores, before: F64) -> None:
    """Duplicates left out of the store, as a caller that asks for it gets; by exact search, with the shipped thresholds."""
    thresholds = calibration.shipped(MODEL).thresholds(0)
    kept = [_distinct(talk, thresholds) for talk in report.bench.talks]
    turns, dropped = sum(map(len, kept)), sum(int((~rows).sum()) for rows in kept)
    values = recalls(report.bench.talks, only(kept, base))
    report.add(f"+ gate drops duplicates ({dropped} of {turns} turns)", values, before, "salience")


def _distinct(talk: Embedded, thresholds: GateThresholds) -> Bools:
    kept = np.ones(len(talk.turns), bool)
    for row in range(1, len(kept)):
        cosines = np.where(kept[:row], talk.turns[:row] @ talk.turns[row], -1.0)
        nearest = int(np.argmax(cosines))
        against = contradicts(talk.talk.turns[nearest].text, talk.talk.turns[row].text)
        kept[row] = decide(None, float(cosines[nearest]), against, thresholds).decision is not Decision.DUPLICATE
    return kept


def forgetting_rows(report: Report, base: Scores, before: F64) -> None:
    """The same ranker over what a bounded index still holds."""
    policies: tuple[Policy, ...] = ("salience", "salience and redundancy", "fifo")
    for share in KEPT:
        for policy in policies:
            kept = resident(report.bench, share, policy)
            name = f"room for {share:.0%}, {policy} (evidence kept {report.bench.evidence_kept(kept):.3f})"
            values = recalls(report.bench.talks, only(kept, base))
            report.add(name, values, before, "all turns", verdict="a cost, paid for a bound")


def competition_row(report: Report, base: Scores, before: F64) -> None:
    """Competition among the fifty best, at the seed's strength."""
    options = HomeostasisOptions(competition_strength=0.1)
    scores = []
    for talk, matrix in zip(report.bench.talks, base, strict=True):
        after = np.full(matrix.shape, -np.inf)
        for q, rows in enumerate(ranked(matrix)[:, :50]):
            after[q, rows] = compete(matrix[q, rows].astype(np.float32), talk.turns[rows], options)
        scores.append(after)
    report.add("+ competition .1 among similar hits", recalls(report.bench.talks, scores), before, "salience")


@dataclass(frozen=True)
class Merged:
    """A store after consolidation: recall, and length of the text of ten hits, of each question."""

    recalls: F64
    merges: int
    bytes_of_ten: F64


def merged(report: Report, base: Scores, options: ConsolidationOptions, weight: float, judge: Contradiction) -> Merged:
    """Semantic traces stand in for their members in the ranking; a hit unfolds into its members, and ten turns are taken in all."""
    bench = report.bench
    parts = [
        _merged_talk(talk, matrix, salience, options, weight, judge)
        for talk, matrix, salience in zip(bench.talks, base, bench.salience, strict=True)
    ]
    sizes = np.concatenate([part.bytes_of_ten for part in parts])
    return Merged(np.concatenate([part.recalls for part in parts]), sum(part.merges for part in parts), sizes)


def _merged_talk(talk: Embedded, matrix: F64, salience: F64, options: ConsolidationOptions, weight: float, judge: Contradiction) -> Merged:
    texts = [turn.text for turn in talk.talk.turns]
    ids = [row.to_bytes(16, "big") for row in range(len(texts))]
    plan = consolidation.plan(Episodes(ids, texts, talk.turns, salience), options, judge)
    traces = [cluster.semantic for cluster in plan if cluster.semantic]
    members = [[int.from_bytes(member, "big") for member in trace.members] for trace in traces]
    alone = sorted(set(range(len(texts))) - {row for rows in members for row in rows})
    units = [[row] for row in alone] + members
    said = [len(texts[row].encode()) for row in alone] + [len(trace.text.encode()) for trace in traces]
    scores = matrix[:, alone]
    if traces:
        vectors = np.stack([trace.vector for trace in traces])
        prior = np.array([salience[rows].max() for rows in members])
        scores = np.concatenate([scores, talk.questions @ vectors.T + weight * prior], axis=1)
    found, sizes = [], []
    for order, question in zip(ranked(scores), talk.talk.questions, strict=True):
        shown = [row for unit in order[:10] for row in units[unit]][:10]
        found.append(100 * len(set(shown) & set(question.evidence)) / len(question.evidence))
        sizes.append(float(sum(said[unit] for unit in order[:10])))
    return Merged(np.array(found), len(traces), np.array(sizes))


def consolidation_rows(report: Report, base: Scores, weight: float) -> None:
    """No merge, merge always, and merge where the cluster predicts its members, at three levels of candidates."""
    none = merged(report, base, ConsolidationOptions(related=1.0), weight, contradiction)
    report.add(f"no merge ({none.bytes_of_ten.mean():.0f} bytes in ten hits)", none.recalls, None)
    for related in (calibration.shipped(MODEL).related, 0.75, 0.65):
        options = ConsolidationOptions(related=related)
        always = merged(report, base, replace(options, least_r2=-1e9), weight, lambda old, new: None)
        chosen = merged(report, base, options, weight, contradiction)
        for name, one in (("always", always), ("where R2 > .3", chosen)):
            title = f"merge {name}, candidates from {related:.2f} ({one.merges} merges, {one.bytes_of_ten.mean():.0f} bytes)"
            report.add(title, one.recalls, none.recalls, "no merge")
        report.add("the R2 rule rather than always", chosen.recalls, always.recalls, "always", verdict="a control")


def run() -> Report:
    """All rows, in order."""
    report = Report(locomo())
    base, before, weight = salience_rows(report)
    use_rows(report, base, before)
    gate_row(report, base, before)
    competition_row(report, base, before)
    forgetting_rows(report, base, before)
    consolidation_rows(report, base, weight)
    return report


def _counted(picks: Sequence[float]) -> str:
    return ", ".join(f"{pick:g} x{list(picks).count(pick)}" for pick in sorted(set(picks)))


def _cells(line: Line) -> list[str]:
    gain = f"{line.gain} over {line.against}" if line.gain else ""
    return [line.mechanism, f"{line.recall_at_10:.2f}", gain, line.weights, line.verdict]


HEAD = ("mechanism", "R@10", "gain, 95 % interval", "weight x conversations", "verdict")


def markdown(report: Report) -> str:
    """The page of the docs."""
    rows = [HEAD, ("---",) * len(HEAD), *(_cells(line) for line in report.lines)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{_ABOVE}\n{table}\n\n{' '.join(report.notes)}\n{_BELOW}"


_ABOVE = """# What each mechanism adds to recall

Written by `make eval-ablation`. LoCoMo's development part (five conversations, 2,760 turns, 997 questions with evidence), plain dense search
with all-MiniLM-L6-v2 as the base, evidence recall in ten hits, percent. Intervals: paired bootstrap over questions. Weights are chosen for
each conversation on the other four. A mechanism has to beat the row that it is compared with, not plain cosine; one that does not is off by
default.
"""
_BELOW = """
## How to read it

- **Salience** is worth its place in ranking. It is worth as much as the length of the turn: what it adds over length is not measurable. We use
  salience because it also leads forgetting, and because length can be had for nothing by anybody who writes much.
- **Strength from graded use** is simulated: questions in random order, grades only for evidence that was shown, nothing of a question known
  before it is ranked. The figure under the table says whether past use predicts need in this data; LoCoMo asks most things once, an assistant's
  user does not. Strength stays out of ranking until data with recurring needs shows otherwise; it does decide on states and forgetting.
- **Credit to neighbours** moves strength, so it cannot show more than strength does.
- **Forgetting** never improves recall. It bounds memory; by salience it costs a fraction of what first in, first out costs.
- **Consolidation** here replaces members in the ranking and unfolds them into the same ten places, its hardest test. Merging at the gate's
  `related` costs nothing measurable; below it, it costs much, and the rule that a cluster must predict its members saves part of that.
  In the service members stay findable beside the semantic trace.
- All of it stands on dense search. On a ranking that is already better, each has to show its gain again.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    if not DATA.is_file():
        raise SystemExit(f"{DATA} is not there: set NDML_LOCOMO to a LoCoMo file (it is not part of this repository)")
    report = run()
    table = Table(*HEAD, title="Ablation, LoCoMo, percent")
    for line in report.lines:
        table.add_row(*_cells(line))
    Console(width=200).print(table, *report.notes)
    if options.json:
        options.json.write_text(json.dumps({"rows": [asdict(line) for line in report.lines], "notes": report.notes}, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(report), encoding="utf-8")


if __name__ == "__main__":
    main()
