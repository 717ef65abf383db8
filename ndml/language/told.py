"""What becomes of what was said: statements in words of one line, at most so many of them, and the labels under which they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from ndml.language.dates import dates
from ndml.language.entities import entities
from ndml.language.facts import Fact, facts, weight

_LABEL_BYTES = 1024  # of a metadata value, as types.proto says


@dataclass(frozen=True, slots=True)
class Statement:
    """What is to be remembered, what it is about, and how much it matters by its words, 0 to 1."""

    text: str
    entities: tuple[str, ...]
    dates: tuple[str, ...]
    weight: float

    @property
    def labels(self) -> dict[str, str]:
        """What it is about, under the names "entities" and "dates"."""
        listed = {"entities": _listed(self.entities), "dates": _listed(self.dates)}
        return {label: text for label, text in listed.items() if text}


@dataclass(frozen=True, slots=True)
class Told:
    """Statements in the order in which they were said, and how many sentences state nothing."""

    statements: tuple[Statement, ...] = ()
    ignored: int = 0


def told(text: str, said: date) -> Told:
    """What the rules find in a text that was said on the day `said`."""
    found = facts(text, said)
    return Told(tuple(_of_fact(fact) for fact in found.kept), found.left_out)


def statement(text: str, said: date) -> Statement:
    """A text that is known to be a statement."""
    named, dated = tuple(entities(text)), tuple(dates(text, said))
    return Statement(text, tuple(e.text for e in named), tuple(d.iso for d in dated), weight(text, named, dated))


def packed(statements: Sequence[Statement], most: int) -> list[Statement]:
    """At most `most`: where there are more, neighbours are joined, as evenly as can be."""
    if len(statements) <= most:
        return list(statements)
    cuts = [i * len(statements) // most for i in range(most + 1)]
    return [_joined(statements[start:end]) for start, end in pairwise(cuts)]


def _of_fact(fact: Fact) -> Statement:
    text = " ".join(fact.text.split())
    return Statement(text, tuple(e.text for e in fact.entities), tuple(d.iso for d in fact.dates), fact.weight)


def _joined(statements: Sequence[Statement]) -> Statement:
    return Statement(
        " ".join(each.text for each in statements),
        tuple(name for each in statements for name in each.entities),
        tuple(day for each in statements for day in each.dates),
        max(each.weight for each in statements),
    )


def _listed(values: Sequence[str]) -> str:
    """Each once, joined by "; ", as many as fit into a label."""
    text = ""
    for value in dict.fromkeys(" ".join(value.split()) for value in values):
        longer = f"{text}; {value}" if text else value
        if len(longer.encode()) > _LABEL_BYTES:
            break
        text = longer
    return text
