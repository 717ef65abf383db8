"""How well rules see corrections, without a suite: python -m tests.quality.personal.corrections [--seeds 3] [--first 7]

Pairs of statements of simulated users: which are seen as an old value and a new one. And for questions about corrected facts, with a user's
statements ranked by cosine alone: what would be read.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.contradiction import contradicts
from ndml.btsp.supersession import Recalled, to_read
from ndml.language import facts
from services.gateway.settings import ChatSettings
from services.llm.encoder import HuggingFaceEncoder
from services.llm.settings import EmbeddingSection
from tests.quality.personal.dialogues import Message, Question, Told, World, says

_BATCH = 32


def pairs(messages: Sequence[Message]) -> Counter[str]:
    """Of one user's statements, an earlier and a later one: corrections, those seen; others, those mistaken for one."""
    counted: Counter[str] = Counter()
    before: list[Told] = []
    for told in (told for message in messages for told in message.told):
        for old in before:
            kind = "correction" if old.fact.key == told.fact.key else "other"
            counted[kind] += 1
            counted[f"{kind}, seen"] += contradicts(old.text, told.text)
        before.append(told)
    return counted


def read(messages: Sequence[Message], encoder: HuggingFaceEncoder) -> Counter[str]:
    """Of one user's questions about corrected facts: new value among what is read, first of it; an old one among it."""
    settings, counted = ChatSettings(), Counter[str]()
    texts: list[str] = []
    asked: list[tuple[int, str, Question]] = []
    for message in messages:
        if message.question is not None and message.question.kind == "corrected":
            asked.append((len(texts), message.text, message.question))
        texts += [fact.text for fact in facts(message.text, date(2026, 1, 1)).kept]
    if not asked:
        return counted
    stated, questions = embed(encoder, texts), embed(encoder, [text for _, text, _ in asked])  # (n, d), (q, d)
    for vector, (count, _, question) in zip(questions, asked, strict=True):
        nearest = np.argsort(-(stated[:count] @ vector), kind="stable")[: settings.candidates]
        recalled = [Recalled(str(i), texts[i], "", int(i)) for i in nearest]
        found = [recalled[each.place].text for each in to_read(recalled, settings.recall_k, past=False)]
        counted["questions"] += 1
        counted["new value read"] += any(says(text, question.fact.value) for text in found)
        counted["new value first"] += bool(found) and says(found[0], question.fact.value)
        counted["old value read"] += any(question.is_old(text) for text in found)
    return counted


def embed(encoder: HuggingFaceEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """(n, d)."""
    batches = [encoder.tokenize(texts[at : at + _BATCH]) for at in range(0, len(texts), _BATCH)]
    return np.stack([each.vector for batch in batches for each in encoder.encode(batch, token_vectors=False)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=7)
    given = parser.parse_args()
    encoder = HuggingFaceEncoder.load(EmbeddingSection())
    seen, found = Counter[str](), Counter[str]()
    for seed in range(given.first, given.first + given.seeds):
        for messages in World(seed, 20).dialogues(60):
            seen += pairs(messages)
            found += read(messages, encoder)
    print(f"corrections seen: {seen['correction, seen']} of {seen['correction']}")
    print(f"other pairs taken for one: {seen['other, seen']} of {seen['other']}")
    for name in ("new value read", "new value first", "old value read"):
        print(f"{name}: {found[name]} of {found['questions']} questions ({100 * found[name] / found['questions']:.1f} %)")


if __name__ == "__main__":
    main()
