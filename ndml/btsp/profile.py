"""The profile of an owner: the one-valued properties that their statements tell ("I moved to Rome"), each with the statement that holds.

Of each property the last said statement holds, whatever it says; what may be several at once (hobbies, cars, projects) is no property of a
profile. Rules of English (`slots`), no model. A statement that no rule reads is in no profile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ndml.btsp.slots import SPEAKER, Slot, statement_slots

KINDS = frozenset(("residence", "profession", "employer", "name", "naming", "meal", "favourite"))
"""Properties of a profile. Places, days and times of things are none: they are told under too many names for one to replace another."""
MOST_REPLACED = 8
"""Older statements of one property that are named, the last replaced first."""


class Stated(NamedTuple):
    """Something that was said; said: when it began to hold, in any unit."""

    trace_id: str
    speaker: str
    text: str
    said: int


@dataclass(slots=True)
class Property:
    """whose: "" for the speaker who is nobody by name, else who it is; kind and what: as in Slot. trace_id: the last statement of the value
    that holds; since: when that was first said, in a row; replaced: the last statement of each value before, the last first."""

    whose: str
    kind: str
    what: str
    trace_id: str
    since: int
    value: frozenset[str]
    replaced: list[str] = field(default_factory=list)


def profile(stated: Iterable[Stated]) -> list[Property]:
    """Properties by whose, kind and what; of statements in any order."""
    found: dict[Slot, Property] = {}
    for each in sorted(stated, key=lambda one: (one.said, one.trace_id)):
        for slot, value in told(each.speaker, each.text).items():
            held = found.get(slot)
            if held is not None and (held.value <= value or value <= held.value):  # "Rome", "Rome in Italy"
                held.trace_id = each.trace_id
                continue
            replaced = [] if held is None else [held.trace_id, *held.replaced][:MOST_REPLACED]
            found[slot] = Property(*slot, each.trace_id, each.said, value, replaced)
    return [found[slot] for slot in sorted(found)]


def told(speaker: str, text: str) -> dict[Slot, frozenset[str]]:
    """Properties that a text tells, with the words of their values; whose "" is the speaker of a store with nameless speakers."""
    own = "" if speaker.casefold() in ("", "user") else speaker.casefold()
    return {_of(slot, own): value for slot, value in statement_slots(text) if slot.kind in KINDS}


def _of(slot: Slot, own: str) -> Slot:
    """The slot with its owner by name: "i" is the speaker, "my sister" the speaker's."""
    if slot.whose == SPEAKER:
        return slot._replace(whose=own)
    return slot._replace(whose=f"{own}'s {slot.whose.removeprefix('my ')}") if own and slot.whose.startswith("my ") else slot
