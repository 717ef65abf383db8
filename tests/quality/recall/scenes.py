"""Scenes, and stores made of them: sessions on several topics over weeks, scenes and small talk in each, questions with their evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from tests.quality.recall.sets import Conversation, Question, Turn

_FIRST_DAY = datetime(2025, 3, 3, tzinfo=UTC)
_WEEKS = 11
_PARTS_PER_SESSION = 3
_FILLER = 0.42  # chance of small talk before a part of a scene


@dataclass(frozen=True, slots=True)
class Line:
    """A turn of a scene. key: the name by which questions name it as evidence, "" for none; because: keys of lines of the same part that
    it came about because of."""

    speaker: str
    text: str
    key: str = ""
    because: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """A question about a scene and the keys of the lines that answer it: the scene's own, or keys that no other scene has."""

    category: str
    text: str
    keys: tuple[str, ...]


@dataclass(slots=True)
class Scene:
    """Lines that belong together, in one part or in several of different sessions, the first of them first."""

    parts: list[list[Line]]
    asks: list[Ask] = field(default_factory=list)


Talk = Callable[[Random, str], list[Line]]
"""Lines about nothing, for a topic."""


@dataclass(frozen=True, slots=True)
class _Placed:
    scene: int
    lines: Sequence[Line]


def arrange(random: Random, name: str, scenes: Mapping[str, Sequence[Scene]], opening: Talk, filler: Talk) -> Conversation:
    """A store out of the scenes of each topic; later parts of a scene stand in later sessions of its topic."""
    sessions: list[tuple[str, list[_Placed]]] = []
    numbered = {id(scene): number for number, scene in enumerate(each for found in scenes.values() for each in found)}
    waiting = {topic: _sessions_of(random, found, numbered) for topic, found in scenes.items()}
    order = [topic for topic, found in waiting.items() for _ in found]
    random.shuffle(order)
    for topic in order:
        sessions.append((topic, waiting[topic].pop(0)))
    turns: list[Turn] = []
    effects: list[tuple[int, tuple[int, str]]] = []
    at: dict[tuple[int, str], int] = {}
    anywhere: dict[str, int] = {}
    for number, (topic, placed) in enumerate(sessions):
        said_at = _begin(random, number, len(sessions))
        for scene, line in _session_lines(random, topic, placed, opening, filler):
            if line.key:
                at[scene, line.key] = anywhere[line.key] = len(turns)
            effects += [(len(turns), (scene, key)) for key in line.because]
            turns.append(Turn(f"{name}-{number:03d}", line.speaker, line.text, said_at))
            said_at += timedelta(seconds=random.randint(20, 240))
    questions = tuple(
        Question(ask.text, ask.category, tuple(sorted(at.get((numbered[id(scene)], key), anywhere[key]) for key in ask.keys)))
        for found in scenes.values()
        for scene in found
        for ask in scene.asks
    )
    return Conversation(name, tuple(turns), questions, frozenset((at[cause], effect) for effect, cause in effects))


def _sessions_of(random: Random, scenes: Sequence[Scene], numbered: Mapping[int, int]) -> list[list[_Placed]]:
    """The parts of a topic's scenes, by session."""
    longest = max(len(scene.parts) for scene in scenes)
    count = max(longest, round(sum(len(scene.parts) for scene in scenes) / _PARTS_PER_SESSION))
    sessions: list[list[_Placed]] = [[] for _ in range(count)]
    for scene in scenes:
        for place, part in zip(sorted(random.sample(range(count), len(scene.parts))), scene.parts, strict=True):
            sessions[place].append(_Placed(numbered[id(scene)], part))
    for session in sessions:
        random.shuffle(session)
    return [session for session in sessions if session]


def _session_lines(random: Random, topic: str, placed: Sequence[_Placed], opening: Talk, filler: Talk) -> list[tuple[int, Line]]:
    lines = [(-1, line) for line in opening(random, topic)]
    for part in placed:
        if random.random() < _FILLER:
            lines += [(-1, line) for line in filler(random, topic)]
        lines += [(part.scene, line) for line in part.lines]
    return lines


def _begin(random: Random, number: int, count: int) -> datetime:
    """When a session begins: in their order over the weeks, in working hours, none before the one before it has ended."""
    day = number * _WEEKS * 7 / count
    return _FIRST_DAY + timedelta(days=int(day), hours=7 + 14 * (day % 1), minutes=random.randint(0, 20))
