"""Whether SearchStats.confidence tells what will be found: `python -m tests.quality.recall.confidence [--conversations N] [--step N]`.

Every question is asked of its own store, and every third of another store of the same set, where nothing answers it. A search is right
where evidence is among the first ten hits. AUC: how often a search that is right has the higher confidence of a pair, .5 by chance.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ndml.client import NdmlClient, Query
from ndml.testing import Suite, SuiteOptions
from tests.quality.recall.rows import Stored
from tests.quality.recall.sets import Conversation, Question, SetName, load

os.environ.setdefault("OMP_NUM_THREADS", "1")
_SETS: tuple[SetName, ...] = ("locomo", "tasks", "reviews")
_CALL_S = 300.0
_BINS = 5
F64 = NDArray[np.float64]


class Asking(Stored):
    """A store that says how sure it was."""

    def sure(self, questions: Sequence[Question], *, own: bool) -> F64:
        """[n, 2] confidence, and 1 where evidence is among the first ten."""
        with NdmlClient(self._address, user=self._talk.name, timeout_s=_CALL_S) as client:
            answers = list(client.search_many([Query(question.text, k=10) for question in questions]))
        found = []
        for question, answer in zip(questions, answers, strict=True):
            places = {self._at[hit.memory.trace_id] for hit in answer}
            found.append((answer.stats.confidence or 0.0, float(own and bool(places & set(question.evidence)))))
        return np.array(found)


def auc(confidence: F64, right: F64) -> float:
    """Share of pairs, one right and one not, in which the right one has the higher confidence; half for equal ones."""
    yes, no = confidence[right > 0], confidence[right == 0]
    return float(np.mean((yes[:, None] > no) + 0.5 * (yes[:, None] == no))) if len(yes) and len(no) else float("nan")


def measure(name: SetName, talks: Sequence[Conversation], address: str) -> F64:
    """Prints AUC within the stores, with the questions of others, and of own against others'; gives all [n, 2]."""
    stored = [Asking(address, talk) for talk in talks]
    own = np.concatenate([each.sure(talk.questions, own=True) for each, talk in zip(stored, talks, strict=True)])
    others = [talks[(number + 1) % len(talks)].questions[::3] for number in range(len(talks))]
    foreign = np.concatenate([each.sure(asked, own=False) for each, asked in zip(stored, others, strict=True)])
    every = np.concatenate([own, foreign])
    whose = np.repeat([1.0, 0.0], [len(own), len(foreign)])
    of_own, of_all, of_whose = auc(own[:, 0], own[:, 1]), auc(every[:, 0], every[:, 1]), auc(every[:, 0], whose)
    print(f"{name:8} {len(own)} questions, {len(foreign)} of others, right {own[:, 1].mean():.2f} of the own")
    print(f"{'':8} AUC: right, own {of_own:.2f}; right, all {of_all:.2f}; own or others' {of_whose:.2f}")
    return every


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=2, help="of each set, at least 2")
    parser.add_argument("--step", type=int, default=1, help="ask every so manyth question of the generated sets")
    given = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder, Suite(SuiteOptions(Path(folder), 1, 1, 1, log_level="warning")) as suite:
        for name in _SETS:
            step = 1 if name == "locomo" else given.step
            talks = [replace(talk, questions=talk.questions[::step]) for talk in load(name, given.conversations)]
            found.append(measure(name, talks, suite.grpc_address))
    # Each set counts the same, however many questions it has.
    every, weights = np.concatenate(found), np.concatenate([np.full(len(each), 1 / len(each)) for each in found])
    for low in np.arange(_BINS) / _BINS:
        inside = (every[:, 0] >= low) & (every[:, 0] < low + 1 / _BINS)
        share = np.average(every[inside, 1], weights=weights[inside]) if inside.any() else float("nan")
        print(f"confidence {low:.1f} to {low + 1 / _BINS:.1f}: {inside.sum()} searches, right in {100 * share:.0f} %")


if __name__ == "__main__":
    main()
