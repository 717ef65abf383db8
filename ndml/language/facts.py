"""What a text tells that is worth keeping: its statements, each with what and when it is about, and how much it matters by its words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from ndml.language.dates import DateSpan, dates
from ndml.language.entities import Entity, entities
from ndml.language.sentences import Span, sentences
from ndml.language.statements import states_something

_JOINED_CHARS = 400  # a statement with the sentences that lean on it stays one thought, not a page
_LEANING = re.compile(
    r"(?:and |but |so |also,? )?"
    r"(?:he|she|they|it|his|her|hers|their|theirs|its|him|them|this|that|these|those|there|the same|both)\b",
    re.IGNORECASE,
)
_STRESSED = re.compile(
    r"\b(?:remember|important|don['’]t forget|never|always|allerg\w+|must|hate|love|favou?rite|birthday|password|code|address|phone|"
    r"name(?:d)?|called|married|born|died|pregnant|moved|quit|hired|doctor|medicine|medication|diabet\w+|vegan|vegetarian)\b",
    re.IGNORECASE,
)
_SPEAKER = re.compile(r"\b(?:i|me|my|mine|we|us|our|ours|i['’]\w+|we['’]\w+)\b", re.IGNORECASE)
# As large together as what the words of a long turn tell (ndml.btsp.salience): ranking weighs both alike.
_BASE, _OF_SPEAKER, _PARTICULAR, _DATED, _WITH_STRESS = 0.2, 0.1, 0.1, 0.05, 0.1


@dataclass(frozen=True, slots=True)
class Fact:
    """A statement: text[start:end] is `text`. weight: 0 to 1, by its words alone."""

    start: int
    end: int
    text: str
    entities: tuple[Entity, ...]
    dates: tuple[DateSpan, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class Facts:
    """The statements of a text in order, and how many of its sentences state nothing."""

    kept: tuple[Fact, ...] = ()
    left_out: int = 0


def facts(text: str, said: date) -> Facts:
    """What `text`, said on the day `said`, states. Positions in `entities` and `dates` count from the start of their fact."""
    kept: list[Span] = []
    left_out, adjacent = 0, False
    for span in sentences(text):
        states = states_something(span.text)
        if states and adjacent and _LEANING.match(span.text) and span.end - kept[-1].start <= _JOINED_CHARS:
            # "She lives in Rome" says nothing alone: it stays with the sentence that says who.
            start = kept.pop().start
            kept.append(Span(start, span.end, text[start : span.end]))
        elif states:
            kept.append(span)
        left_out += not states
        adjacent = states
    return Facts(tuple(_fact(span, said) for span in kept), left_out)


def _fact(span: Span, said: date) -> Fact:
    dated = tuple(dates(span.text, said))
    # The 3 of "3 March" is no number of anything.
    named = tuple(e for e in entities(span.text) if not any(d.start < e.end and e.start < d.end for d in dated))
    return Fact(span.start, span.end, span.text, named, dated, weight(span.text, named, dated))


def weight(text: str, named: tuple[Entity, ...], dated: tuple[DateSpan, ...]) -> float:
    """How much a statement matters as far as its words tell: about the speaker, something particular, a day, something that is stressed."""
    return (
        _BASE
        + _OF_SPEAKER * (_SPEAKER.search(text) is not None)
        + _PARTICULAR * bool(named)
        + _DATED * bool(dated)
        + _WITH_STRESS * (_STRESSED.search(text) is not None)
    )
