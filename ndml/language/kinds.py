"""What kind of question a query looks like, by rules: which node profile suits it where an owner's copies have different ones."""

from __future__ import annotations

import re
from typing import Literal

from ndml.language.identifiers import like_code

Kind = Literal["general", "code", "factual", "conversational"]

_READ = 4096
"""Characters of a query that are looked at."""
_ASKS_A_FACT = re.compile(
    r"\s*(?:(?:in|on|at|by|for|with|from|to|of|since)\s+)?"
    r"(?:who|whom|whose|when|where|which|what|how\s+(?:many|much|old|long|often|far))\b",
    re.IGNORECASE,
)
_ADDRESSED = re.compile(
    r"\b(?:you|your|yours|yourself|we|us|our|ours|let's)\b|^\s*(?:hi|hello|hey|thanks|thank|yes|no|ok|okay|sure|well)\b", re.IGNORECASE
)


def kind_of(text: str) -> Kind:
    """`code` where it names things as code does; `factual` where it begins by asking for a person, time, place, thing or number;
    `conversational` where it speaks to somebody or asks nothing; else `general`. Reads the beginning of `text`.
    """
    beginning = text[:_READ]
    if like_code(beginning):
        return "code"
    if _ADDRESSED.search(beginning):
        return "conversational"
    if _ASKS_A_FACT.match(beginning):
        return "factual"
    return "general" if "?" in beginning else "conversational"
