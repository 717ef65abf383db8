"""The gate's decision: one row and many rows agree, and each region of the plane has its answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp.gate import Decision, GateThresholds, decide, decide_many, needs_search
from ndml.errors import FieldInvalid

AT = GateThresholds(novel=0.25, duplicate=0.95, related=0.8, distant=0.5)
maybe = st.one_of(st.none(), st.just(math.nan), st.floats(0, 1, width=32), st.sampled_from([0.25, 0.5, 0.8, 0.95, -1.0]))
rows = st.lists(st.tuples(maybe, maybe, st.booleans()), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("familiarity", "nearest", "contradicts", "expected", "reason"),
    [
        (0.1, None, False, Decision.NOVEL, "familiarity 0.100 < 0.250"),
        (0.1, 0.99, True, Decision.NOVEL, "familiarity 0.100 < 0.250"),
        (0.4, 0.3, False, Decision.NOVEL, "nearest cosine 0.300 < 0.50"),
        (0.4, 0.99, False, Decision.DUPLICATE, "0.990 >= 0.95"),
        # One digit exchanged leaves a cosine of .98: a contradiction is never thrown away as a duplicate.
        (0.4, 0.99, True, Decision.UPDATE, "it contradicts"),
        (0.4, 0.85, True, Decision.UPDATE, "it contradicts"),
        (0.4, 0.85, False, Decision.RELATED, "about the same thing"),
        (0.4, 0.6, True, Decision.RELATED, "contradicts, but below 0.80"),
        (0.4, 0.6, False, Decision.RELATED, "between 0.50 and 0.95"),
        (None, 0.3, False, Decision.NOVEL, "nearest cosine 0.300"),
        (None, 0.96, False, Decision.DUPLICATE, "no contradiction"),
        (None, None, False, Decision.NOVEL, "nothing is stored"),
        (math.nan, math.nan, False, Decision.NOVEL, "nothing is stored"),
        (0.4, None, True, Decision.NOVEL, "nothing is stored"),
    ],
)
def test_each_region(familiarity: float | None, nearest: float | None, contradicts: bool, expected: Decision, reason: str) -> None:
    verdict = decide(familiarity, nearest, contradicts, AT)
    assert verdict.decision is expected
    assert reason in verdict.reason


@settings(max_examples=100, deadline=None)
@given(rows)
def test_one_row_and_many_rows_agree(cases: list[tuple[float | None, float | None, bool]]) -> None:
    familiarity, nearest = (np.array([np.nan if case[i] is None else case[i] for case in cases], np.float32) for i in (0, 1))
    together = decide_many(familiarity, nearest, np.array([case[2] for case in cases]), AT)
    assert together.tolist() == [decide(*case, AT).decision for case in cases]


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1), st.floats(-1, 1), st.booleans())
def test_a_row_that_needs_no_search_ignores_its_result(familiarity: float, nearest: float, contradicts: bool) -> None:
    if not needs_search(np.array([familiarity], np.float32), AT)[0]:
        assert decide(familiarity, nearest, contradicts, AT) == decide(familiarity, None, False, AT)


@pytest.mark.parametrize("wrong", [{"novel": -0.1}, {"novel": math.nan}, {"novel": 0.3, "related": 0.96}, {"novel": 0.3, "distant": 0.9}])
def test_thresholds_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(FieldInvalid, match=r"novel|distant"):
        GateThresholds(**wrong)
