"""Kinds of facts and their phrasings, from `phrasings.toml`, and more to train on, from `wordings.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HELD_OUT = "~"


@dataclass(frozen=True, slots=True)
class Wordings:
    """Ways to say that a fact holds, that it has changed, and to ask for it."""

    statements: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Relation:
    """One kind of fact.

    values      kind of value (`words.Words.value`)
    attributes  name of the list that {k} is drawn from, "" where there is none
    statements  how it is said; changes: how a newer value is said, beside the statements
    questions   how it is asked; answer: how it is answered
    people      it can be about somebody else than the user
    more        statements, changes and questions to train on beside these
    """

    name: str
    values: str
    answer: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    changes: tuple[str, ...] = ()
    attributes: str = ""
    people: bool = True
    more: Wordings = Wordings()

    def said(self, test: bool) -> tuple[str, ...]:
        """Statements to train on, or those held out."""
        return _side(self.statements, test)

    def asked(self, test: bool) -> tuple[str, ...]:
        """Questions to train on, or those held out."""
        return _side(self.questions, test)


def _side(phrasings: tuple[str, ...], test: bool) -> tuple[str, ...]:
    return tuple(p.removeprefix(HELD_OUT) for p in phrasings if p.startswith(HELD_OUT) == test)


def _rows(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))["relation"]
    return [{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()} for row in rows]


def _read() -> tuple[Relation, ...]:
    more = {row.pop("name"): Wordings(**row) for row in _rows("wordings.toml")}
    return tuple(Relation(**row, more=more[row["name"]]) for row in _rows("phrasings.toml"))


RELATIONS = _read()
BY_NAME = {relation.name: relation for relation in RELATIONS}
