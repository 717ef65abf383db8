"""What an answer is worth, where a fact was lost on its way, and how sure a share is. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from ndml.language import facts
from services.gateway.settings import ChatSettings
from tests.quality.personal.dialogues import Message, Question, plain, says

Way = Literal["memory", "none", "full", "notes"]
WAYS: tuple[Way, ...] = ("memory", "none", "full", "notes")
Verdict = Literal["right", "out of date", "does not know", "wrong"]
STAGES = (
    "extraction: no statement of the message has the value",
    "gate: the statement was taken for one that is known",
    "recall: not among the candidates",
    "readout: a candidate, but taken for out of date",
    "readout: a candidate, but behind those that are read",
    "model: says that it does not know",
    "model: answers with a value that was replaced",
    "model: answers something else",
)
MOST_READ = ChatSettings().recall_k
"""Traces that a chat reads by default (chat.recall_k)."""
_CITED = re.compile(r"\s?\[\d+(?:, ?\d+)*\]")
_UNKNOWING = ("don't know", "do not know")


@dataclass(frozen=True, slots=True)
class Read:
    """A trace that the model read: its number, its text, when it was said (ISO), whether the answer names it."""

    number: int
    text: str
    said: str = ""
    mentioned: bool = False


@dataclass(frozen=True, slots=True)
class Traces:
    """Looked up where an answer was not right: texts of the user's memories, and of the candidates of this question, best first."""

    stored: tuple[str, ...]
    candidates: tuple[str, ...]


@dataclass(slots=True)
class Outcome:
    """A question, its answers by way, and what the model read where it had memory."""

    message: Message
    answers: dict[Way, str]
    read: tuple[Read, ...] = ()
    traces: Traces | None = None

    @property
    def question(self) -> Question:
        """What was asked. Raises ValueError for a message that asks nothing."""
        if self.message.question is None:
            raise ValueError(f"message {self.message.number} of user {self.message.user} asks nothing")
        return self.message.question

    def verdict(self, way: Way = "memory") -> Verdict:
        """What that way's answer is worth."""
        return verdict(self.question, self.answers[way])

    @property
    def cited(self) -> bool:
        """Whether the answer names a trace that says the value, and none that does not."""
        named = [read for read in self.read if read.mentioned]
        return bool(named) and all(says(read.text, self.question.fact.value) for read in named)


def verdict(question: Question, answer: str) -> Verdict:
    """A value that was replaced makes an answer out of date, whatever else stands in it."""
    text = _CITED.sub("", answer)
    if question.told is None:
        return "right" if _unknowing(text) else "wrong"
    if question.is_old(text):
        return "out of date"
    if says(text, question.fact.value):
        return "right"
    return "does not know" if _unknowing(text) else "wrong"


def _unknowing(text: str) -> bool:
    return any(words in text.casefold().replace("’", "'") for words in _UNKNOWING)


def lost_at(outcome: Outcome) -> str:
    """The first of STAGES past which a fact that was told did not come. Raises ValueError where it was not looked up."""
    told, traces = outcome.question.told, outcome.traces
    if told is None or traces is None:
        raise ValueError(f"nothing was looked up for message {outcome.message.number} of user {outcome.message.user}")
    value = told.fact.value
    if not any(says(text, value) for text in traces.stored):
        found = facts(told.text, date.today())
        return STAGES[1] if any(says(fact.text, value) for fact in found.kept) else STAGES[0]
    if any(says(read.text, value) for read in outcome.read):
        kinds = {"does not know": STAGES[5], "out of date": STAGES[6]}
        return kinds.get(outcome.verdict(), STAGES[7])
    place = next((i for i, text in enumerate(traces.candidates) if says(text, value)), None)
    if place is None:
        return STAGES[2]
    return STAGES[4] if place >= MOST_READ and len(outcome.read) >= MOST_READ else STAGES[3]


class Foreign:
    """Values of other users in what one user was shown, but for those that the user has said."""

    def __init__(self, dialogues: Sequence[Sequence[Message]]) -> None:
        self._own = [f" {' | '.join(plain(message.text) for message in messages)} " for messages in dialogues]
        self._values = [
            (m.user, told.fact.value, f" {plain(told.fact.value)} ") for messages in dialogues for m in messages for told in m.told
        ]

    def found(self, user: int, texts: Iterable[str]) -> tuple[str, ...]:
        """The values, each once."""
        shown = " | ".join(f" {plain(_CITED.sub('', text))} " for text in texts)
        own = self._own[user]
        return tuple(dict.fromkeys(v for who, v, words in self._values if who != user and words in shown and words not in own))


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `of`, with Wilson's 95 % interval."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        return self.hits / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high; (0, 1) of nothing."""
        if not self.of:
            return 0.0, 1.0
        z, n, p = 1.959964, self.of, self.value
        middle, half = (p + z * z / (2 * n)), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {self.of}" if self.of else "-"


def share(outcomes: Iterable[Outcome], holds: Callable[[Outcome], bool]) -> Share:
    """Of the outcomes, those of which it holds."""
    found = [holds(outcome) for outcome in outcomes]
    return Share(sum(found), len(found))


def right(outcomes: Iterable[Outcome], way: Way = "memory") -> Share:
    """Answered right, that way."""
    return share(outcomes, lambda outcome: outcome.verdict(way) == "right")


def losses(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Questions about what was told that were not answered right, by the stage that lost it; every stage."""
    counted = Counter(lost_at(o) for o in outcomes if o.question.told is not None and o.verdict() != "right")
    return {stage: counted[stage] for stage in STAGES}
