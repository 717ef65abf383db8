"""Search over a store after consolidation: semantic traces in place of their members, or beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ndml.btsp import consolidation
from ndml.btsp.consolidation import ConsolidationOptions, Contradiction, Episodes, SemanticTrace
from tests.quality.embedded import Embedded
from tests.quality.ranking import F64, Bench, Recalls, Scores, ranked, recalls_of

HITS = 10


@dataclass(frozen=True, slots=True)
class Merged:
    """Recall, number of semantic traces, and mean bytes of text in ten hits."""

    recalls: Recalls
    merges: int
    bytes_of_ten: float


@dataclass(frozen=True, slots=True)
class _Unit:
    """One entry of the index: the turns that a hit shows, the length of its text."""

    rows: list[int]
    size: int


def merged(
    bench: Bench, base: Scores, weight: float, options: ConsolidationOptions, judge: Contradiction, *, beside: bool = False
) -> Merged:
    """A hit on a semantic trace shows its members, and ten different turns are taken in all. `beside`: members are found alone too.

    `base` are the scores of the turns, `weight` that of salience in them: a semantic trace has the salience of its richest member.
    """
    shown, sizes, merges = [], [], 0
    for talk, matrix, salience in zip(bench.talks, base, bench.salience, strict=True):
        traces = _plan(talk, salience, options, judge)
        units, scores = _index(talk, matrix, salience, traces, weight, beside)
        hits = ranked(scores)[:, :HITS].tolist()
        shown.append([list(dict.fromkeys(row for unit in found for row in units[unit].rows))[:HITS] for found in hits])
        sizes += [sum(units[unit].size for unit in found) for found in hits]
        merges += len(traces)
    return Merged(recalls_of(bench.talks, shown), merges, float(np.mean(sizes)))


def _plan(talk: Embedded, salience: F64, options: ConsolidationOptions, judge: Contradiction) -> list[SemanticTrace]:
    ids = [row.to_bytes(16, "big") for row in range(len(talk.turns))]
    plan = consolidation.plan(Episodes(ids, [turn.text for turn in talk.talk.turns], talk.turns, salience), options, judge)
    return [cluster.semantic for cluster in plan if cluster.semantic]


def _index(
    talk: Embedded, matrix: F64, salience: F64, traces: Sequence[SemanticTrace], weight: float, beside: bool
) -> tuple[list[_Unit], F64]:
    """Units and their scores [q, units]."""
    members = [[int.from_bytes(member, "big") for member in trace.members] for trace in traces]
    gone = set() if beside else {row for rows in members for row in rows}
    alone = [row for row in range(len(talk.turns)) if row not in gone]
    units = [_Unit([row], len(talk.talk.turns[row].text.encode())) for row in alone]
    units += [_Unit(rows, len(trace.text.encode())) for rows, trace in zip(members, traces, strict=True)]
    scores = matrix[:, alone]
    if traces:
        prior = np.array([salience[rows].max() for rows in members])
        theirs = talk.questions @ np.stack([trace.vector for trace in traces]).T + weight * prior
        scores = np.concatenate([scores, theirs], axis=1)
    return units, scores
