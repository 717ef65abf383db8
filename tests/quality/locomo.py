"""LoCoMo as evaluation data (CC BY-NC 4.0: it stays outside the repository), and evidence recall on it.

A memory is one dialogue turn; ground truth are the turns that a question names as evidence; questions without evidence are skipped.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

DATA = Path(os.environ.get("NDML_LOCOMO", Path(__file__).parents[2].parent / "shared/data/locomo/dev.json"))


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: `dia_id` as LoCoMo numbers it, `said_at` of its session."""

    dia_id: str
    session: str
    speaker: str
    text: str
    said_at: datetime


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the positions of its evidence among the conversation's turns."""

    text: str
    category: int
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    sample_id: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]


def load(path: Path = DATA) -> list[Conversation]:
    """Every conversation of the file."""
    return [_conversation(sample) for sample in json.loads(path.read_text())]


def recall_at(ranked: list[list[int]], questions: tuple[Question, ...], k: int) -> float:
    """Share of the evidence that stands in the first k, averaged over the questions, in percent."""
    shares = [len(set(found[:k]) & set(q.evidence)) / len(q.evidence) for found, q in zip(ranked, questions, strict=True)]
    return 100 * sum(shares) / len(shares)


def _conversation(sample: dict[str, object]) -> Conversation:
    talk = sample["conversation"]
    assert isinstance(talk, dict)
    numbers = sorted(int(m.group(1)) for key in talk if (m := re.fullmatch(r"session_(\d+)", key)))
    turns = tuple(_turn(turn, n, str(talk.get(f"session_{n}_date_time", ""))) for n in numbers for turn in talk[f"session_{n}"] or ())
    at = {turn.dia_id: i for i, turn in enumerate(turns)}
    questions = []
    rows = sample["qa"]
    assert isinstance(rows, list)
    for row in rows:
        named = [f"D{int(a)}:{int(b)}" for e in row.get("evidence") or () for a, b in re.findall(r"D:?(\d+):(\d+)", e)]
        evidence = tuple(dict.fromkeys(at[name] for name in named if name in at))
        if evidence:
            questions.append(Question(row["question"], row["category"], evidence))
    return Conversation(str(sample["sample_id"]), turns, tuple(questions))


def _turn(turn: dict[str, str], number: int, date: str) -> Turn:
    caption = turn.get("blip_caption")
    text = turn.get("text", "") + (f" [shares image: {caption}]" if caption else "")
    said_at = datetime.strptime(date, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
    return Turn(turn["dia_id"], f"session-{number}", turn["speaker"], text, said_at)
