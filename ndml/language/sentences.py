"""A text into sentences by rules: abbreviations, initials, lists, quotes, fenced code, scripts whose full stop needs no space after it.

One pass over the text; a span is a part of the text as it stands. Linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ndml.btsp.salience import word_set


class Span(NamedTuple):
    """A part of a text: text[start:end] is `text`."""

    start: int
    end: int
    text: str


_CLOSERS = "\"'”’»)\\]}」』"
_STOPS = ".!?…‽؟۔።।॥"
# A run of stops with what closes after it, tried from its start alone: a run that ends nothing is read once. Or the end of a line.
_STOP = re.compile(rf"(?<![{_STOPS}])[{_STOPS}]+[{_CLOSERS}]*(?=\s|\Z)|[。！？｡]+[{_CLOSERS}]*|\r?\n[^\S\n]*(?:\r?\n\s*)*")
_FENCE = re.compile(r"^[^\S\n]{0,3}(?:```|~~~)", re.MULTILINE)
_MARKER = re.compile(r"(?:[-*•‣◦▪–—>]|\(?\d{1,3}[.)]|\(?[a-zA-Z]\)|#{1,6})[^\S\n]+")
_MARKER_CHARS = 8
# What ends in a full stop inside a sentence: titles and the like always, the second kind unless a capital follows.
_TITLES = word_set(
    """mr mrs ms mx dr prof st jr sr rev hon gen col sgt capt lt fr mt ft no nos vol fig figs ch sec pp vs cf ca approx dept ave blvd rd
    apt hr hrs min tel ext ref ed eds hrsg bzw nr str z.b d.h u.a usw.b sra dna mme mlle"""
)
_OPEN = word_set("etc inc ltd co corp llc bros a.m p.m e.g i.e u.s u.k u.n al jan feb mar apr jun jul aug sep sept oct nov dec")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_BEFORE_CHARS = 24  # the longest word that is looked up
_WRAPPED_CHARS = 60  # a line at least so long that goes on in lower case was wrapped, not ended


def sentences(text: str) -> list[Span]:
    """The sentences and list items of `text`, in order, without the white space and list markers around them.

    A block of fenced code is one span, fences included.
    """
    found: list[Span] = []
    for start, end, code in _blocks(text):
        if code:
            found += _trimmed(text, start, end)
            continue
        at = start
        for stop in _STOP.finditer(text, start, end):
            if stop.end() < end and not _ends(text, at, stop):
                continue
            found += _trimmed(text, at, stop.end())
            at = stop.end()
        found += _trimmed(text, at, end)
    return found


def _blocks(text: str) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it is code) of the parts between fences; an open fence reaches to the end."""
    at, inside = 0, False
    for fence in _FENCE.finditer(text):
        if inside:
            line = text.find("\n", fence.end())
            end = len(text) if line < 0 else line
            yield at, end, True
            at = end
        else:
            yield at, fence.start(), False
            at = fence.start()
        inside = not inside
    yield at, len(text), inside


def _trimmed(text: str, start: int, end: int) -> list[Span]:
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    marker = _MARKER.match(text, start, min(end, start + _MARKER_CHARS))
    if marker:
        start = marker.end()
    body = text[start:end]
    start += len(body) - len(body.lstrip())
    body = body.strip()
    return [Span(start, start + len(body), body)] if body else []


def _ends(text: str, at: int, stop: re.Match[str]) -> bool:
    """Whether a sentence that begins at `at` ends at this stop, which is not the last of the text."""
    found, following = stop.group(), _following(text, stop.end())
    if found[0] in "\r\n":
        wrapped = stop.start() - max(at, text.rfind("\n", 0, stop.start()) + 1) >= _WRAPPED_CHARS
        return found.count("\n") > 1 or not (wrapped and following.islower())
    if following.islower() and (found[-1] in "\"'”’»)]}」』" or found.startswith(("...", "…"))):
        return False  # what was quoted, or put off, goes on
    return not (found == "." and _abbreviates(text, at, stop.start(), following))


def _following(text: str, at: int) -> str:
    """The next character that is no white space, within a few; "" for none."""
    return text[at : at + 8].lstrip()[:1]


def _abbreviates(text: str, at: int, stop: int, following: str) -> bool:
    before = text[max(at, stop - _BEFORE_CHARS) : stop]
    word = before.split()[-1] if before.strip() else ""
    word = word.lstrip("(\"'“‘«[")
    plain = word.casefold()
    if plain in _TITLES or (len(word) == 1 and word.isupper() and word != "I"):
        return True
    if word.isdigit() and len(word) <= 3 and not text[at : stop - len(word)].strip():
        return True  # the number of a list item
    return (plain in _OPEN or _DOTTED.fullmatch(word) is not None) and not following.isupper()


def spoken(speaker: str, text: str) -> str:
    """A memory as it is embedded and indexed: who said it is part of what was said. A query is taken as it is."""
    return f"{speaker}: {text}" if speaker else text
