"""The boxed model, each way that needs no training, by what stands in its memory (the ablation of science notes 6.5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, time
from typing import Any

import torch

from ndml import tiny
from ndml.client import Hit, Memory, Scope
from ndml.fusion.prompt import Message
from ndml.fusion.readout import MemoryReadout
from ndml.fusion.ways import Fusion, Way
from ndml.integrated.recall import readout
from ndml.tiny.evaluate import Question, questions
from ndml.training.models import Embed, embedder, loaded
from tests.perf.tables import Part, Row, Table

CASE, QUESTIONS, TOKENS, BATCH = "20 to 30 lines", 60, 40, 12
RECALLED, CANDIDATES = 5, 20  # as memory_config has them
UNTRAINED: tuple[Way, ...] = ("prompt", "state", "knn")
NOTE = """Share of answers of `ndml-tiny` with the right value in them: {count} questions, each about a memory of its own of 20 to 30
statements, names and values never seen in training; greedy. *Ours*: the five that recall gives, nearest by the embedder's cosine, less
those that a later one replaces, as `ndml.integrated.recall` hands them over (the answer is among them for {there:.3f} of the
questions). *Oracle*: the one statement that answers. *All*: every statement. *Shuffled*: recalled from a memory that never mentions the
value. The model was trained to read quoted text: prompt and state put the same tokens before it; kNN only mixes what came next in like
contexts into its next token, and the model was not trained for it. Answering that it does not know counts as wrong here."""


def there() -> bool:
    """Whether the weights are in this tree."""
    return (tiny.path() / "config.json").exists()


def ablation() -> Part:
    """About a minute of one core."""
    model, tokenizer = loaded(str(tiny.path()), torch.device("cpu"))
    fusion, embed = Fusion(model, tokenizer), embedder("all-MiniLM-L6-v2")
    asked = questions(CASE, QUESTIONS)
    ours = [_recalled(q, embed) for q in asked]
    memories = {
        "no memory": [MemoryReadout()] * len(asked),
        "shuffled": [_recalled(replace(q, lines=_elsewhere(asked, at).lines), embed) for at, q in enumerate(asked)],
        "oracle": [readout([_hits(q)[q.turn.line]], 1, q.turn.user)[0] for q in asked],
        "all": [readout(_hits(q), len(q.lines), q.turn.user)[0] for q in asked],
        "ours": ours,
    }
    found = {way: {name: _share(fusion, tokenizer, asked, reads, way) for name, reads in memories.items()} for way in UNTRAINED}
    fusion.close()
    rows = [(way, *(f"{share:.3f}" for share in shares.values())) for way, shares in found.items()]
    hits = sum(q.lines[q.turn.line].text in {e.text for e in read.entries} for q, read in zip(asked, ours, strict=True)) / len(asked)
    title = "What stands in memory, and the way in which it is read"
    return Part(_targets(found), [Table(title, NOTE.format(count=len(asked), there=hits), ("way", *memories), rows)])


def _targets(found: dict[Way, dict[str, float]]) -> list[Row]:
    prompt, least = found["prompt"], max(found["prompt"]["no memory"], found["prompt"]["shuffled"])
    same = found["prompt"] == found["state"]
    return [
        Row("ndml-tiny: prompt and state answer alike", "yes" if same else "no", f"{QUESTIONS} questions, 5 memories", "yes", same),
        Row(
            "ndml-tiny: its answers come from memory (prompt, ours)",
            f"{prompt['ours']:.3f}",
            f"without or with another's {least:.3f}",
            "above",
            prompt["ours"] > least,
        ),
    ]


def _elsewhere(asked: Sequence[Question], at: int) -> Question:
    """Another question, whose memory does not say the value by chance. Neighbours may share a memory: half the list away."""
    value, away = asked[at].turn.value, len(asked) // 2
    others = (asked[(at + away + step) % len(asked)] for step in range(len(asked)))
    return next(q for q in others if not any(value in line.text for line in q.lines))


def _hits(question: Question, scores: Callable[[int], float] = lambda _: 1.0) -> list[Hit]:
    """The lines as recall has them, in their order."""
    hits = []
    for at, line in enumerate(question.lines):
        said = datetime.combine(line.said, time(0, at // 60, at % 60), UTC)
        hits.append(Hit(Memory(str(at), Scope("ann"), line.text, speaker=line.speaker, said_at=said), scores(at)))
    return hits


def _recalled(question: Question, embed: Embed) -> MemoryReadout:
    vectors = embed([*(line.text for line in question.lines), question.turn.user])
    cosines = vectors[:-1] @ vectors[-1]
    nearest = sorted(_hits(question, lambda at: float(cosines[at])), key=lambda hit: -hit.score)[:CANDIDATES]
    return readout(nearest, RECALLED, question.turn.user)[0]


def _share(fusion: Fusion, tokenizer: Any, asked: Sequence[Question], reads: Sequence[MemoryReadout], way: Way) -> float:
    right = 0
    ends = [tokenizer.eos_token_id]
    for at in range(0, len(asked), BATCH):
        part = list(zip(asked, reads, strict=True))[at : at + BATCH]
        plans = [fusion.plan([Message("user", q.turn.user)], read, way, beside=TOKENS) for q, read in part]
        answers = (tokenizer.decode(ids, skip_special_tokens=True) for ids in fusion.greedy(plans, TOKENS, ends))
        right += sum(q.turn.value in answer for (q, _), answer in zip(part, answers, strict=True))
    return right / len(asked)
