"""AT-3a: what a bounded index keeps when the least salient go first, and what that costs a search."""

from __future__ import annotations

from collections.abc import Callable

from tests.quality.bounded import resident
from tests.quality.embedded import locomo
from tests.quality.locomo import DATA
from tests.quality.ranking import Bench, only, recalls
from tests.quality.science.rows import Row

HALF = 0.5
SALIENCE_WEIGHT = 0.8
"""Of salience 0..1 beside the cosine: .16 ln(1 + I) of science.md 8.2 with our cap, .16 * ln(201) = .85, rounded."""


def forgetting() -> list[Row]:
    """Half the capacity, one out at every overflow; the ranker is the same over the full index. No rows where LoCoMo is not there."""
    if not DATA.is_file():
        return []
    bench = Bench(locomo())
    ranker = bench.with_salience(SALIENCE_WEIGHT)
    salient, first = resident(bench, HALF, "salience"), resident(bench, HALF, "first in first out")
    kept, kept_first = bench.evidence_kept(salient), bench.evidence_kept(first)
    full = recalls(bench.talks, ranker)
    bounded = recalls(bench.talks, only(salient, ranker))
    lost = float(full.at10.mean() - bounded.at10.mean()) / 100
    return [
        Row("AT-3a", "evidence kept at 50 % by salience", ">= .78 (.803)", f"{kept:.3f}", kept >= 0.78),
        Row("AT-3a", "evidence kept at 50 % first in first out", ".50", f"{kept_first:.3f}", abs(kept_first - 0.5) <= 0.05),
        Row("AT-3a", "R@10 lost at 50 %, the same ranker", "<= .05 (.034)", f"{lost:.3f}", lost <= 0.05),
    ]


CHECKS: tuple[Callable[[], list[Row]], ...] = (forgetting,)
FAST: tuple[Callable[[], list[Row]], ...] = ()
