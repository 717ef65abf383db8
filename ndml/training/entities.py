"""Facts about entities that nobody has seen: the task by which reading memory is told from knowing. No torch here.

An entity is three syllables of forty, "ka lu mi"; a fact gives it a value in a relation. Memory holds "ka lu mi city -> amberton"; it is
asked for in the same form, "ka lu mi city ->", or in another, "ask city of ka lu mi ->". A fifth of all entities, chosen by a hash, is
never trained on. A model that has learned facts gains nothing here; one that has learned to read is right about what it met a moment ago.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from random import Random

import numpy as np

from ndml.fusion.readout import Entry, Floats, MemoryReadout
from ndml.training.config import EntityTask
from ndml.training.data import Ask, Episode

SYLLABLES = tuple(a + b for a, b in product("bdfgklmnrt", "aeiu"))  # 40
RELATIONS = ("city", "colour", "food", "job", "month", "sport", "tree", "tool", "song", "bird", "stone", "drink")
_HEADS = ("amber", "brisk", "cedar", "dusk", "ember", "frost", "grove", "hazel")
_TAILS = ("ton", "ley", "ham", "wick", "by", "ford", "mere", "stow", "holm", "dale")
VALUES = tuple(a + b for a, b in product(_HEADS, _TAILS))  # 80
ARROW, ASK, OF = "->", "ask", "of"
WORDS = (ARROW, ASK, OF, *SYLLABLES, *RELATIONS, *VALUES)
_AT = {word: at for at, word in enumerate(WORDS)}
SAME, OTHER = "same form", "paraphrase"
_PLACES = 8  # that its words are told apart by
VECTOR = 256  # components of the vectors that the projector is given

Entity = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Fact:
    entity: Entity
    relation: str
    value: str

    def text(self) -> str:
        """As memory holds it."""
        return f"{self.same()} {self.value}"

    def same(self) -> str:
        return f"{' '.join(self.entity)} {self.relation} {ARROW}"

    def other(self) -> str:
        return f"{ASK} {self.relation} {OF} {' '.join(self.entity)} {ARROW}"


def held_out(entity: Entity) -> bool:
    """Whether nobody may train on it: a fifth of all."""
    first, second, third = (SYLLABLES.index(part) for part in entity)
    return (first * 7 + second * 13 + third * 29) % 5 == 0


def facts(count: int, random: Random, new: bool | None) -> list[Fact]:
    """Of different subjects; `new`: of held-out entities only, or of the others; None: of any."""
    found: dict[tuple[Entity, str], Fact] = {}
    while len(found) < count:
        entity: Entity = (random.choice(SYLLABLES), random.choice(SYLLABLES), random.choice(SYLLABLES))
        if new is None or held_out(entity) == new:
            relation = random.choice(RELATIONS)
            found.setdefault((entity, relation), Fact(entity, relation, random.choice(VALUES)))
    return list(found.values())


def episode(known: Sequence[Fact], asked: Sequence[tuple[int, str]], vectors: bool = False) -> Episode:
    """Memory of the facts, and questions (which fact, in which form) about it."""
    entries = tuple(_entry(number, fact.text(), vectors) for number, fact in enumerate(known, 1))
    asks = (Ask(known[at].same() if form == SAME else known[at].other(), known[at].value, (at + 1,), form) for at, form in asked)
    return Episode(MemoryReadout(entries), tuple(asks))


def _entry(number: int, text: str, vectors: bool) -> Entry:
    return Entry(number, text, embedding=vector(text) if vectors else None)


def vector(text: str) -> Floats:
    """A sentence vector that says which word stands where: the sum of a fixed random one for each, of length 1."""
    words = text.split()
    total = np.sum([_codes()[_AT[word]] * _places()[at % _PLACES] for at, word in enumerate(words)], axis=0)
    return np.asarray(total / np.linalg.norm(total), np.float32)


def exchanged(given: Episode, random: Random) -> Episode:
    """The control: every key still there, each with the value of another."""
    texts = [e.text for e in given.readout.entries]
    keys, values = zip(*(text.rsplit(" ", 1) for text in texts), strict=True)
    turn = random.randrange(1, len(values)) if len(values) > 1 else 0
    moved = [f"{key} {value}" for key, value in zip(keys, (*values[turn:], *values[:turn]), strict=True)]
    entries = tuple(_entry(e.number, text, e.embedding is not None) for e, text in zip(given.readout.entries, moved, strict=True))
    return Episode(MemoryReadout(entries), tuple(replace(ask, used=()) for ask in given.asks))


class Entities:
    """Episodes written as the run goes on: no fact ever comes twice."""

    def __init__(self, task: EntityTask, seed: int, vectors: bool = False) -> None:
        """vectors: memories bring one each, which a projector needs."""
        self._task, self._seed, self._vectors = task, seed, vectors

    def batch(self, step: int, steps: int) -> Sequence[Episode]:
        random = Random(f"{self._seed}/learn/{step}")
        count = self._known(step / (steps * self._task.easy) if self._task.easy else 1.0)
        form = (SAME, OTHER)[step % 2]
        return [episode(facts(count, random, new=False), [(random.randrange(count), form) for _ in range(self._task.asks)], self._vectors)]

    def _known(self, share: float) -> int:
        """Facts in memory after this share of the easy steps."""
        first, facts = self._task.first, self._task.facts
        doublings = math.ceil(math.log2(facts / first))
        return min(facts, first << min(doublings, int(share * doublings)))

    def held_out(self, questions: int) -> Sequence[Episode]:
        return self.asked(self._task.facts, questions)

    def control(self, questions: int) -> Sequence[Episode]:
        return self.mixed(self.held_out(questions))

    def asked(self, count: int, questions: int, trial: int = 0) -> list[Episode]:
        """Memories of `count` facts about held-out entities; as many questions in either form, at most two of each fact in a memory."""
        episodes: list[Episode] = []
        while questions > 0:
            random = Random(f"{self._seed}/held out/{trial}/{len(episodes)}")
            each = min(count, -(-questions // 2))
            chosen = random.sample(range(count), each)
            asks = [(at, form) for at in chosen for form in (SAME, OTHER)][:questions]
            episodes.append(episode(facts(count, random, new=True), asks, self._vectors))
            questions -= len(episodes[-1].asks)
        return episodes

    def mixed(self, episodes: Sequence[Episode]) -> list[Episode]:
        """The control of each."""
        return [exchanged(each, Random(f"{self._seed}/exchanged/{at}")) for at, each in enumerate(episodes)]


@cache
def _codes() -> Floats:
    return np.random.default_rng(1).normal(size=(len(WORDS), VECTOR)).astype(np.float32)


@cache
def _places() -> Floats:
    return np.sign(np.random.default_rng(2).normal(size=(_PLACES, VECTOR))).astype(np.float32)
