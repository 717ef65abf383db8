"""Lists of real-looking words, from `lists.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path

_TEXTS = tomllib.loads((Path(__file__).parent / "lists.toml").read_text(encoding="utf-8"))


def words(name: str) -> tuple[str, ...]:
    """The list of that name; a word stands in it more than once where it is to be drawn more often."""
    text: str = _TEXTS[name]
    return tuple(text.strip().split(";")) if ";" in text else tuple(text.split())


ACTIVITIES, ADJECTIVES, ANIMALS, ATTRIBUTES = words("activities"), words("adjectives"), words("animals"), words("attributes")
CITIES, COLOURS, COMPANIES, COMPANY_ENDS = words("cities"), words("colours"), words("companies"), words("company_ends")
DAYS, EVENTS, FAVOURITES, FOODS = words("days"), words("events"), words("favourites"), words("foods")
JOBS, KIN, LANGUAGES, MEALS = words("jobs"), words("kin"), words("languages"), words("meals")
MEASURES, MONTHS, NAMED = words("measures"), words("months"), words("named")
PEOPLE, PETS = words("people"), words("pets")
PLAYS, SPOTS, SUBJECTS, THINGS = words("plays"), words("spots"), words("subjects"), words("things")
ONSETS, VOWELS, CODAS = words("onsets"), words("vowels"), words("codas")
