"""What recall is measured on, in one shape: LoCoMo, an agent's task logs, code review threads, notes on symbols. A memory is a turn."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from tests.quality import locomo

SetName = Literal["locomo", "tasks", "reviews", "symbols"]
SETS: tuple[SetName, ...] = get_args(SetName)
LOCOMO_CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker said at one time in one session."""

    session: str
    speaker: str
    text: str
    said_at: datetime


@dataclass(frozen=True, slots=True)
class Question:
    """A question, what kind it is, and the positions of the turns that answer it; never none."""

    text: str
    category: str
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """The store of one user: turns in the order in which they were said, and what is asked about them. causes: positions of turns of one
    session, cause and effect, as far as the set knows them."""

    name: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]
    causes: frozenset[tuple[int, int]] = frozenset()


def load(name: SetName, most: int) -> list[Conversation]:
    """The first `most` conversations of a set. Raises SystemExit where LoCoMo's file is not there."""
    from tests.quality.recall import reviews, symbols, tasks

    if name == "tasks":
        return tasks.stores(most)
    if name == "reviews":
        return reviews.stores(most)
    if name == "symbols":
        return symbols.stores(most)
    if not locomo.DATA.is_file():
        raise SystemExit(f"{locomo.DATA} is not there: set NDML_LOCOMO to a LoCoMo file (it is not part of this repository)")
    return [_of_locomo(talk) for talk in locomo.load()[:most]]


def _of_locomo(talk: locomo.Conversation) -> Conversation:
    turns = tuple(Turn(turn.session, turn.speaker, turn.text, turn.said_at) for turn in talk.turns)
    questions = tuple(Question(q.text, LOCOMO_CATEGORIES[q.category], q.evidence) for q in talk.questions)
    return Conversation(f"locomo-{talk.sample_id}", turns, questions)
