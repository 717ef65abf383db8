"""What of the recalled traces is read: best first, what a later one replaced left out or last. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ndml.btsp.contradiction import among

_STATEMENT_CHARS = 1000
"""Longer texts say more than one thing: the rules of contradiction are not about them, and reading them takes time."""


class Recalled(NamedTuple):
    """A trace as far as it matters here. said: when, in any unit; supersedes: ids that the write gate linked as replaced by this one."""

    trace_id: str
    text: str
    speaker: str
    said: int
    supersedes: tuple[str, ...] = ()


class Read(NamedTuple):
    """A trace to read, by its place among those recalled. superseded: a later one says otherwise."""

    place: int
    superseded: bool = False


def to_read(recalled: Sequence[Recalled], k: int, *, past: bool) -> list[Read]:
    """At most k of the recalled, which come best first.

    Of those that say the same the last said stays. What a later one replaces is left out, and that one takes its place where it was higher:
    who asks where somebody lives means the old answer as much as the new. Where the question is about the past, what was replaced stands
    behind all that holds, marked.
    """
    places = _latest_of_each(recalled)
    distinct = [recalled[place] for place in places]
    old = replaced(distinct, k)
    current = [Read(places[rank]) for rank in _promoted(distinct, old) if distinct[rank].trace_id not in old]
    before = [Read(place, superseded=True) for place in places if past and recalled[place].trace_id in old]
    return [*current[: k - min(len(before), k // 2)], *before][:k]


def replaced(recalled: Sequence[Recalled], enough: int) -> dict[str, str]:
    """Ids of those that a later said one among them replaces, each with the last said that does: as the write gate found, or as the rules
    of contradiction say now.

    The gate compares a new trace with its nearest alone: where there are several older ones it has seen one of them. The rules look at the
    recalled in their order until `enough` are found that hold.
    """
    old = _linked(recalled)
    short = sorted((each for each in recalled if len(each.text) <= _STATEMENT_CHARS), key=lambda each: each.said, reverse=True)
    contradicts = among(each.text for each in short)
    holding = 0
    for each in recalled:
        later = (new for new in short if new.said > each.said and new.speaker == each.speaker)
        if len(each.text) <= _STATEMENT_CHARS and (newest := next((new for new in later if contradicts(each.text, new.text)), None)):
            old[each.trace_id] = newest.trace_id
        holding += each.trace_id not in old
        if holding == enough:
            break
    return old


def _linked(recalled: Sequence[Recalled]) -> dict[str, str]:
    """As the gate found. It judges by when a trace came; an import may bring what was said before: then the later said one holds."""
    said = {each.trace_id: each.said for each in recalled}
    old: dict[str, str] = {}
    for each in recalled:
        for other in each.supersedes:
            if other in said and said[other] <= each.said:
                old[other] = each.trace_id
            elif other in said:
                old[each.trace_id] = other
    return old


def _promoted(recalled: Sequence[Recalled], old: Mapping[str, str]) -> list[int]:
    """Ranks, each in the best place of its own and those that it replaces."""
    place = {each.trace_id: rank for rank, each in enumerate(recalled)}
    for rank, each in enumerate(recalled):
        newest = each.trace_id
        for _ in old:
            newest = old.get(newest, newest)
        place[newest] = min(place[newest], rank)
    return sorted(range(len(recalled)), key=lambda rank: place[recalled[rank].trace_id])


def same_words(text: str) -> str:
    """Equal for texts that differ in nothing but case and spaces."""
    return " ".join(text.casefold().split())


def _latest_of_each(recalled: Sequence[Recalled]) -> list[int]:
    """Each (speaker, text) once, the last said, in the place of its best rank."""
    found: dict[tuple[str, str], int] = {}
    for place, each in enumerate(recalled):
        key = (each.speaker, same_words(each.text))
        if key not in found or each.said > recalled[found[key]].said:
            found[key] = place
    return list(found.values())
