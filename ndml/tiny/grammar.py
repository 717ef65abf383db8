"""Templates with a subject: "{I} {live} in {v}." said by Ana, or by somebody about Ana, or answered to her."""

from __future__ import annotations

import re
from dataclasses import dataclass

USER = ""
"""The owner of what the user says about itself."""
ASSISTANT = "<assistant>"
"""Speaks to the user: what is the user's is yours."""

_SLOT = re.compile(r"\{(\w+)\}")
_FIRST = {"I": "I", "me": "me", "my": "my", "am": "am", "have": "have", "do": "do", "was": "was"}
_SECOND = {"I": "you", "me": "you", "my": "your", "am": "are", "have": "have", "do": "do", "was": "were"}
_THIRD = {"am": "is", "have": "has", "do": "does", "was": "was"}


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a fact is about: the owner (USER or a name), or somebody of theirs ("brother")."""

    owner: str = USER
    kin: str = ""


@dataclass(frozen=True, slots=True)
class Phrase:
    """Text, and where its slots stand in it: (slot, start, end) in characters; slot is v, k or s (a subject's name)."""

    text: str
    spans: tuple[tuple[str, int, int], ...]


def say(template: str, subject: Subject, speaker: str, value: str = "", attribute: str = "", pronoun: str = "") -> Phrase:
    """The template as `speaker` says it about `subject`. Slots: {I} {me} {my} {am} {have} {do} {was}, {v}, {k}, any other is a verb.

    pronoun: "her", "his" or "their", to stand for {my} after {I} where that is a third person.
    """
    forms = _forms(subject, speaker)
    pieces: list[str] = []
    spans: list[tuple[str, int, int]] = []
    at = length = 0
    for match in _SLOT.finditer(template):
        pieces.append(template[at : match.start()])
        length += len(pieces[-1])
        word, slot = _fill(match[1], forms, value, attribute)
        if pronoun and match[1] == "my" and slot and "{I}" in template[: match.start()]:
            word, slot = pronoun, ""
        if slot:
            spans.append((slot, length, length + len(word)))
        pieces.append(word)
        length += len(word)
        at = match.end()
    text = "".join(pieces) + template[at:]
    if not template.startswith("{v}"):
        text = text[:1].upper() + text[1:]
    return Phrase(text, tuple(spans))


def _fill(name: str, forms: dict[str, str], value: str, attribute: str) -> tuple[str, str]:
    """A slot's word, and which slot it is where the word is copied from elsewhere."""
    if name in ("v", "k"):
        return (value, "v") if name == "v" else (attribute, "k")
    if name in forms:
        return forms[name], "s" if name in ("I", "me", "my") and forms["am"] == "is" else ""
    return (_third(name) if forms["am"] == "is" else name), ""


def _forms(subject: Subject, speaker: str) -> dict[str, str]:
    mine = subject.owner == (USER if speaker == ASSISTANT else speaker)
    if mine and not subject.kin:
        return _SECOND if speaker == ASSISTANT else _FIRST
    possessive = ("your" if speaker == ASSISTANT else "my") if mine else f"{subject.owner}'s"
    name = f"{possessive} {subject.kin}" if subject.kin else subject.owner
    return {"I": name, "me": name, "my": f"{name}'s", **_THIRD}


def _third(verb: str) -> str:
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "o", "x")) else "s")
