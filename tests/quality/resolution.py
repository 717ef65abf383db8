"""Conflict resolution beside simpler rules: made-up conflicts, and contradictions made of LoCoMo's turns (evaluation only).

python -m tests.quality.resolution [--markdown docs/science/conflicts.md]
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ndml.crdt import resolve as resolving
from ndml.crdt.oscillator import simulate
from ndml.crdt.oscillator_native import fastest
from ndml.crdt.resolve import Conflict, ResolveOptions, Sibling, quantised, resolve
from ndml.language.sentences import spoken
from tests.quality.embedded import embed
from tests.quality.locomo import DATA, Turn, load
from tests.quality.ranking import paired

OPTIONS = ResolveOptions()
F64 = NDArray[np.float64]
WIDTH = 384
NOISE = 0.55
"""Of a restatement against what it restates: cosine .88, and .77 between two restatements."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A kind of conflict: honest siblings, over-confident outliers, whether these say the same, cosine of statements on one topic."""

    name: str
    honest: int
    outliers: int
    collude: bool = False
    topic: float = 0.0


SETTINGS = (
    Setting("3 honest, 1 outlier", 3, 1),
    Setting("3 honest, 2 outliers", 3, 2),
    Setting("3 honest, 2 outliers, same topic", 3, 2, topic=0.36),
    Setting("4 honest, 3 outliers, same topic", 4, 3, topic=0.25),
    Setting("3 honest, 2 colluding", 3, 2, collude=True),
    Setting("5 honest, 3 colluding, same topic", 5, 3, collude=True, topic=0.25),
)
JUDGED = SETTINGS[:3]
"""The scenario file of AT-4b: settings in which honest siblings can be told by agreement."""


@dataclass(frozen=True, slots=True)
class Case:
    """Siblings, the first `honest` of which say what is true."""

    siblings: tuple[Sibling, ...]
    honest: int


def made_up(setting: Setting, count: int, seed: int) -> list[Case]:
    """Random directions stand for statements; outliers claim high scores and late clocks."""
    random = np.random.default_rng([seed, setting.honest, setting.outliers, setting.collude, round(100 * setting.topic)])
    return [_made_up(setting, random) for _ in range(count)]


def _made_up(setting: Setting, random: np.random.Generator) -> Case:
    def direction() -> F64:
        drawn: F64 = random.normal(size=WIDTH)
        drawn /= np.linalg.norm(drawn)
        return drawn

    topic = direction()

    def statement() -> F64:
        return math.sqrt(setting.topic) * topic + math.sqrt(1 - setting.topic) * direction()

    true, lie = statement(), statement()
    said = [true] * setting.honest + [lie if setting.collude else statement() for _ in range(setting.outliers)]
    vectors = [one + NOISE * direction() for one in said]
    return Case(claimed(vectors, setting.honest, random), setting.honest)


def claimed(vectors: Sequence[NDArray[np.floating]], honest: int, random: np.random.Generator) -> tuple[Sibling, ...]:
    """Siblings of the vectors, in this order: scores 300 to 800 and earlier clocks for the honest, 800 to 1,000 and later for others."""
    found = []
    for at, vector in enumerate(vectors):
        scores, clocks = ((300, 800), (1, 1000)) if at < honest else ((800, 1000), (500, 1500))
        score, clock = int(random.integers(*scores)), int(random.integers(*clocks))
        found.append(Sibling(random.bytes(32), quantised(np.asarray(vector, "<f4").tobytes()), score, clock))
    return tuple(found)


Rule = Callable[[Conflict], int]
"""The rank of the content that the rule shows."""


def last_write(conflict: Conflict) -> int:
    return max(range(conflict.size), key=lambda i: (conflict.clocks[i], -i))


def best_score(conflict: Conflict) -> int:
    return max(range(conflict.size), key=lambda i: (conflict.scores[i], conflict.clocks[i], -i))


def medoid(conflict: Conflict) -> int:
    return conflict.medoid(range(conflict.size))


def heaviest_component(conflict: Conflict) -> int:
    """The medoid of the component with the largest sum of scores."""
    found = resolving.components(conflict.sim, OPTIONS)
    return conflict.medoid(max(found, key=lambda one: (conflict.weight(one.members), -min(one.members))).members)


def oscillators_alone(conflict: Conflict) -> int:
    """The scorer's choice among coalitions of phases; the medoid of all where the oscillation dies."""
    phases, period = simulate(conflict.sim[None], OPTIONS.oscillator, fastest())
    if not period[0]:
        return medoid(conflict)
    return resolving.decide(conflict, list(resolving.in_step(phases[0], int(period[0]), conflict.sim, OPTIONS)))[0]


RULES: Mapping[str, Rule] = {
    "last write": last_write,
    "best score": best_score,
    "medoid": medoid,
    "components": heaviest_component,
    "oscillators": oscillators_alone,
}
SHIPPED = "as shipped"


def honest_shown(cases: Sequence[Case]) -> dict[str, F64]:
    """For each rule, and for `resolve`: 1 where an honest sibling is shown, [cases]."""
    found: dict[str, list[bool]] = {name: [] for name in (*RULES, SHIPPED)}
    for case in cases:
        conflict = resolving.conflict_of(case.siblings, OPTIONS)
        for name, rule in RULES.items():
            found[name].append(conflict.places[rule(conflict)] < case.honest)
        found[SHIPPED].append(resolve(case.siblings).winner < case.honest)
    return {name: np.array(each, np.float64) for name, each in found.items()}


_VALUES = [
    re.findall("[a-z]+", line)
    for line in (
        "monday tuesday wednesday thursday friday saturday sunday",
        "january february march april june july august september october november december",
        "two three four five six seven eight nine ten",
        "morning afternoon evening night",
        "yesterday today tomorrow",
    )
]
_SWAPS = {word: [other for other in words if other != word] for words in _VALUES for word in words}
_DROPPED = 0.15
"""Of a restatement's words; no writer repeats another's sentence to the letter."""


def contradictions(kind: str, honest: int, outliers: int, count: int, seed: int) -> list[Case]:
    """Concurrent edits of one LoCoMo turn. kind "another statement": outliers are other turns of its session; "another value": the
    turn itself with another weekday, month, number or time of day, each outlier its own."""
    random = np.random.default_rng([seed, honest, outliers])
    turns = [(turn, talk.turns) for talk in load() for turn in talk.turns if _swappable(turn.text)]
    texts = list[str]()
    for pick in random.permutation(len(turns))[:count]:
        turn, around = turns[pick]
        others = _other_turns(turn, around, random) if kind == "another statement" else _other_values(turn, random)
        said = [turn] * honest + others[:outliers]
        assert len(said) == honest + outliers, "every turn has enough contradictions"
        texts += [spoken(one.speaker, _restated(one.text, random)) for one in said]
    vectors = embed(texts).reshape(-1, honest + outliers, WIDTH)
    return [Case(claimed(list(each), honest, random), honest) for each in vectors]


def _swappable(text: str) -> list[str]:
    return [word for word in re.findall("[a-z]+", text.lower()) if word in _SWAPS]


def _other_values(turn: Turn, random: np.random.Generator) -> list[Turn]:
    word = str(random.choice(_swappable(turn.text)))
    swapped = [re.sub(rf"\b{word}\b", other, turn.text, flags=re.IGNORECASE) for other in random.permutation(_SWAPS[word])]
    return [Turn(turn.dia_id, turn.session, turn.speaker, text, turn.said_at) for text in swapped]


def _other_turns(turn: Turn, around: Sequence[Turn], random: np.random.Generator) -> list[Turn]:
    same = [each for each in around if each.session == turn.session and each.dia_id != turn.dia_id]
    return [same[i] for i in random.permutation(len(same))]


def _restated(text: str, random: np.random.Generator) -> str:
    """The text without some of its words, never a value that could contradict."""
    words = text.split()
    kept = [word for word in words if _swappable(word) or random.random() >= _DROPPED]
    return " ".join(kept or words)


def tables(count: int, seed: int) -> Iterator[tuple[str, dict[str, F64]]]:
    """(row, what `honest_shown` gives) for made-up conflicts, and for LoCoMo's where it is there."""
    for setting in SETTINGS:
        yield setting.name, honest_shown(made_up(setting, count, seed))
    if DATA.is_file():
        for kind in ("another statement", "another value"):
            for outliers in (1, 2):
                cases = contradictions(kind, 3, outliers, count, seed)
                yield f"LoCoMo: 3 restated, {outliers} {kind}{'s' if outliers > 1 else ''}", honest_shown(cases)


def markdown(rows: Sequence[tuple[str, dict[str, F64]]]) -> str:
    """The table, and the difference between what ships and components over all rows."""
    names = list(rows[0][1])
    lines = [f"| an honest content is shown | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    lines += [f"| {row} | " + " | ".join(f"{shown[name].mean():.3f}" for name in names) + " |" for row, shown in rows]
    ours, theirs = (np.concatenate([shown[name] for _, shown in rows]) for name in (SHIPPED, "components"))
    gain = paired(100 * ours, 100 * theirs)
    return "\n".join([*lines, "", f"As shipped over components, all {len(ours):,} conflicts: {gain} points."])


BEGIN, END = "<!-- measured -->", "<!-- /measured -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="conflicts a row")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--markdown", type=Path, help="page whose table is written anew, between its marks")
    asked = parser.parse_args()
    table = markdown(list(tables(asked.count, asked.seed)))
    print(table)
    if asked.markdown:
        before, _, rest = asked.markdown.read_text().partition(BEGIN)
        asked.markdown.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
