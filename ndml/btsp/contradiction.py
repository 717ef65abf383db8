"""Does a new text say of the same thing something else than an old one? Rules, no model, and conservative: silence where they are unsure.

A contradiction never deletes: it makes the new trace a version that supersedes the old one, and keeps two traces from being merged. So a
missed one costs a stale answer beside the new one, a false one hides a true memory behind another: the rules lean towards missing.
The words that they know are English; numbers are understood in any language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from ndml.btsp.salience import STOP_WORDS, word_set
from ndml.btsp.slots import MANY, Slot, Slots, slots

_TOKEN = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_](?:[^\W_]|['’-](?=[^\W_]))*|(?<![.!?])[.!?]+(?=\s|$)")
# Without "one", which is a pronoun more often than a number.
_COUNTED = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
_TENS = "thirty forty fifty sixty seventy eighty ninety hundred"
_NUMBERS = {
    **{word: str(value) for value, word in enumerate(re.findall("[a-z]+", _COUNTED), 2)},
    **{word: str(10 * value) for value, word in enumerate(re.findall("[a-z]+", _TENS), 3)},
}
_DATES = word_set(
    """january february march april june july august september october november december jan feb mar apr jun jul aug sep sept oct nov dec
    monday tuesday wednesday thursday friday saturday sunday spring summer autumn winter morning noon afternoon evening"""
)
_NEGATION = re.compile(r"\b(?:not|never|cannot|nor|neither)\b|n['’]t\b|\bno\b(?!\s*[,.!?]|$)", re.IGNORECASE)
_CHANGE = re.compile(
    r"\b(?:no longer|any ?more|used to|moved|switched|changed|replaced|instead|quit|resigned|sold|cancell?ed|postponed|divorced|now)\b",
    re.IGNORECASE,
)
# With these a new value is told as new, beside words of change.
_NEWS = re.compile(r"\b(?:new|started|joined|became|become|from now on)\b", re.IGNORECASE)
# One more, beside one that there may be.
_ANOTHER = re.compile(r"\b(?:have|has|got) an? [\w' -]{1,40}? (?:called|named|whose name)\b", re.IGNORECASE)
_PERSONS = {
    **dict.fromkeys(word_set("i me my mine myself i'm i've i'd i'll we us our ours we're we've"), "speaker"),
    **dict.fromkeys(word_set("you your yours you're you've"), "listener"),
    **dict.fromkeys(word_set("he him his he's"), "he"),
    **dict.fromkeys(word_set("she her hers she's"), "she"),
    **dict.fromkeys(word_set("they them their they're"), "they"),
}
# Words that ask for one value at a time, by what they ask for: whoever moved to Munich no longer lives in Berlin.
_SINGLE = {
    **dict.fromkeys(word_set("live living lived moved moving relocated reside based home"), "=residence"),
    **dict.fromkeys(word_set("work working employed job hired employer"), "=employment"),
    **dict.fromkeys(word_set("born birthday birth"), "=birth"),
    **dict.fromkeys(word_set("name named called surname"), "=name"),
    **dict.fromkeys(word_set("favourite favorite"), "=favourite"),
    **dict.fromkeys(word_set("married fiance fiancee husband wife spouse girlfriend boyfriend partner"), "=partner"),
    **dict.fromkeys(word_set("phone email address password code"), "=address"),
}
_PARTNER = "=partner"
_ARTICLES = word_set("the a an this that these those")
_ENOUGH_SHARED = 0.6
"""Share of the content words of both that must agree before another value counts as another value of the same thing."""
_SAME_SHARED = 0.75
"""The same for a negation, which says little unless nearly all else is the same."""
_FEWEST_SHARED = 2
"""Content words that must agree: one alone is a topic, not a statement."""
_MOST_SWAPPED = 2
"""Words that may be exchanged in a statement of one value ("my favourite tea is green / Earl Grey")."""
_KEPT, _SHORT = 8192, 512
"""Statements whose reading is kept, and characters of one at most: some 15 MB."""


@dataclass(frozen=True, slots=True)
class _Statement:
    slots: Slots
    core: frozenset[str]
    subject: frozenset[str]
    singles: frozenset[str]
    numbers: frozenset[str]
    dates: frozenset[str]
    names: frozenset[str]
    persons: frozenset[str]
    negated: bool
    changed: bool
    continues: bool
    news: bool
    another: bool
    asked: bool

    @property
    def renews(self) -> bool:
        """Whether its words say that it was otherwise before."""
        return self.changed and not self.continues

    @property
    def is_news(self) -> bool:
        """Whether its words say that it was otherwise before, or that it is new."""
        return self.renews or self.news


def contradicts(old: str, new: str) -> bool:
    """True where `new` gives another value than `old` for what looks like the same statement. Both said by the same speaker."""
    return contradiction(old, new) is not None


def contradiction(old: str, new: str) -> str | None:
    """What the contradiction is, for a trace's history, or None."""
    return _compared(_read(old), _read(new))


def among(texts: Iterable[str]) -> Callable[[str, str], str | None]:
    """`contradiction` between any two of these texts, each of which is read once."""
    read = {text: _again(text) if len(text) <= _SHORT else _read(text) for text in texts}
    return lambda old, new: _compared(read[old], read[new])


@lru_cache(_KEPT)
def _again(text: str) -> _Statement:
    """Short statements come back with each recall of the same memories."""
    return _read(text)


def _compared(a: _Statement, b: _Statement) -> str | None:
    same = a.slots.keys() & b.slots.keys()
    if a.asked or b.asked or (same and b.another and not b.is_news):
        return None
    if (another := _another_value(a, b, sorted(same))) or _other_person(a.persons, b.persons):
        return another
    shared, core = a.core & b.core, a.core | b.core
    alike = len(shared) >= _FEWEST_SHARED and len(shared) >= _ENOUGH_SHARED * len(core)
    single = bool(a.singles & b.singles) and a.subject == b.subject and a.negated == b.negated
    values = [("number", a.numbers, b.numbers), ("date", a.dates, b.dates), ("name", a.names, b.names)]
    other = [(kind, before, after) for kind, before, after in values if before - after and after - before]
    if len(other) == 1 and a.negated == b.negated and (alike or (single and _few(core - shared))):
        kind, before, after = other[0]
        # Another name alone tells of another thing; it contradicts only where there can be one.
        if kind != "name" or single:
            return f"another {kind}: {_listed(before - after)} -> {_listed(after - before)}"
    if other:
        return None
    if alike and a.negated != b.negated and len(shared) >= _SAME_SHARED * len(core):
        return "negated" if b.negated else "no longer negated"
    if alike and b.renews and not a.changed:
        return "a change is told"
    if single and shared and _few(a.core - b.core) and _few(b.core - a.core) and a.core - b.core and b.core - a.core:
        return f"another value: {_listed(a.core - b.core)} -> {_listed(b.core - a.core)}"
    return None


def _another_value(a: _Statement, b: _Statement, same: Iterable[Slot]) -> str | None:
    """Of the same property of the same one; where there may be two at a time, told as new."""
    for slot in same:
        before, after = a.slots[slot] - b.slots[slot], b.slots[slot] - a.slots[slot]
        if before and after and (slot.kind not in MANY or b.is_news):
            return f"another {slot.kind}: {_listed(before)} -> {_listed(after)}"
    return None


# "now" and "instead" that only continue: nothing changed.
_CHANGE_KEEPS = re.compile(r"\b(?:right now|by now|until now|now that|still)\b", re.IGNORECASE)


def _few(words: frozenset[str]) -> bool:
    return len(words) <= _MOST_SWAPPED


def _listed(words: frozenset[str]) -> str:
    return ", ".join(sorted(words))


def _other_person(a: frozenset[str], b: frozenset[str]) -> bool:
    return bool(a and b and not a & b)


def _read(text: str) -> _Statement:
    core, subject = set[str](), set[str]()
    numbers, dates, names, singles, persons = set[str](), set[str](), set[str](), set[str](), set[str]()
    starts, owner = True, False
    for token, following in pairwise([*_TOKEN.findall(text), ""]):
        word = token.casefold().replace("’", "'")
        if token[0] in ".!?":
            starts = True
            continue
        if token[0].isdigit():
            numbers.add(word)
        elif word in _NUMBERS:
            numbers.add(_NUMBERS[word])
        elif word in _DATES or (word == "may" and token != word and not starts):
            dates.add(word)
        elif word in _PERSONS:
            persons.add(_PERSONS[word])
        elif token[0].isupper() and not starts and word not in STOP_WORDS:
            names.add(word)
        elif _carries(word):
            stem = _stem(word)
            kind = _single(stem, following.casefold())
            core.add(kind or stem)
            if kind and not owner:
                if kind != _PARTNER and _PARTNER in singles:  # "my wife's job": whose, not what
                    singles.remove(_PARTNER)
                    subject.add(_PARTNER)
                singles.add(kind)
            elif owner or not singles:
                subject.add(kind or stem)
        # "The name of my cat", "my favourite tea": the cat and the tea are what it is about.
        goes_on = owner and (word in _PERSONS or word in _ARTICLES or word.endswith("'s"))
        owner = goes_on or (word == "of" and bool(singles)) or _SINGLE.get(word) == "=favourite"
        starts = False
    asked = text.rstrip().endswith("?")
    return _Statement(
        slots={} if asked or len(text) > _SHORT else slots(text),
        core=frozenset(core),
        subject=frozenset(subject),
        singles=frozenset(singles),
        numbers=frozenset(numbers),
        dates=frozenset(dates),
        names=frozenset(names),
        persons=frozenset(persons),
        negated=len(_NEGATION.findall(text)) % 2 == 1,
        changed=bool(_CHANGE.search(text)),
        continues=bool(_CHANGE_KEEPS.search(text)),
        news=bool(_NEWS.search(text)),
        another=bool(_ANOTHER.search(text)),
        asked=asked,
    )


def _single(stem: str, following: str) -> str:
    """Of what this word asks for one value; "" for none. Whoever works as a nurse may work for a clinic, and on a book; whoever moved
    their ladder lives where they lived.
    """
    kind = _SINGLE.get(stem, "")
    if stem in ("moved", "moving") and (following in _ARTICLES or following in _PERSONS):
        return ""
    if stem in ("work", "working") and following in ("as", "on"):
        return "=profession" if following == "as" else ""
    return kind


def _carries(word: str) -> bool:
    """Neither a function word, nor a negation, nor a word that only says that something changed."""
    return word not in STOP_WORDS and not _NEGATION.fullmatch(word) and not word.endswith("n't") and word not in _MARKERS


_MARKERS = word_set(
    """no longer any more anymore used switched changed replaced instead quit resigned sold cancelled canceled postponed now since actually
    recently just still"""
)


def _stem(word: str) -> str:
    """Plural and third person: "lives" and "live" are one word."""
    word = word.removesuffix("'s")
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
