"""Sentences by a small grammar: [a|b|c] is one of several wordings, {name} a value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from random import Random

Forms = tuple[str, ...]
"""Names of one thing that share few words; the first is the usual one."""

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_VALUE = re.compile(r"\{(\w+)\}")
_IDENTIFIER = re.compile(r"\w+[_/]|ci-bot")


def say(random: Random, templates: Sequence[str], **values: str) -> str:
    """One wording of one template, its values filled in; begins with a capital letter unless it begins with a sign or an identifier.

    Raises KeyError for a value that is not given.
    """
    chosen = _CHOICE.sub(lambda match: random.choice(match[1].split("|")), random.choice(templates))
    text = re.sub(r" +([.,;?])", r"\1", " ".join(_VALUE.sub(lambda match: values[match[1]], chosen).split()))
    return text if _IDENTIFIER.match(text) else text[:1].upper() + text[1:]


def wordings(templates: Sequence[str]) -> int:
    """How many different sentences the templates give before values are filled in."""
    return sum(prod(choice.count("|") + 1 for choice in _CHOICE.findall(template)) for template in templates)


def other_form(random: Random, forms: Forms, told: str) -> str:
    """A name that is not the one that was used. Raises IndexError for a thing with one name."""
    return random.choice([form for form in forms if form != told])


class Deck:
    """Cards dealt in random order, each once before any comes again."""

    def __init__(self, random: Random, cards: Sequence[str]) -> None:
        self._random, self._cards, self._left = random, list(cards), list[str]()

    def deal(self) -> str:
        """The next card. Raises IndexError for an empty deck."""
        if not self._left:
            self._left = self._random.sample(self._cards, len(self._cards))
        return self._left.pop()
