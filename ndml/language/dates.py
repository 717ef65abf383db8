"""Dates in a text, resolved against the day it was said: ISO dates, "3 March", "March 2025", "next Friday", "last week", "in two days".

A date that does not exist (31 April) or that could be two (3/4/2025) is left alone. Words are English; numbers are understood everywhere.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

Precision = Literal["day", "weekend", "week", "month", "year"]

MOST_DATES = 64
"""Dates of one text that are looked for: a pasted calendar need not become one memory's labels."""


@dataclass(frozen=True, slots=True)
class DateSpan:
    """text[start:end] says the days from `first` to `last`, both included."""

    start: int
    end: int
    text: str
    first: date
    last: date
    precision: Precision

    @property
    def iso(self) -> str:
        """ISO 8601, as precise as it was said: 2026-03-05, 2026-W10, 2026-03, 2026; a weekend as first/last."""
        match self.precision:
            case "day":
                return self.first.isoformat()
            case "weekend":
                return f"{self.first.isoformat()}/{self.last.isoformat()}"
            case "week":
                year, week, _ = self.first.isocalendar()
                return f"{year:04d}-W{week:02d}"
            case "month":
                return f"{self.first:%Y-%m}"
        return f"{self.first:%Y}"


_Days = tuple[date, date, Precision]
_Reader = Callable[[re.Match[str], date, bool], _Days | None]

_MONTHS = {name.casefold(): number for number, name in enumerate(calendar.month_name) if name}
_MONTHS |= {name.casefold(): number for number, name in enumerate(calendar.month_abbr) if name} | {"sept": 9}
_WEEKDAYS = {name.casefold(): number for number, name in enumerate(calendar.day_name)}
_WEEKDAYS |= {"mon": 0, "tue": 1, "tues": 1, "wed": 2, "thu": 3, "thur": 3, "thurs": 3, "fri": 4, "sat": 5, "sun": 6}
_ONE_TO_TWELVE = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_COUNTS = {word: n for n, word in enumerate(_ONE_TO_TWELVE, 1)}
_COUNTS |= {"a": 1, "an": 1, "a couple of": 2, "couple of": 2}

_MONTH = "(?P<month>" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\b\.?"
# "may", "march" and "sun" are words too: of these only what stands beside a number, "next" or "on" is a date.
_DAY = "(?P<day>" + "|".join(sorted(_WEEKDAYS, key=len, reverse=True)) + r")\b"
_LONG_DAY = "(?P<day>" + "|".join(name.casefold() for name in calendar.day_name) + r")\b"
_NTH = r"(?P<nth>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>(?:1[5-9]|2[01])\d\d)"
_COUNT = r"(?P<count>\d{1,3}|a couple of|couple of|" + "|".join(sorted(_COUNTS, key=len, reverse=True)) + ")"
_UNIT = r"(?P<unit>day|week|month|year)s?\b"
_HINT = re.compile(
    r"\d|day|week|month|year|tomorrow|tonight|this (?:m|a|e)|last night|\b(?:in|since|until|till|last|next|by|during|on) ", re.IGNORECASE
)
_PAST = re.compile(r"\b(?:was|were|had|did|went|got|met|saw|came|took|made|bought|left|ago|yesterday|last|been|\w{2,}ed)\b", re.IGNORECASE)
_SENTENCE_CHARS = 160  # how far around a weekday its tense is looked for


def dates(text: str, said: date) -> list[DateSpan]:
    """The dates in `text`, in order, said on the day `said`; spans do not overlap. At most MOST_DATES."""
    found: list[DateSpan] = []
    if not _HINT.search(text):
        return found
    free = 0
    for start, end, match, read in sorted(_matches(text), key=lambda each: (each[0], -each[1])):
        if start < free:
            continue
        free = end  # also where there is no such day: "30 February 2024" is not February
        try:
            days = read(match, said, _speaks_of_the_past(text, start, end))
        except (ValueError, OverflowError):  # no such day, or past the calendar's end
            continue
        if days is not None:
            found.append(DateSpan(start, end, text[start:end], *days))
        if len(found) == MOST_DATES:
            break
    return found


def _matches(text: str) -> Iterator[tuple[int, int, re.Match[str], _Reader]]:
    for pattern, read in _PATTERNS:
        for match in pattern.finditer(text):
            yield match.start(), match.end(), match, read


def _speaks_of_the_past(text: str, start: int, end: int) -> bool:
    around = text[max(0, start - _SENTENCE_CHARS) : end + _SENTENCE_CHARS]
    return _PAST.search(around) is not None


def _day(year: int, month: int, day: int) -> _Days:
    found = date(year, month, day)
    return found, found, "day"


def _month(year: int, month: int) -> _Days:
    return date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1]), "month"


def _week(of: date) -> _Days:
    monday = of - timedelta(of.weekday())
    return monday, monday + timedelta(6), "week"


def _shifted(of: date, months: int) -> date:
    """The same day so many months on; the month's last where it has no such day."""
    year, month = divmod(of.year * 12 + of.month - 1 + months, 12)
    return date(year, month + 1, min(of.day, calendar.monthrange(year, month + 1)[1]))


def _nearest(month: int, day: int, said: date) -> _Days:
    """Of the years around, the one whose day is nearest to `said`; 29 February in a leap year."""
    candidates = []
    for year in range(said.year - 4, said.year + 5):
        if date.min.year <= year <= date.max.year and day <= calendar.monthrange(year, month)[1]:
            candidates.append(date(year, month, day))
    if not candidates:
        raise ValueError(f"no day {day} in month {month}")
    found = min(candidates, key=lambda each: (abs((each - said).days), each < said))
    return found, found, "day"


def _iso(match: re.Match[str], _said: date, _past: bool) -> _Days:
    year, month = int(match["y"]), int(match["m"])
    return _day(year, month, int(match["d"])) if match["d"] else _month(year, month)


def _dotted(match: re.Match[str], _said: date, _past: bool) -> _Days | None:
    year = int(match["y"])
    first, second = int(match["a"]), int(match["b"])
    if match["s"] == ".":  # where dots are written the day comes first
        return _day(year, second, first)
    if first > 12 or first == second:
        return _day(year, second, first)
    return _day(year, first, second) if second > 12 else None


def _named(match: re.Match[str], said: date, _past: bool) -> _Days | None:
    month, year = _MONTHS[match["month"].casefold()], match["year"]
    nth = match.groupdict().get("nth")
    if nth:
        return _day(int(year), month, int(nth)) if year else _nearest(month, int(nth), said)
    if year:
        return _month(int(year), month)
    return None


def _month_alone(match: re.Match[str], said: date, past: bool) -> _Days:
    """ "in May": the next one, or the last one where the sentence speaks of the past; "last May", "next May"."""
    month, way = _MONTHS[match["month"].casefold()], match["way"].casefold()
    year = said.year
    if way == "last" or (way not in ("next", "this") and past):
        return _month(year if month < said.month or (month == said.month and way != "last") else year - 1, month)
    if way == "this":
        return _month(year, month)
    return _month(year if month > said.month or (month == said.month and way != "next") else year + 1, month)


def _relative_day(match: re.Match[str], said: date, _past: bool) -> _Days:
    word = " ".join(match.group().casefold().split())
    days = {"yesterday": -1, "last night": -1, "tomorrow": 1}.get(word)
    if days is None:
        days = 2 if word.endswith("after tomorrow") else -2 if word.endswith("before yesterday") else 0
    found = said + timedelta(days)
    return found, found, "day"


def _in_count(match: re.Match[str], said: date, _past: bool) -> _Days:
    return _moved(said, _counted(match), match["unit"])


def _ago(match: re.Match[str], said: date, _past: bool) -> _Days:
    return _moved(said, -_counted(match), match["unit"])


def _counted(match: re.Match[str]) -> int:
    word = match["count"].casefold()
    return _COUNTS[word] if word in _COUNTS else int(word)


def _moved(said: date, count: int, unit: str) -> _Days:
    match unit.casefold():
        case "day":
            found = said + timedelta(count)
            return found, found, "day"
        case "week":
            return _week(said + timedelta(7 * count))
        case "month":
            there = _shifted(said, count)
            return _month(there.year, there.month)
    return _year(said.year + count)


def _year(year: int) -> _Days:
    return date(year, 1, 1), date(year, 12, 31), "year"


def _year_alone(match: re.Match[str], _said: date, _past: bool) -> _Days:
    return _year(int(match["year"]))


def _which(match: re.Match[str], said: date, _past: bool) -> _Days:
    """ "next week", "last month", "this year", "next weekend"."""
    step = {"last": -1, "this": 0, "next": 1}[match["way"].casefold()]
    unit = match["unit"].casefold()
    if unit != "weekend":
        return _moved(said, step, unit)
    saturday = said - timedelta(said.weekday()) + timedelta(5 + 7 * step)
    if step < 0 and said.weekday() == 6:
        saturday = said - timedelta(8)
    return saturday, saturday + timedelta(1), "weekend"


def _weekday(match: re.Match[str], said: date, past: bool) -> _Days:
    """ "next Friday" is the first one after `said`, "last Friday" the last before it, "this Friday" that of the same week.

    With no word it is the last one before where the sentence speaks of the past, else the first after.
    """
    wanted, way = _WEEKDAYS[match["day"].casefold()], (match.groupdict().get("way") or "").casefold()
    ahead = (wanted - said.weekday() - 1) % 7 + 1
    if way == "this":
        days = wanted - said.weekday()
    elif way in ("last", "past") or (way not in ("next", "coming") and past):
        days = ahead - 7 if ahead < 7 else -7
    else:
        days = ahead
    found = said + timedelta(days)
    return found, found, "day"


def _pattern(source: str, read: _Reader) -> tuple[re.Pattern[str], _Reader]:
    return re.compile(source, re.IGNORECASE), read


_PATTERNS: tuple[tuple[re.Pattern[str], _Reader], ...] = (
    _pattern(r"(?<![\d-])(?P<y>\d{4})-(?P<m>\d{2})(?:-(?P<d>\d{2}))?(?![\d-])", _iso),
    _pattern(r"(?<![\d/])(?P<y>\d{4})/(?P<m>\d{1,2})/(?P<d>\d{1,2})(?![\d/])", _iso),
    _pattern(r"(?<![\d./])(?P<a>\d{1,2})(?P<s>[./])(?P<b>\d{1,2})(?P=s)(?P<y>\d{4})(?![\d/])", _dotted),
    _pattern(rf"\b{_NTH}(?: of)? {_MONTH}(?:,? {_YEAR})?\b", _named),
    _pattern(rf"\b{_MONTH} {_NTH}\b(?:,? {_YEAR}\b)?", _named),
    _pattern(rf"\b{_MONTH},? {_YEAR}\b", _named),
    _pattern(rf"\b(?P<way>in|since|until|till|last|next|this|by|during) {_MONTH}(?! \d)", _month_alone),
    _pattern(
        r"\b(?:(?:the )?day after tomorrow|(?:the )?day before yesterday|today|tonight|tomorrow|yesterday|last night|"
        r"this (?:morning|afternoon|evening))\b",
        _relative_day,
    ),
    _pattern(rf"\bin {_COUNT} {_UNIT}", _in_count),
    _pattern(rf"\b{_COUNT} {_UNIT} from (?:now|today)\b", _in_count),
    _pattern(rf"\b{_COUNT} {_UNIT} ago\b", _ago),
    _pattern(r"\b(?P<way>last|this|next) (?P<unit>weekend|week|month|year)\b", _which),
    _pattern(rf"\b(?P<way>last|past|this|next|coming|on) {_DAY}", _weekday),
    _pattern(rf"\b{_LONG_DAY}(?!s)", _weekday),
    _pattern(rf"\b(?:in|since|until|till|by|from|during|before|after|year) {_YEAR}\b(?!-\d)", _year_alone),
)
