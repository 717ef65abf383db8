"""How many of the causes that a set knows the rules of `ndml.language.causes` find, and how many of what they find is so.

python -m tests.quality.causes [--sets tasks,reviews] [--stores N] [--show]

A set knows its causes because it made them: what a failure came from, why something was chosen, why a line is as it is. On LoCoMo, which
knows none, `--show` prints what was found, for a reader to judge.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ndml.language.causes import LOOKED_BACK, Turn, causes
from tests.quality.recall.sets import SETS, Conversation, load


class Figures(NamedTuple):
    """Pairs of cause and effect: found, of those right, and how many there are in all."""

    found: int
    right: int
    known: int

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return self.right / self.known if self.known else 0.0


def found_in(store: Conversation) -> Iterator[tuple[int, int, str]]:
    """(position of the cause, of the effect, evidence), as the node would find them while the turns come in."""
    for place, turn in enumerate(store.turns):
        before = [i for i in range(max(0, place - 4 * LOOKED_BACK), place) if store.turns[i].session == turn.session][-LOOKED_BACK:]
        earlier = [Turn(store.turns[i].speaker, store.turns[i].text) for i in before]
        for each in causes(turn.speaker, turn.text, earlier.copy):
            other = before[each.place]
            yield (*((place, other) if each.explains else (other, place)), each.evidence)


def measured(stores: Sequence[Conversation]) -> Figures:
    pairs = [(store, (cause, effect)) for store in stores for cause, effect, _ in found_in(store)]
    return Figures(len(pairs), sum(pair in store.causes for store, pair in pairs), sum(len(store.causes) for store in stores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default="tasks,reviews", help=f"of {', '.join(SETS)}")
    parser.add_argument("--stores", type=int, default=10, help="of each set")
    parser.add_argument("--show", action="store_true", help="print every pair, the wrong ones marked where the set knows")
    given = parser.parse_args()
    for name in given.sets.split(","):
        stores = load(name, given.stores)
        if given.show:
            for store in stores:
                for cause, effect, _ in found_in(store):
                    mark = "?" if not store.causes else " " if (cause, effect) in store.causes else "x"
                    print(f"{mark} because {store.turns[cause].text[:160]!r}\n    so    {store.turns[effect].text[:160]!r}")
        figures, turns = measured(stores), sum(len(store.turns) for store in stores)
        print(
            f"{name}: {turns} turns, {figures.known} known; {figures.found} found, {figures.right} right: "
            f"precision {figures.precision:.3f}, recall {figures.recall:.3f}"
        )


if __name__ == "__main__":
    main()
