"""The acceptance tests that take a few seconds; the long ones run by `make eval-science`."""

from __future__ import annotations

import pytest

from tests.quality.science.__main__ import Check, checks

FAST = dict(checks(fast=True))


@pytest.mark.parametrize("name", FAST)
def test_ours_agrees_with_the_source(name: str) -> None:
    check: Check = FAST[name]
    rows = check()
    assert rows, "a check without rows checks nothing"
    assert [row for row in rows if not row.passed] == []
