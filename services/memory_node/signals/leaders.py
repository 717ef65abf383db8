"""A closer look at the few that lead: does one tell the very property that is asked for, and has a later one taken its place?

They are about what may be said of a thing only once at a time. Where it is said again, the older statement answers as well as the newer,
and often in better words; who asks wants the newer. So the newer takes the place of the older one, which stays behind it: nothing is left
out, and a wrong guess costs a place. docs/science/updates.md shows what it adds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.asked import open_slots
from ndml.btsp.slots import SPEAKER, Slot, speaks_of_own, statement_slots
from services.memory_node.records import F32

I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]

READ = 32
"""Leaders whose words are read where a property is asked for."""
COMPARED = 10
"""Leaders that may take each other's places: an answer's usual length."""
ALIKE, NEARER = 0.6, 0.2
"""Cosine from which two statements may be about the same thing: less by NEARER where the later answers the question as well as the other,
by half of that where half as well. One cosine for all lets other facts of the speaker in, or leaves other wordings out."""
_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class Leaders:
    """m rows, best first: unit vectors [m, d], when they were said [m], their speakers' numbers [m].

    apart [m]: they ask something or tell of somebody else, and take no place of one that does not. told [m]: they tell what is asked for,
    and take each other's places in whatever words.
    """

    vectors: F32
    said: I64
    speaker: I64
    apart: Flags
    told: Flags


def tells(wanted: frozenset[Slot], texts: Iterable[tuple[str, str]]) -> Flags:
    """[m] True where (speaker, text) tells one of the wanted slots; a speaker is meant by "I" and by their name."""
    return np.array([bool(wanted & _told(speaker, text)) for speaker, text in texts], np.bool_)


def of_own(wanted: frozenset[Slot], texts: Iterable[tuple[str, str]]) -> Flags:
    """[m] True where (speaker, text) names the speaker's own thing that is wanted, whatever it tells: "My dentist moved house"."""
    return np.array([any(speaks_of_own(text, slot.what) for slot in wanted) for _, text in texts], np.bool_)


def _told(speaker: str, text: str) -> frozenset[Slot]:
    given = open_slots(dict(statement_slots(text)))
    return given | {slot._replace(whose=speaker.casefold()) for slot in given if slot.whose == SPEAKER}


def renewed(score: F32, leaders: Leaders, until: int) -> F32:
    """[m] scores, descending before: each that was said after one that it takes the place of, and until then, has that one's score."""
    as_well = np.clip(score / np.maximum(score[:, None], _LEAST), 0, 1)
    alike = leaders.vectors @ leaders.vectors.T >= ALIKE - NEARER * as_well
    alike &= leaders.apart[:, None] == leaders.apart
    alike |= leaders.told[:, None] & leaders.told
    takes = alike & (leaders.speaker[:, None] == leaders.speaker) & (leaders.said > leaders.said[:, None]) & (leaders.said <= until)
    after = score.copy()
    for place in range(len(score)):  # in their order: one that has taken a place passes it on
        later = takes[place] & (after < after[place])
        after[later] = after[place]
    return after
