"""What is linked as a cause is one: precision on the sets that know, which decides whether `gate.causes` is on by default."""

from __future__ import annotations

import pytest

from tests.quality.causes import measured
from tests.quality.recall.sets import SetName, load


@pytest.mark.parametrize("name", ["tasks", "reviews"])
def test_nine_in_ten_that_are_found_are_right(name: SetName) -> None:
    figures = measured(load(name, 2))
    assert figures.found >= 10 and figures.precision >= 0.9
    assert figures.recall >= 0.1
