"""How many of the facts that hold of a simulated user their profile has, and how many of its properties hold.

python -m tests.quality.profiles [--people N]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

from ndml.btsp.profile import Stated, profile
from tests.quality.changing import Person, people


class Figures(NamedTuple):
    """Facts of all users; properties about the users themselves; of those: true now, and once true."""

    facts: int
    shown: int
    right: int
    stale: int


def measured(persons: Sequence[Person]) -> Figures:
    facts = shown = right = stale = 0
    for person in persons:
        now = {each.fact: each.value for each in sorted(person.statements, key=lambda each: each.said_at) if each.fact}
        facts += len(now)
        stated = [Stated(str(i), "", each.text, int(each.said_at.timestamp())) for i, each in enumerate(person.statements)]
        held = set()
        for found in profile(stated):
            said = person.statements[int(found.trace_id)]
            if found.whose:
                continue  # somebody else's
            shown += 1
            stale += bool(said.fact) and now[said.fact] != said.value
            if said.fact and now[said.fact] == said.value:
                held.add(said.fact)
                right += 1
    return Figures(facts, shown, right, stale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=20)
    found = measured(people(parser.parse_args().people))
    print(
        f"{found.facts} facts; {found.shown} properties, {found.right} of them hold, {found.stale} held once: "
        f"precision {found.right / max(1, found.shown):.3f}, {found.right / max(1, found.facts):.3f} properties that hold a fact"
    )


if __name__ == "__main__":
    main()
