"""The rows of the ablation, and the table, page and picture made of them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.quality.novelty import NoveltyLine
from tests.quality.ranking import Gain
from tests.quality.science.plots import BLACK, BLUE, GREY, ORANGE, STYLE


@dataclass(frozen=True, slots=True)
class Line:
    """What was added, recall in percent, gain of R@10 and R@5 over the row it is compared with, and what follows."""

    group: str
    mechanism: str
    recall_at_5: float
    recall_at_10: float
    against: str
    gain: Gain | None
    gain_at_5: Gain | None
    weights: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Cost:
    """A weight of salience: gain of R@10 on questions, and what becomes of turns that are looked for in their own words."""

    weight: float
    gain: Gain
    first: float
    """Restatements, percent, that find their turn before all others."""
    change: Gain


@dataclass
class Report:
    """Everything that was measured."""

    lines: list[Line] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    novelty: list[NoveltyLine] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def salience_default(self) -> float:
        """The largest weight of salience with which known items are found first at least as often as without; 0 where there is none."""
        return max((cost.weight for cost in self.costs if cost.change.mean >= 0), default=0.0)


LINE_HEAD = ("mechanism", "R@5", "R@10", "gain of R@10", "gain of R@5", "over", "weight x conversations", "verdict")
COST_HEAD = ("weight of salience", "gain of R@10 on questions", "own words find it first", "change")
NOVELTY_HEAD = ("new or known, by", "AUC", "gain of AUC", "over", "new without search at 2 % of known missed")


def line_cells(line: Line) -> list[str]:
    """One line under LINE_HEAD."""
    recall = [f"{line.recall_at_5:.2f}", f"{line.recall_at_10:.2f}"]
    gains = [str(gain) if gain else "" for gain in (line.gain, line.gain_at_5)]
    return [line.mechanism, *recall, *gains, line.against, line.weights, line.verdict]


def cost_cells(cost: Cost) -> list[str]:
    """One weight under COST_HEAD."""
    return [f"{cost.weight:g}", str(cost.gain), f"{cost.first:.2f}", str(cost.change)]


def novelty_cells(line: NoveltyLine) -> list[str]:
    """One way under NOVELTY_HEAD."""
    gain = "" if line.gain is None else f"{line.gain.mean:+.4f} [{line.gain.low:+.4f}, {line.gain.high:+.4f}]"
    return [line.way, f"{line.auc:.4f}", gain, line.against, f"{line.skipped:.1%}"]


def tables(report: Report) -> Iterator[Table]:
    """For the terminal."""
    for group, lines in groupby(report.lines, lambda line: line.group):
        yield _table(group, LINE_HEAD, map(line_cells, lines))
    yield _table("Salience: what a weight costs", COST_HEAD, map(cost_cells, report.costs))
    yield _table("New or known", NOVELTY_HEAD, map(novelty_cells, report.novelty))


def _table(title: str, head: Sequence[str], rows: Iterator[list[str]]) -> Table:
    made = Table(*head, title=title, title_justify="left")
    for row in rows:
        made.add_row(*row)
    return made


def markdown(report: Report) -> str:
    """The page of the docs."""
    parts = [_ABOVE]
    for group, lines in groupby(report.lines, lambda line: line.group):
        parts.append(f"### {group}\n\n{_markdown_table(LINE_HEAD, map(line_cells, lines))}")
    default = f"So the default that this page recommends is **{report.salience_default:g}**."
    parts.append(f"{_COSTS}\n\n{_markdown_table(COST_HEAD, map(cost_cells, report.costs))}\n\n{default}")
    parts.append(f"{_NOVELTY}\n\n{_markdown_table(NOVELTY_HEAD, map(novelty_cells, report.novelty))}")
    parts.append("## Beside the tables\n\n" + "\n".join(f"- {note}" for note in report.notes))
    parts.append(_BELOW)
    return "\n\n".join(parts) + "\n"


def _markdown_table(head: Sequence[str], rows: Iterator[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(head), ["---"] * len(head), *rows])


def bars(lines: Sequence[Line], path: Path) -> None:
    """Gains of R@10 with their intervals, additions above costs of room and merging; the same bytes for the same lines."""
    importlib.import_module("matplotlib").use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    shown = [line for line in lines if line.gain is not None]
    small = [line for line in shown if not line.group.startswith(("Forgetting: room for 75", "Forgetting: room for 25", "Consolidation"))]
    additions = [line for line in small if not line.group.startswith("Forgetting")]
    costs = [line for line in shown if line not in additions]
    with pyplot.rc_context({**STYLE, "svg.hashsalt": "ndml", "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(2, 1, figsize=(9, 11), layout="constrained", height_ratios=[len(additions) + 2, len(costs) + 2])
        _panel(axes[0], additions, "What each addition changes, against the row that it builds on")
        _panel(axes[1], costs, "What room and merging cost")
        axes[1].set_xlabel("points of R@10 on LoCoMo, 95 % interval by paired bootstrap; grey where it holds 0")
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


def _panel(axes: Any, lines: Sequence[Line], title: str) -> None:
    places = list(range(len(lines)))[::-1]
    for place, line in zip(places, lines, strict=True):
        gain = line.gain
        assert gain is not None
        colour = BLUE if gain.helps else ORANGE if gain.harms else GREY
        axes.barh(place, gain.mean, color=colour, height=0.65)
        axes.plot([gain.low, gain.high], [place, place], color=BLACK, linewidth=1)
    axes.set_yticks(places, [_label(line) for line in lines], fontsize=7)
    axes.axvline(0, color=BLACK, linewidth=0.7)
    axes.set(title=title, ylim=(-0.8, len(lines) - 0.2))
    axes.grid(axis="y", visible=False)


def _label(line: Line) -> str:
    """The group only where mechanisms of several have the same names."""
    head, _, rest = line.group.partition(": ")
    share = re.search(r"\d+%", rest)
    where = f"{share[0]} room: " if share else f"{'beside' if 'beside' in rest else 'merge'} " if head == "Consolidation" else ""
    return f"{where}{line.mechanism.split(' (')[0]}, over {line.against}"


_ABOVE = """# What each mechanism adds to recall

Written by `make eval-ablation`, in a minute or two. LoCoMo's development part (five conversations, 2,760 turns, 997 questions with
evidence), plain dense search with all-MiniLM-L6-v2 as the base, evidence recall in percent. Intervals: 95 %, paired bootstrap over
questions. Weights are chosen for each conversation on the other four. A mechanism has to beat the row that it is compared with, not
plain cosine; one that does not is **off by default**.

![Gains of R@10 with their intervals](img/ablation.svg)

**Grades are simulated**, for want of recorded feedback: the questions of a conversation are asked in random order, an hour apart,
after its last session; a question is ranked with the state left by those before it, then the evidence turns among the ten shown are
graded 1. Nothing of a question is known before it has been ranked. Nobody in this simulation errs, forgets to grade, or comes back to
what he asked yesterday.

## Rows"""
_COSTS = """## What a weight of salience costs

On questions a weight around .5 is best. But salience is mostly length, and a weight that is large beside the differences of cosines puts
long turns before the one that was meant. The control: every turn is looked for in its own words, three in ten missing. The default is the
largest weight with which these find their turn first at least as often as without it."""
_NOVELTY = """## The write gate: new or known

Each conversation in turn is new to a store of the other four; restatements of what is stored are known. Means over the five. The
seed's rule is measured without the untrained network that it added to the cosine."""
_BELOW = """## How to read it

- **Salience** earns its place in ranking, but not over the length of the turn: in ten hits they cannot be told apart, in five length is
  a point better. We use salience because it also leads forgetting, and because anybody who writes much has length for nothing. The
  rows take the weight that is best on the other conversations; the default is smaller, for the reason in the section on what it costs,
  and was chosen on this same data.
- **Strength** does not help the ranking here, by encoding, by graded use, or by credit to neighbours, which can only move strength. A
  turn that was cited before is wanted again more often than others that are shown (the note above), but the ranking gains nothing by
  knowing it. LoCoMo asks most things once, an assistant's user does not. Strength stays out of ranking until data with recurring
  needs shows otherwise.
- **Forgetting** never improves recall. It bounds memory; by salience it costs a fraction of what random choice or first in, first out
  cost. There strength does help: a little by age alone, more by graded use. What an answer cited outlives what is as salient.
- **Consolidation** in place of the members, unfolded into the same ten turns, is its hardest test. With candidates from the gate's
  `related` it costs nothing measurable; below that it costs much, and the rule that a cluster must predict its members saves part of
  it. Members that stay findable beside the semantic trace, as in the service, do not change this: the merged vector takes places in
  the ten turns.
- All of it stands on dense search. On a ranking that is already better, each has to show its gain again."""
