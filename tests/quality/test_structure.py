"""What is linked as a cause is one, which decides whether `gate.causes` is on by default; what a profile shows holds."""

from __future__ import annotations

import pytest

from tests.quality import profiles
from tests.quality.causes import measured
from tests.quality.changing import people
from tests.quality.recall.sets import SetName, load


@pytest.mark.parametrize("name", ["tasks", "reviews"])
def test_nine_in_ten_that_are_found_are_right(name: SetName) -> None:
    figures = measured(load(name, 2))
    assert figures.found >= 10 and figures.precision >= 0.9
    assert figures.recall >= 0.1


def test_nine_in_ten_properties_of_a_profile_hold() -> None:
    figures = profiles.measured(people(20))
    assert figures.shown >= 50 and figures.right >= 0.9 * figures.shown
    assert figures.right >= 0.25 * figures.facts
