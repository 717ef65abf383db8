"""The tables and the page of `make eval-recall`, from what a run found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.table import Table as Shown

from tests.perf.tables import Part, Row, Table
from tests.quality.recall.measures import MEANS, Asked, LeftOut, Measured, gain, interval
from tests.quality.recall.rows import FAST, FULL, REFERENCES, WAYS
from tests.quality.recall.sets import SetName

AIMS = {5: 80.0, 10: 87.0}
"""R@k on LoCoMo's development part."""
APART = 1.0
"""Points that leaving a conversation out may change."""
TITLES: dict[SetName, str] = {"locomo": "LoCoMo", "tasks": "task logs", "reviews": "code review threads"}

ABOVE = """# Recall

Written by `make eval-recall`. Everything is written by `BatchAddMemories` and asked by `BatchSearchMemories` of one running suite
(`ndml.testing.Suite`: gateway, memory nodes, llm service are processes), offline, with all-MiniLM-L6-v2 and nothing trained on any of
the sets. A memory is one turn; R@k is the share of a question's evidence turns among the first k hits, averaged over questions; H@10 and
ALL@10: any, all of it among the first ten; MRR: one over the place of the first. All in percent. Each row adds a signal to the row
before it, by `mode` and `weights` of the request; weights that a row does not set are the suite's own, the same for every set. References
are computed in numpy in the same run. Intervals: 95 %, paired bootstrap over questions; questions of one conversation are
related, so the true ones are wider.

The sets: LoCoMo's development part (CC BY-NC 4.0, not in this repository; `NDML_LOCOMO` names the file), and two of our own, made from
seeds by grammars (`tests/quality/recall/tasks.py`, `reviews.py`) that were written before the full ranking was measured on them: an agent's
task logs over eleven weeks on six projects, and review threads on six files of a repository. In both every answer has look-alikes, and
about half of the questions name things in other words than the memory does."""
BELOW = """## How to read it

- The two generated sets are plain English from grammars of ours. They say whether what was chosen on LoCoMo carries over to logs and
  threads, not how well people's own logs are recalled.
- **When** questions count the turn that tells of the event, whose time the hit carries; no model answers anything here.
- Latency is the suite's own on this machine; only ratios within one run compare."""


@dataclass(frozen=True, slots=True)
class Study:
    """One set: its questions, what each way found, in the order of REFERENCES and WAYS, and weights chosen on other conversations."""

    name: SetName
    asked: Asked
    measured: dict[str, Measured]
    left_out: LeftOut | None = None

    @property
    def full(self) -> Measured:
        return self.measured[FULL]


def part(study: Study) -> Part:
    """Targets and tables of a set."""
    return Part(_targets(study), [_ablation(study), _categories(study), *_neighbours(study)])


def _targets(study: Study) -> list[Row]:
    title, full, found = TITLES[study.name], study.full, study.measured
    rows = []
    if study.name == "locomo":
        for k, aim in AIMS.items():
            value, (low, high) = float(full.recall[k].mean()), interval(full.recall[k])
            cosine = f"cosine {found[REFERENCES[0]].recall[k].mean():.1f}, RRF {found[REFERENCES[2]].recall[k].mean():.1f}"
            rows.append(Row(f"{title}: R@{k}", f"{value:.2f} [{low:.1f}, {high:.1f}]", cosine, f">= {aim:g}", value >= aim))
        for earlier, way in pairwise(WAYS):
            more = gain(found[way.name], found[earlier.name], 10)
            reference = f"{earlier.name} {found[earlier.name].recall[10].mean():.1f}"
            rows.append(Row(f"{title}: R@10 of {way.name}", str(more), reference, "interval above 0", more.helps))
    for before in (REFERENCES[0], REFERENCES[2]):
        more = gain(full, found[before], 10)
        reference = f"{before} {found[before].recall[10].mean():.1f}"
        rows.append(Row(f"{title}: R@10 over {before.split(',')[0]}", str(more), reference, "interval above 0", more.helps))
    if study.left_out is not None:
        left = study.left_out
        what = f"R@10 {left.left_out:.2f} with the weights best on the other conversations"
        rows.append(Row(f"{title}: leave one conversation out", what, f"{left.shipped:.2f} as shipped", "<= 1 point", left.apart <= APART))
    return rows


def _ablation(study: Study) -> Table:
    rows, before = [], study.measured[REFERENCES[0]]
    for name in (*REFERENCES, *(way.name for way in WAYS)):
        measured = study.measured[name]
        gains = ("", "") if name in REFERENCES else (str(gain(measured, before, 10)), str(gain(measured, before, 5)))
        rows.append((name, *(f"{value:.2f}" for value in measured.means()), *gains))
        before = before if name in REFERENCES else measured
    talks = study.asked.talks
    count, turns = len(study.asked.categories), sum(len(talk.turns) for talk in talks)
    note = f"""{len(talks)} conversations, {turns:,} memories, {count:,} questions. Gains are over the row before; the first row through the
API over cosine in numpy."""
    return Table(f"Rows: {TITLES[study.name]}", note, ("ranking", *MEANS, "gain of R@10", "gain of R@5"), rows)


def _categories(study: Study) -> Table:
    shown = (REFERENCES[0], REFERENCES[2], FAST, FULL)
    rows = []
    for category in sorted(set(study.asked.categories.tolist())):
        inside = study.asked.categories == category
        parts = [study.measured[name].part(inside) for name in shown]
        low, high = interval(parts[-1].recall[10])
        cells = [f"{each.recall[10].mean():.1f}" for each in parts]
        rows.append((category, str(int(inside.sum())), *cells, f"[{low:.1f}, {high:.1f}]", f"{parts[-1].recall[5].mean():.1f}"))
    head = ("category", "questions", *(f"R@10 {name}" for name in shown), "interval of full", "R@5 full")
    return Table(f"By category: {TITLES[study.name]}", "R@10 unless it says otherwise.", head, rows)


def _neighbours(study: Study) -> list[Table]:
    left = study.left_out
    if left is None:
        return []
    rows = [(talk.name, pick) for talk, pick in zip(study.asked.talks, left.picks, strict=True)]
    note = f"""Every weight halved and doubled, one at a time, beside the shipped ones. R@10 with the shipped weights {left.shipped:.2f};
with the best of these on all conversations {left.best:.2f}; each conversation with the best on the others {left.left_out:.2f}."""
    moved = [(name, f"{value:.2f}", f"{value - left.shipped:+.2f}") for name, value in left.all.items()]
    return [
        Table(f"Leave one out: {TITLES[study.name]}", note, ("left out", "best on the others"), rows),
        Table(f"Other weights: {TITLES[study.name]}", "One weight halved or doubled.", ("weights", "R@10", "to the shipped"), moved),
    ]


def tables(parts: Sequence[Part]) -> list[Shown]:
    """For the terminal."""
    shown = []
    for table in (table for part in parts for table in part.tables):
        made = Shown(*table.head, title=table.title, title_justify="left")
        for row in table.rows:
            made.add_row(*row)
        shown.append(made)
    return shown
