"""What the node profile `code` finds that `general` does not: `python -m tests.quality.recall.profiles [--stores N]`.

A suite of two copies, one of each profile, asked the same through the public API with `node_profile`: a set of names in code, where it
should help, and LoCoMo, where it should change little.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter
from pathlib import Path

from ndml.client import NdmlClient, Query
from ndml.language.kinds import kind_of
from ndml.testing import Suite, SuiteOptions
from tests.quality.recall.measures import DEPTH, Asked, Hits, gain
from tests.quality.recall.rows import Stored
from tests.quality.recall.sets import Conversation, SetName, load

os.environ.setdefault("OMP_NUM_THREADS", "1")
_PROFILES = ("general", "code")
_CALL_S = 300.0
_ROUNDS = 20


class Asking(Stored):
    """A conversation, searched at the copy of a profile."""

    def of_profile(self, profile: str) -> Hits:
        """DEPTH turns for each question, best first. A busy machine has searches hedged: what another copy answered is asked again. Raises
        NdmlError, AssertionError where that does not end."""
        queries = [Query(question.text, k=DEPTH, node_profile=profile) for question in self._talk.questions]
        with NdmlClient(self._address, user=self._talk.name, timeout_s=_CALL_S) as client:
            found = list(client.search_many(queries))
            for _ in range(_ROUNDS):
                elsewhere = [place for place, each in enumerate(found) if each.stats.node_profile != profile]
                for place, again in zip(elsewhere, client.search_many([queries[place] for place in elsewhere]), strict=True):
                    found[place] = again
        assert {each.stats.node_profile for each in found} == {profile}, "the copy of this profile did not answer everything"
        return [[self._at[hit.memory.trace_id] for hit in result] for result in found]


def measure(name: SetName, talks: list[Conversation], address: str) -> None:
    """Prints R@5, R@10 and MRR of both, the paired gain with its interval, and what the queries look like."""
    stored, asked = [Asking(address, talk) for talk in talks], Asked(talks)
    measured = {profile: asked.measure([each.of_profile(profile) for each in stored]) for profile in _PROFILES}
    for profile, found in measured.items():
        print(
            f"{name:8} {profile:8} R@5 {found.recall[5].mean():.2f}  R@10 {found.recall[10].mean():.2f}  MRR {found.reciprocal.mean():.2f}"
        )
        for category in sorted(set(asked.categories)):
            part = found.part(asked.categories == category)
            print(f"{'':17} {category:18} R@5 {part.recall[5].mean():.2f}  R@10 {part.recall[10].mean():.2f}")
    for k in (5, 10):
        more = gain(measured["code"], measured["general"], k)
        print(f"{name:8} code over general, R@{k}: {more.mean:+.2f} [{more.low:+.2f}, {more.high:+.2f}]")
    kinds = Counter((question.category, kind_of(question.text)) for talk in talks for question in talk.questions)
    print(f"{name:8} looks like: " + ", ".join(f"{category}: {kind} {count}" for (category, kind), count in sorted(kinds.items())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", type=int, default=3, help="of the set of names")
    parser.add_argument("--locomo", type=int, default=5, help="conversations of LoCoMo; 0: none")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = SuiteOptions(Path(folder), 1, 2, 1, 2, 2, profiles=_PROFILES, log_level="warning")
        with Suite(options) as suite:
            measure("symbols", load("symbols", given.stores), suite.grpc_address)
            if given.locomo:
                measure("locomo", load("locomo", given.locomo), suite.grpc_address)


if __name__ == "__main__":
    main()
