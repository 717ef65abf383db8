"""What a sentence is about: names, quoted titles, e-mail addresses, links, numbers with what they count. Rules, no model.

A name is a run of words with capitals, where capitals mean something: not in a text that is all capitals, not the first word of a sentence
where that is a function word. Scripts without capitals give what is quoted, addresses and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ndml.btsp.salience import STOP_WORDS, word_set
from ndml.language.sentences import sentences

Kind = Literal["name", "quoted", "email", "url", "number"]

MOST_ENTITIES = 64
"""Entities of one text that are looked for: a pasted list of names need not become one memory's labels."""
_MOST_WORDS = 6  # of a name; a run of more capitals is a headline
_SHOUTED = 0.8  # share of the words in capitals from which capitals say nothing


@dataclass(frozen=True, slots=True)
class Entity:
    """text[start:end] names something."""

    start: int
    end: int
    text: str
    kind: Kind


_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_URL = re.compile(r"\b(?:https?://|www\.)[^\s<>\"']{1,2000}")
_QUOTED = re.compile(r"\"([^\"\n]{1,80})\"|“([^”\n]{1,80})”|«([^»\n]{1,80})»|„([^“”\n]{1,80})[“”]|「([^」\n]{1,80})」|『([^』\n]{1,80})』")
_UNITS = (
    "percent|per cent|years? old|years?|months?|weeks?|days?|hours?|minutes?|seconds?|euros?|dollars?|pounds?|yen|people|kids|children|"
    "miles?|kilometers|kilometres|meters|metres|degrees|times|kcal|calories|kg|km|cm|mm|mg|ml|mph|lbs?|ft|gb|mb|tb|kwh|g|m|l|h|°c|°f|°|"
    "%|€|£|\\$"
)
_NUMBER = re.compile(
    rf"(?:[$€£¥]\s?\d[\d.,]{{0,20}}|(?<![\w.,-])\d[\d.,]{{0,20}}(?:\s?-?(?:{_UNITS})(?!\w)|(?=[\s.,;:!?)]|\Z)))",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_][\w'’&-]{0,63}")
_INNER = word_set("of de da do del della di van von der den la le du dos the y e bin al ter zu")
# Capitals that name no thing: the speaker, days and months, which are dates, and words that open sentences.
_NO_NAME = STOP_WORDS | word_set(
    """i i'm i've i'd i'll ok okay yes no hi hello hey thanks thank please sorry well oh today tomorrow yesterday tonight monday tuesday
    wednesday thursday friday saturday sunday january february march april may june july august september october november december mr
    mrs ms dr prof let lets tell give show write call remember note actually maybe perhaps also remind don't never always everyone
    everybody nobody somebody someone something nothing everything yeah sure great there's he's she's it's they're you're we're that's"""
)


def entities(text: str) -> list[Entity]:
    """The entities in `text`, in order, without overlaps: an address before a number or name inside it. At most MOST_ENTITIES."""
    found: list[Entity] = []
    for pattern, kind in _PATTERNS:
        for match in pattern.finditer(text):
            group = match.lastindex or 0
            found.append(Entity(match.start(group), match.end(group), match.group(group), kind))
    found += _names(text)
    kept: list[Entity] = []
    for each in sorted(found, key=lambda e: (e.start, _RANK[e.kind], -e.end)):
        trimmed = _trimmed(each)
        if trimmed.text and (not kept or trimmed.start >= kept[-1].end):
            kept.append(trimmed)
        if len(kept) == MOST_ENTITIES:
            break
    return kept


_PATTERNS: tuple[tuple[re.Pattern[str], Kind], ...] = ((_EMAIL, "email"), (_URL, "url"), (_QUOTED, "quoted"), (_NUMBER, "number"))
_RANK: dict[Kind, int] = {"email": 0, "url": 1, "quoted": 2, "name": 3, "number": 4}


def _trimmed(entity: Entity) -> Entity:
    """Without the punctuation that ends the sentence it stands in."""
    if entity.kind == "quoted":
        return entity
    text = entity.text.rstrip(".,;:!?)'’\"-&")
    return Entity(entity.start, entity.start + len(text), text, entity.kind)


def _names(text: str) -> Iterator[Entity]:
    for span in sentences(text):
        words = list(_WORD.finditer(text, span.start, span.end))
        lettered = [word.group() for word in words if word.group()[0].isalpha()]
        if not lettered or sum(word.isupper() for word in lettered) >= max(2, _SHOUTED * len(lettered)):
            continue
        for run in _runs(text, words):
            if len(run) == 1 and run[0] is words[0] and len(words) > 1 and _opens(text, words):
                continue
            start, end = run[0].start(), _possessor(run[-1])
            yield Entity(start, end, text[start:end], "name")


def _runs(text: str, words: list[re.Match[str]]) -> Iterator[list[re.Match[str]]]:
    """Neighbouring words with capitals, and small ones that stand inside names."""
    run: list[re.Match[str]] = []
    for i, word in enumerate(words):
        beside = not run or text[run[-1].end() : word.start()] in (" ", ". ")
        if not beside:
            yield from _whole(run)
            run = []
        inside = run and word.group() in _INNER and i + 1 < len(words) and _is_capital(words[i + 1].group())
        if inside or _is_capital(word.group()):
            run.append(word)
        else:
            yield from _whole(run)
            run = []
        if run and word.group().endswith(("'s", "’s")):
            yield from _whole(run)
            run = []
    yield from _whole(run)


def _whole(run: list[re.Match[str]]) -> Iterator[list[re.Match[str]]]:
    while run and not _is_capital(run[-1].group()):
        run = run[:-1]
    if run and len(run) <= _MOST_WORDS:
        yield run


def _is_capital(word: str) -> bool:
    return (
        word[0].isupper()
        and word.casefold().replace("’", "'") not in _NO_NAME
        and (len(word) > 1 or not word.isascii() or word not in "AI")
    )


def _opens(text: str, words: list[re.Match[str]]) -> bool:
    """Whether the first word has its capital from the sentence: unless a verb or a possessive shows that somebody is named."""
    first, second = words[0].group(), words[1].group().casefold()
    named = first.endswith(("'s", "’s")) or second in _SAID_OF_NAMES or any(char.isupper() for char in first[1:])
    return not named


_SAID_OF_NAMES = word_set(
    """is was has had lives lived works worked said says told likes liked loves loved hates wants wanted went came moved bought got made
    can will would should and called gave plays studies speaks drives owns makes takes comes goes moves met"""
)


def _possessor(word: re.Match[str]) -> int:
    return word.end() - 2 if word.group().endswith(("'s", "’s")) else word.end()
