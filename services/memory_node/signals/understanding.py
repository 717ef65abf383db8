"""What a query says beside its meaning: its content words, the days that it names, the one speaker that it names. By rules, no model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ndml.language.dates import DateSpan, dates
from ndml.language.terms import Word, content_words
from services.memory_node.columns import Columns, Strings

I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]

_DAY_US = 86_400_000_000
_NO_END = np.iinfo(np.int64).max
_SLACK_DAYS = 3
"""What happened on a day is often told a little later."""
_READ = 4096
"""Characters of a query in which days and names are looked for."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BOTH = re.compile(r"\bboth\b", re.IGNORECASE)
_AND = re.compile(r"(?:'s)?\s*(?:,|&|\band\b|\bor\b)\s*", re.IGNORECASE)
_DATED = re.compile(r"\d{4}|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)", re.IGNORECASE)
"""Only what names a month or a year by itself: "3 days ago" says when the asker asks, which a memory's time cannot be measured by."""
_WITH_YEAR = re.compile(r"\d{4}|next|this", re.IGNORECASE)


class Understood(NamedTuple):
    """terms: of its content words, each once. words: these with their place among all, those of days left out unless there are no others.
    spans: first and last microsecond of what it names."""

    text: str
    words: Sequence[tuple[Word, int]]
    terms: Sequence[str]
    spans: Sequence[tuple[int, int]]

    @property
    def until(self) -> int:
        """The last microsecond that it asks about."""
        return max((last for _, last in self.spans), default=_NO_END)

    def said(self, said_at_us: I64) -> Flags:
        """[n] True where a memory was said on a day that the query names, or shortly after."""
        then = np.zeros(len(said_at_us), np.bool_)
        for first, last in self.spans:
            then |= (said_at_us >= first) & (said_at_us <= last)
        return then

    def named(self, speakers: I64, names: Strings) -> Flags:
        """[n] True where the memory's speaker, by number, is whom the query asks about: the one of these that it names first, unless it
        asks about two together. Where nobody is known to have said it (0), it may have been them."""
        found = [(place, number) for number in np.unique(speakers).tolist() if number and (place := _place(self.text, names.text(number)))]
        if not found or (len(found) > 1 and _together(self.text, sorted(place for place, _ in found))):
            return np.zeros(len(speakers), np.bool_)
        theirs: Flags = (speakers == min(found)[1]) | (speakers == 0)
        return theirs


def understood(text: str, columns: Columns, now_us: int) -> Understood:
    """Years that the query leaves out are those before the owner's newest memory, or before now where that lies ahead."""
    words, asked = _distinct(content_words(text)), text[:_READ]
    terms = [term for word, _ in words for term in word.terms]
    if not _DATED.search(asked):
        return Understood(asked, words, terms, ())
    said = columns.ints("said_at_us")[columns.alive]
    newest = min(now_us, int(said.max())) if len(said) else now_us
    today = (_EPOCH + timedelta(microseconds=newest)).date()
    epoch = _EPOCH.date().toordinal()
    named = [span for span in dates(asked, today) if _DATED.search(span.text)]
    # A day is met in the same words or not at all: every other month, weekday and number is near to its words.
    words = [each for each in words if not any(span.start <= each[0].start and each[0].end <= span.end for span in named)] or words
    found = [_past(span, today) for span in named]
    spans = [((first.toordinal() - epoch) * _DAY_US, (last.toordinal() - epoch + 1 + _SLACK_DAYS) * _DAY_US - 1) for first, last in found]
    return Understood(asked, words, terms, spans)


def _past(span: DateSpan, today: date) -> tuple[date, date]:
    """First and last day; where the year is left out and the days lie ahead, of the year before: nothing was said yet on days to come."""
    first, last = span.first, span.last
    if first <= today or _WITH_YEAR.search(span.text):
        return first, last
    years = 4 if (first.month, first.day) == (2, 29) else 1
    try:
        return first.replace(year=first.year - years), last.replace(year=last.year - years, day=_day_before(last, years))
    except ValueError:  # the calendar begins with the year 1, and a century may have no leap day
        return first, last


def _day_before(last: date, years: int) -> int:
    """Day of the month so many years before: a leap year's February ends a day later."""
    return 28 if years == 1 and (last.month, last.day) == (2, 29) else last.day


def _place(text: str, name: str) -> tuple[int, int] | None:
    """Where the name stands first, as a whole word."""
    found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)
    return None if found is None else found.span()


def _together(text: str, places: Sequence[tuple[int, int]]) -> bool:
    """Whether the two that are named first are asked about in one breath: "both", "Ann and Bo", "Ann, Bo"."""
    (_, end), (start, _) = places[:2]
    return _BOTH.search(text) is not None or _AND.fullmatch(text[end:start]) is not None


def _distinct(words: Sequence[Word]) -> list[tuple[Word, int]]:
    """Each word once, with its place among all."""
    first: dict[tuple[str, ...], tuple[Word, int]] = {}
    for place, word in enumerate(words):
        first.setdefault(word.terms, (word, place))
    return list(first.values())
