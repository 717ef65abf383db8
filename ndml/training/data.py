"""What training reads: episodes of memories and questions about them, from JSONL or written as the run goes on. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, Protocol

import numpy as np

from ndml.errors import FieldInvalid, FieldUnknown, NdmlError
from ndml.fusion.readout import MAX_ENTRIES, Entry, MemoryReadout

_LINE_BYTES = 4 << 20  # of one example: a thousand memories with their vectors
_MEMORY = ("text", "speaker", "said_at", "embedding", "strength", "superseded")
_EPISODE = ("memories", "asks", "question", "answer", "used", "kind")
_ASK = ("question", "answer", "used", "kind")


@dataclass(frozen=True, slots=True)
class Ask:
    """A question, the answer that is wanted, numbers of the memories that it stands in; kind: results are told apart by it."""

    question: str
    answer: str
    used: tuple[int, ...] = ()
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Episode:
    """Memories that are read together, and questions about them."""

    readout: MemoryReadout
    asks: tuple[Ask, ...]
    line: int = field(default=0, compare=False)


class Source(Protocol):
    """Where a run's episodes come from. `batch` and `held_out` depend on nothing but their arguments: a run goes on where it was cut."""

    def batch(self, step: int, steps: int) -> Sequence[Episode]:
        """Those of step `step` of `steps`."""

    def held_out(self, questions: int) -> Sequence[Episode]:
        """Never among those of a step; `questions` in all, or all that there are."""

    def control(self, questions: int) -> Sequence[Episode]:
        """The same questions with memories that do not answer them: who is right here guesses or knows."""


class Listed:
    """Episodes of a file: all of them once in each pass, in an order of the pass's own."""

    def __init__(self, episodes: Sequence[Episode], held_out: Sequence[Episode], batch: int, seed: int) -> None:
        """batch: questions of a step; an episode is not split, so a step may have more."""
        if not episodes or not held_out:
            raise FieldInvalid(f"{len(episodes)} examples to learn from, {len(held_out)} to evaluate on: both need one", field="data")
        self._episodes, self._held_out, self._seed = list(episodes), list(held_out), seed
        asks = sum(len(e.asks) for e in episodes) / len(episodes)
        self._each = max(1, round(batch / asks))

    def batch(self, step: int, steps: int) -> Sequence[Episode]:
        first = step * self._each
        return [self._at(place) for place in range(first, first + self._each)]

    def held_out(self, questions: int) -> Sequence[Episode]:
        return first_asks(self._held_out, questions)

    def control(self, questions: int) -> Sequence[Episode]:
        """Each with the memories of the next: whoever has but one episode gives nothing to read."""
        asked = self.held_out(questions)
        others = [*asked[1:], asked[0]] if len(asked) > 1 else [Episode(MemoryReadout(), ())]
        return [
            Episode(other.readout, tuple(replace(ask, used=()) for ask in episode.asks), episode.line)
            for episode, other in zip(asked, others, strict=True)
        ]

    def _at(self, place: int) -> Episode:
        turn, at = divmod(place, len(self._episodes))
        return self._episodes[_order(len(self._episodes), self._seed, turn)[at]]


@lru_cache(maxsize=2)  # the pass that steps are in, and the one that an example may reach into
def _order(count: int, seed: int, turn: int) -> tuple[int, ...]:
    order = list(range(count))
    Random(f"{seed}/{turn}").shuffle(order)
    return tuple(order)


def first_asks(episodes: Sequence[Episode], questions: int) -> list[Episode]:
    """Episodes from the first on, until there are `questions`; the last one is cut."""
    taken: list[Episode] = []
    for episode in episodes:
        if questions < 1:
            break
        taken.append(replace(episode, asks=episode.asks[:questions]))
        questions -= len(taken[-1].asks)
    return taken


def split(episodes: Sequence[Episode], share: float) -> tuple[list[Episode], list[Episode]]:
    """(to learn from, held out): by a hash of what an episode says, so that a longer file does not change sides, and no copy crosses."""
    learned: list[Episode] = []
    held_out: list[Episode] = []
    for episode in episodes:
        said = json.dumps([[e.text for e in episode.readout.entries], [(a.question, a.answer) for a in episode.asks]])
        drawn = int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big") / 2.0**64
        (held_out if drawn < share else learned).append(episode)
    return learned, held_out


def read(path: Path, most: int) -> list[Episode]:
    """The episodes of a JSONL file, at most `most` of them. Raises FieldInvalid, FieldUnknown with the line."""
    episodes: list[Episode] = []
    for number, line in _lines(path):
        if len(episodes) == most:
            raise FieldInvalid(f"{path} has more than {most} examples, which all stay in memory: raise `examples`", field="examples")
        try:
            episodes.append(episode_of(json.loads(line), number))
        except ValueError as error:
            raise FieldInvalid(f"{path} line {number} is no JSON: {error}", field="data") from error
        except NdmlError as error:
            raise type(error)(f"{path} line {number}: {error.message}", field="data") from error
    return episodes


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_LINE_BYTES + 1):
                number += 1
                if len(line) > _LINE_BYTES:
                    raise FieldInvalid(f"{path} line {number} is longer than {_LINE_BYTES} bytes: split the example", field="data")
                if line.strip():
                    yield number, line
    except OSError as error:
        raise FieldInvalid(f"{path} cannot be read: {error}. Name a JSONL file, or builtin:entities", field="data") from error


def episode_of(given: Any, line: int = 0) -> Episode:
    """One line: {memories, question, answer, used}, or {memories, asks: [{question, answer, used}, …]}. Raises FieldInvalid."""
    _known(given, _EPISODE, "an example")
    memories = given.get("memories", [])
    if not isinstance(memories, list) or len(memories) > MAX_ENTRIES:
        raise FieldInvalid(f"memories is a list of at most {MAX_ENTRIES}", field="memories")
    readout = MemoryReadout(tuple(_entry(number, memory) for number, memory in enumerate(memories, 1)))
    asks = given["asks"] if "asks" in given else [{k: v for k, v in given.items() if k in _ASK}]
    if not isinstance(asks, list) or not asks or ("asks" in given and set(given) & set(_ASK)):
        raise FieldInvalid("give question and answer, or a list of them as asks, not both", field="asks")
    return Episode(readout, tuple(_ask(ask, len(memories)) for ask in asks), line)


def _ask(given: Any, memories: int) -> Ask:
    _known(given, _ASK, "a question")
    for name in ("question", "answer"):
        if not isinstance(given.get(name), str) or not given[name].strip():
            raise FieldInvalid(f"{name} is {given.get(name)!r}: give a text", field=name)
    used = given.get("used", [])
    if not isinstance(used, list) or not all(type(n) is int and 1 <= n <= memories for n in used):
        raise FieldInvalid(f"used is {used!r}: numbers of the memories, 1 to {memories}", field="used")
    kind = given.get("kind", "")
    if not isinstance(kind, str):
        raise FieldInvalid(f"kind is {kind!r}: give a text", field="kind")
    return Ask(given["question"], given["answer"], tuple(used), kind)


def _entry(number: int, given: Any) -> Entry:
    if isinstance(given, str):
        given = {"text": given}
    _known(given, _MEMORY, f"memory {number}")
    text, speaker, superseded = given.get("text"), given.get("speaker", ""), given.get("superseded", False)
    if not isinstance(text, str) or not isinstance(speaker, str) or type(superseded) is not bool:
        raise FieldInvalid(f"memory {number}: text and speaker are texts, superseded is true or false", field="memories")
    try:
        said_at = datetime.fromisoformat(given["said_at"]) if given.get("said_at") else None
        embedding = np.asarray(given["embedding"], np.float32) if given.get("embedding") is not None else None
        strength = float(given.get("strength", 1.0))
    except (TypeError, ValueError) as error:
        raise FieldInvalid(f"memory {number}: {error}", field="memories") from error
    return Entry(number, text, speaker, said_at, embedding, strength, superseded=superseded)


def _known(given: Any, names: Sequence[str], what: str) -> None:
    if not isinstance(given, Mapping):
        raise FieldInvalid(f"{what} is an object of {', '.join(names)}, got {str(given)[:60]!r}", field="data")
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise FieldUnknown(f"{what} has no field {unknown[0]!r}: there are {', '.join(names)}", field=unknown[0])
