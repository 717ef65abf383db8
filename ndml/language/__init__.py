"""Reading plain text by rules, without a model: sentences, statements worth keeping, what they name, when it was. Pure.

Nothing here raises for any text, and time is linear in its length. English is what most words of the rules are from; marks, numbers and
scripts work everywhere.
"""

from ndml.language.dates import DateSpan, dates
from ndml.language.entities import Entity, entities
from ndml.language.facts import Fact, Facts, facts
from ndml.language.sentences import Span, sentences
from ndml.language.statements import asks_about_the_past, is_question, states_something
from ndml.language.told import Statement, Told, packed, statement, told

__all__ = [
    "DateSpan",
    "Entity",
    "Fact",
    "Facts",
    "Span",
    "Statement",
    "Told",
    "asks_about_the_past",
    "dates",
    "entities",
    "facts",
    "is_question",
    "packed",
    "sentences",
    "statement",
    "states_something",
    "told",
]
