"""What each mechanism adds to recall, each on top of what stayed before it, on LoCoMo with paired bootstrap intervals.

    python -m tests.quality.ablation [--folder docs/science] [--json FILE]         # `make eval-ablation`; about a minute

Protocol: a memory is a turn, ground truth the evidence turns, recall averaged over questions, offline with all-MiniLM-L6-v2. A weight is
chosen for each conversation on the others. Grades are simulated (`simulated.py` says how, and what that leaves out).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import numpy as np
from rich.console import Console
from rich.progress import track

from ndml.btsp import calibration
from ndml.btsp.calibration import degraded
from ndml.btsp.consolidation import ConsolidationOptions, Contradiction
from ndml.btsp.forgetting import pressure, ranks
from ndml.btsp.gate import Decision, GateThresholds, contradiction, contradicts, decide
from ndml.btsp.homeostasis import HomeostasisOptions, LogGain, compete
from ndml.btsp.salience import content_words
from tests.quality.ablation_page import Cost, Line, Report, bars, markdown, tables
from tests.quality.bounded import Policy, evicted_at_once, resident
from tests.quality.calibrate_gate import SEED
from tests.quality.embedded import F32, MODEL, Embedded, embed, locomo
from tests.quality.locomo import DATA
from tests.quality.merged import Merged, merged
from tests.quality.novelty import novelty_lines
from tests.quality.ranking import (
    F64,
    Bench,
    Bools,
    Recalls,
    Scores,
    added,
    left_out,
    only,
    paired,
    ranked,
    recalls,
)
from tests.quality.simulated import encodings, graded_by, replayed, reuse

WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3)
"""Of a prior in 0..1 beside a cosine."""
DEFAULTS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
"""Weights of salience from which a default is taken."""
CREDIT_FACTORS = (0.25, 0.5, 1.0)
LONG_TURN = 400
"""Characters at which the control by length reaches 1."""
KEPT = (0.75, 0.5, 0.25)
PLAIN_ENCODING = 0.5
COST, CONTROL = "a cost, paid for a bound", "a control"
FOLDER = Path(__file__).parents[2] / "docs/science"
NAME = "ablation"


class Study:
    """Rows as they come, and what later rows build on: scores and recalls of the mechanisms that stayed, and the salience weight."""

    def __init__(self, talks: Sequence[Embedded]) -> None:
        self.bench = Bench(talks)
        self.report = Report()
        self.base: Scores = self.bench.dense
        self.before: Recalls = self.recalls(self.base)
        self.salience_weight = 0.0

    def recalls(self, scores: Scores) -> Recalls:
        return recalls(self.bench.talks, scores)

    def row(self, group: str, name: str, values: Recalls, before: Recalls | None, against: str = "", **said: str) -> None:
        """`said`: weights, verdict; the verdict follows from the interval where none is given."""
        gain = None if before is None else paired(values.at10, before.at10)
        gain5 = None if before is None else paired(values.at5, before.at5)
        verdict = said.get("verdict") or ("reference" if gain is None else "on" if gain.helps else "off by default")
        at5, at10 = float(values.at5.mean()), float(values.at10.mean())
        self.report.lines.append(Line(group, name, at5, at10, against, gain, gain5, said.get("weights", ""), verdict))

    def tuned(self, group: str, name: str, prior: Sequence[F64], against: tuple[str, Recalls], verdict: str = "") -> tuple[Recalls, float]:
        """A row for base + w * prior, w chosen on the other conversations; its recalls, and the weight taken most often."""
        talks = self.bench.talks
        values, picks = left_out(talks, {w: self.recalls(added(self.base, prior, w)) for w in WEIGHTS})
        counted = ", ".join(f"{pick:g} x{picks.count(pick)}" for pick in sorted(set(picks)))
        self.row(group, name, values, against[1], against[0], weights=counted, verdict=verdict)
        return values, max(sorted(set(picks)), key=picks.count)


def salience_rows(study: Study) -> None:
    """Dense, the prior, and length in its place; the tuned prior is what all that follows has to improve."""
    bench, dense, group = study.bench, study.before, "Salience in ranking"
    study.row(group, "dense cosine", dense, None)
    lengths = [np.log1p([len(turn.text) for turn in talk.talk.turns]) / math.log1p(LONG_TURN) for talk in bench.talks]
    length, _ = study.tuned(group, "length of the turn", lengths, ("dense", dense), CONTROL)
    prior, weight = study.tuned(group, "salience", bench.salience, ("dense", dense))
    study.row(group, "salience rather than length", prior, length, "length", verdict=CONTROL)
    study.base, study.salience_weight = bench.with_salience(weight), weight
    study.before = study.recalls(study.base)


def known_item_costs(study: Study) -> None:
    """What a weight of salience gains on questions and costs where a turn is looked for in its own words."""
    bench, random = study.bench, Random(SEED)
    said_again = [embed([degraded(text, random) for text in talk.texts]) for talk in bench.talks]
    dense, plain = study.recalls(bench.dense), _found_first(bench, said_again, 0.0)
    for weight in DEFAULTS:
        gain = paired(study.recalls(bench.with_salience(weight)).at10, dense.at10)
        first = _found_first(bench, said_again, weight)
        study.report.costs.append(Cost(weight, gain, float(first.mean()), paired(first, plain)))


def _found_first(bench: Bench, asked: Sequence[F32], weight: float) -> F64:
    """100 for each turn whose restatement finds it before all others, else 0, [turns of all conversations]."""
    found = []
    for talk, vectors, salience in zip(bench.talks, asked, bench.salience, strict=True):
        scores = vectors @ talk.turns.T + weight * salience
        found.append(scores.argmax(axis=1) == np.arange(len(scores)))
    return 100.0 * np.concatenate(found)


def use_rows(study: Study) -> None:
    """Strength from encoding, from graded use, and credit to the neighbours of what was cited."""
    group, pairs, salience = "Strength in ranking", list(zip(study.bench.talks, study.base, strict=True)), ("salience", study.before)
    even = [np.full(len(talk.turns), PLAIN_ENCODING) for talk in study.bench.talks]
    calcium = [encodings(talk, prior) for talk, prior in zip(study.bench.talks, study.bench.salience, strict=True)]

    def lives(encoding: Sequence[F64], credit: float = 0.0, *, grading: bool = True) -> list[F64]:
        return [replayed(*pair, each, credit=credit, grading=grading) for pair, each in zip(pairs, encoding, strict=True)]

    study.tuned(group, "strength without grades: age alone", lives(even, grading=False), salience, CONTROL)
    study.tuned(group, "strength without grades, encoded by calcium", lives(calcium, grading=False), salience)
    graded, _ = study.tuned(group, "strength from graded use", lives(even), salience)
    for factor in CREDIT_FACTORS:
        study.tuned(group, f"graded use, credit x {factor:g} to neighbours", lives(even, factor), ("graded use", graded))
    shares, counts = reuse(pairs)
    study.report.notes.append(
        f"Of the ten turns shown, one that an earlier question cited is evidence in {shares[1]:.1%}, one that none cited in "
        f"{shares[0]:.1%} ({counts[1]} and {counts[0]} turns shown)."
    )


def gate_rows(study: Study) -> None:
    """Duplicates left out of the store, as a caller that asks for it gets; by exact search, with the shipped thresholds."""
    thresholds = calibration.shipped(MODEL).thresholds(0)
    kept = [_distinct(talk, thresholds) for talk in study.bench.talks]
    turns, dropped = sum(map(len, kept)), sum(int((~rows).sum()) for rows in kept)
    name = f"duplicates not stored ({dropped} of {turns} turns)"
    study.row("Write gate", name, study.recalls(only(kept, study.base)), study.before, "salience")
    study.report.novelty, note = novelty_lines(study.bench.talks)
    study.report.notes.append(note)


def _distinct(talk: Embedded, thresholds: GateThresholds) -> Bools:
    kept = np.ones(len(talk.turns), bool)
    for row in range(1, len(kept)):
        cosines = np.where(kept[:row], talk.turns[:row] @ talk.turns[row], -1.0)
        nearest = int(np.argmax(cosines))
        against = contradicts(talk.talk.turns[nearest].text, talk.talk.turns[row].text)
        kept[row] = decide(None, float(cosines[nearest]), against, thresholds).decision is not Decision.DUPLICATE
    return kept


def homeostasis_rows(study: Study) -> None:
    """Competition among the fifty best, and scaling of salience by each conversation's own gain."""
    group, against = "Competition and homeostasis", ("salience", study.before)
    for strength, since in ((0.1, 0.8), (0.5, 0.6)):
        options = HomeostasisOptions(competition_strength=strength, competition_from=since)
        name = f"competition {strength:g} among hits alike from {since:g}"
        study.row(group, name, study.recalls(_competed(study, options)), study.before, "salience")
    scaled = []
    for salience in study.bench.salience:
        gain = LogGain(HomeostasisOptions(scaling_rate=0.05))
        for value in salience.tolist():
            gain.observe(value)
        scaled.append(gain.apply(salience))
    base, study.base = study.base, study.bench.dense
    study.tuned(group, "salience scaled to a mean of .5", scaled, against)
    study.base = base


def _competed(study: Study, options: HomeostasisOptions) -> Scores:
    scores = []
    for talk, matrix in zip(study.bench.talks, study.base, strict=True):
        after = np.full(matrix.shape, -np.inf)
        for q, rows in enumerate(ranked(matrix)[:, :50]):
            after[q, rows] = compete(matrix[q, rows].astype(np.float32), talk.turns[rows], options)
        scores.append(after)
    return scores


POLICIES: tuple[tuple[Policy, str, str], ...] = (
    ("random", "all turns", COST),
    ("first in first out", "random", CONTROL),
    ("salience", "random", "the policy"),
    ("salience and redundancy", "salience", ""),
)
"""Policy, what it is compared with, and the verdict where the interval does not give it."""


def forgetting_rows(study: Study) -> None:
    """The same ranker over what a bounded index still holds; every policy against the simpler one before it."""
    for share in KEPT:
        group = f"Forgetting: room for {share:.0%} of the turns"
        found: dict[str, Recalls] = {"all turns": study.before}
        for policy, against, verdict in POLICIES:
            kept = resident(study.bench, share, policy)
            found[policy] = study.recalls(only(kept, study.base))
            name = f"{policy}, evidence kept {study.bench.evidence_kept(kept):.3f}"
            study.row(group, name, found[policy], found[against], against, verdict=verdict)
        study.row(group, "salience rather than no bound", found["salience"], study.before, "all turns", verdict=COST)
    strength_in_forgetting(study, 0.5)


def strength_in_forgetting(study: Study, share: float) -> None:
    """Half of the questions are asked and graded, then room is made: what the others still find. Both halves in turn."""
    group = f"Forgetting: room for {share:.0%}, after half of the questions"
    by_salience = study.recalls(only(_left(study, share, [None] * len(study.base)), study.base))
    odd = [np.arange(len(talk.talk.questions)) % 2 == 1 for talk in study.bench.talks]
    nothing, graded = (_after_half(study, share, odd, grading) for grading in (False, True))
    study.row(group, "salience", by_salience, None)
    study.row(group, "salience and strength without grades", nothing, by_salience, "salience", verdict=CONTROL)
    study.row(group, "salience and strength of graded use", graded, nothing, "no grades")
    study.row(group, "salience and strength of graded use", graded, by_salience, "salience")


def _after_half(study: Study, share: float, odd: Sequence[Bools], grading: bool) -> Recalls:
    """Recalls of each half of the questions over what is left after the other was asked."""
    found = []
    for first in (False, True):
        asking = [(half == first) & grading for half in odd]
        strengths = [graded_by(*each) for each in zip(study.bench.talks, study.base, asking, strict=True)]
        found.append(study.recalls(only(_left(study, share, strengths), study.base)))
    even_first, odd_first = found
    is_odd = np.concatenate(odd)
    return Recalls(np.where(is_odd, even_first.at5, odd_first.at5), np.where(is_odd, even_first.at10, odd_first.at10))


def _left(study: Study, share: float, strengths: Sequence[F64 | None]) -> list[Bools]:
    pairs = zip(study.bench.talks, study.bench.information, strengths, strict=True)
    return [evicted_at_once(talk, pressure(nats, strength=strength), share) for talk, nats, strength in pairs]


def consolidation_rows(study: Study) -> None:
    """No merge, merge always, and merge where the cluster predicts its members, at four levels of candidates; members gone or kept."""
    weight, base, group = study.salience_weight, study.base, "Consolidation: semantic traces replace their members"

    def after(options: ConsolidationOptions, judge: Contradiction = contradiction, *, beside: bool = False) -> Merged:
        return merged(study.bench, base, weight, options, judge, beside=beside)

    none = after(ConsolidationOptions(related=1.0))
    study.row(group, f"no merge ({none.bytes_of_ten:.0f} bytes in ten hits)", none.recalls, None)
    levels = (calibration.shipped(MODEL).related, 0.8, 0.75, 0.65)
    for related in levels:
        options = ConsolidationOptions(related=related)
        always = after(replace(options, least_r2=-1e9), lambda old, new: None)
        chosen = after(options)
        for how, one, before, against in (("always", always, none, "no merge"), ("where R2 > .3", chosen, always, "always")):
            name = f"from {related:.2f}, {how} ({one.merges} merges, {one.bytes_of_ten:.0f} bytes)"
            study.row(group, name, one.recalls, before.recalls, against, verdict=CONTROL if before is always else "")
        study.row(group, f"from {related:.2f}, where R2 > .3", chosen.recalls, none.recalls, "no merge")
    for related in levels:
        one = after(ConsolidationOptions(related=related), beside=True)
        name = f"from {related:.2f}, where R2 > .3 ({one.merges} merges, {one.bytes_of_ten:.0f} bytes)"
        study.row("Consolidation: semantic traces beside their members", name, one.recalls, none.recalls, "no merge")


def counting_note(study: Study) -> None:
    """What hashed counters lose of salience, against exact document frequencies."""
    agreements = []
    for talk, hashed in zip(study.bench.talks, study.bench.information, strict=True):
        seen, exact = Counter[str](), []
        for n, turn in enumerate(talk.talk.turns, 1):
            distinct = content_words(turn.text)
            seen.update(distinct)
            exact.append(sum(math.log((n + 1) / seen[word]) for word in distinct))
        agreements.append(float(np.corrcoef(ranks(np.array(exact)), ranks(hashed))[0, 1]))
    study.report.notes.append(
        f"Salience by hashed counters ranks turns as exact counts do: rank correlation {min(agreements):.4f} or more."
    )


STEPS: tuple[Callable[[Study], None], ...] = (
    salience_rows,
    known_item_costs,
    use_rows,
    gate_rows,
    homeostasis_rows,
    forgetting_rows,
    consolidation_rows,
    counting_note,
)


def run() -> Report:
    """All rows, in order."""
    study = Study(locomo())
    for step in track(STEPS, "ablation", console=Console(stderr=True)):
        step(study)
    return study.report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where ablation.md and img/ablation.svg are written")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not DATA.is_file():
        raise SystemExit(f"{DATA} is not there: set NDML_LOCOMO to a LoCoMo file (it is not part of this repository)")
    report = run()
    Console(width=220).print(*tables(report), *report.notes)
    (options.folder / f"{NAME}.md").write_text(markdown(report), encoding="utf-8")
    (options.folder / "img").mkdir(parents=True, exist_ok=True)
    bars(report.lines, options.folder / "img" / f"{NAME}.svg")
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
