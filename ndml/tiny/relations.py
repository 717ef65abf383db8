"""Kinds of facts and their phrasings, from `phrasings.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HELD_OUT = "~"


@dataclass(frozen=True, slots=True)
class Relation:
    """One kind of fact.

    values      kind of value (`words.Words.value`)
    attributes  name of the list that {k} is drawn from, "" where there is none
    statements  how it is said; changes: how a newer value is said, beside the statements
    questions   how it is asked; answer: how it is answered
    people      it can be about somebody else than the user
    """

    name: str
    values: str
    answer: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    changes: tuple[str, ...] = ()
    attributes: str = ""
    people: bool = True

    def said(self, test: bool) -> tuple[str, ...]:
        """Statements to train on, or those held out."""
        return _side(self.statements, test)

    def asked(self, test: bool) -> tuple[str, ...]:
        """Questions to train on, or those held out."""
        return _side(self.questions, test)


def _side(phrasings: tuple[str, ...], test: bool) -> tuple[str, ...]:
    return tuple(p.removeprefix(HELD_OUT) for p in phrasings if p.startswith(HELD_OUT) == test)


def _read() -> tuple[Relation, ...]:
    rows = tomllib.loads((Path(__file__).parent / "phrasings.toml").read_text(encoding="utf-8"))["relation"]
    return tuple(_relation(row) for row in rows)


def _relation(row: dict[str, Any]) -> Relation:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return Relation(**fields)


RELATIONS = _read()
BY_NAME = {relation.name: relation for relation in RELATIONS}
