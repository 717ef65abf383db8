"""How well the shipped model answers, through the prompt that serving writes and greedy generation. `python -m ndml.tiny.evaluate`.

Names and values of all questions are of the test side: training never saw them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, time
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ndml import tiny
from ndml.fusion.prompt import PromptLimits, write_block
from ndml.fusion.readout import Entry, MemoryReadout
from ndml.tiny.scenes import Line, Plan, Scene, Turn, Writer
from ndml.tiny.smalltalk import UNKNOWN

_CITED = re.compile(r" \[(\d+)\]$")
USUAL = Plan(turns=(2, 6))
CASES: dict[str, tuple[Plan, str]] = {
    "held-out names and values": (USUAL, "fact"),
    "held-out questions": (Plan(turns=(2, 6), held_out_asked=True), "fact"),
    "held-out statements": (Plan(turns=(2, 6), held_out_said=True, changes=0.0), "fact"),
    "corrections": (Plan(turns=(2, 6), lines=(3, 10), changes=0.6), "changed"),
    "not in memory": (Plan(turns=(2, 6), unknown=0.6), "unknown"),
    "not in memory, held-out questions": (Plan(turns=(2, 6), unknown=0.6, held_out_asked=True), "unknown"),
    "20 to 30 lines": (Plan(lines=(20, 30), turns=(3, 6)), "fact"),
}


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation that ends with a question, and what stands in memory."""

    lines: tuple[Line, ...]
    before: tuple[Turn, ...]
    turn: Turn


@dataclass(frozen=True, slots=True)
class Row:
    """Questions; share answered exactly, with the value in the answer, with the right citation; share that says it does not know."""

    questions: int
    exact: float
    value: float
    cited: float
    unknown: float


class Model:
    """The model of a folder with its tokenizer."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        self._model = model.eval()

    def prompt(self, question: Question) -> str:
        """As serving writes it."""
        entries = [
            Entry(line.number, line.text, line.speaker, datetime.combine(line.said, time(0, minute // 60, minute % 60), UTC))
            for minute, line in enumerate(question.lines)
        ]
        block = write_block(MemoryReadout(tuple(entries)), self._count, PromptLimits(tokens=1800), self._tokenizer.all_special_tokens)
        messages = [{"role": m.role, "content": m.content} for m in block.into([])]
        for turn in question.before:
            messages += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.answer}]
        messages.append({"role": "user", "content": question.turn.user})
        text: str = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return text

    def answers(self, questions: Sequence[Question], batch: int = 32, tokens: int = 48) -> list[str]:
        """Greedy answers in the order of the questions; like lengths are generated together."""
        prompts = [self.prompt(q) for q in questions]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        found = [""] * len(prompts)
        for first in range(0, len(order), batch):
            part = order[first : first + batch]
            inputs = self._tokenizer([prompts[i] for i in part], return_tensors="pt", padding=True, add_special_tokens=False)
            with torch.inference_mode():
                made = self._model.generate(
                    input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False, max_new_tokens=tokens
                )
            new = made[:, inputs["input_ids"].shape[1] :]
            for i, text in zip(part, self._tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                found[i] = text
        return found

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def questions(case: str, count: int, seed: int = 7) -> list[Question]:
    """Held-out questions of a case; half have the turns before them in the conversation."""
    plan, kind = CASES[case]
    random = Random(f"{case}:{seed}")
    writer = Writer(random, plan, test=True)
    found: list[Question] = []
    while len(found) < count:
        scene = writer.scene()
        found += [Question(scene.lines, before, turn) for before, turn in _ends(scene, random) if turn.kind == kind]
    return found[:count]


def _ends(scene: Scene, random: Random) -> list[tuple[tuple[Turn, ...], Turn]]:
    """One question of a scene, two where it is long: many scenes tell more than many questions of one."""
    picked = random.sample(range(len(scene.turns)), min(2, len(scene.turns)))
    return [(scene.turns[:i] if random.random() < 0.5 else (), scene.turns[i]) for i in picked]


def shuffle(asked: Sequence[Question]) -> list[Question]:
    """Each question over the memory of the next scene: what is right now can only have been known by heart, or by chance."""
    found = []
    for i, question in enumerate(asked):
        others = (asked[(i + step) % len(asked)].lines for step in range(1, len(asked)))
        found.append(Question(next((lines for lines in others if lines is not question.lines), ()), (), question.turn))
    return found


def score(asked: Sequence[Question], answers: Sequence[str]) -> Row:
    """A row of the table."""
    count = max(1, len(asked))
    plain = [_CITED.sub("", a) for a in answers]
    wanted = [_CITED.sub("", q.turn.answer) for q in asked]
    numbers = [(_CITED.findall(a), _CITED.findall(q.turn.answer)) for q, a in zip(asked, answers, strict=True)]
    return Row(
        len(asked),
        sum(a == w for a, w in zip(plain, wanted, strict=True)) / count,
        sum(q.turn.value in a for q, a in zip(asked, plain, strict=True) if q.turn.value) / count,
        sum(a == b for a, b in numbers) / count,
        sum(a == UNKNOWN for a in plain) / count,
    )


def evaluate(model: Model, count: int) -> dict[str, Any]:
    """All rows, and the first four by relation."""
    rows: dict[str, Row] = {}
    by_relation: dict[str, dict[str, Row]] = {}
    for case in CASES:
        asked = questions(case, count)
        answers = model.answers(asked)
        rows[case] = score(asked, answers)
        for name in sorted({q.turn.relation for q in asked}):
            part = [(q, a) for q, a in zip(asked, answers, strict=True) if q.turn.relation == name]
            by_relation.setdefault(name, {})[case] = score([q for q, _ in part], [a for _, a in part])
    asked = questions("held-out names and values", count)
    rows["shuffled memory"] = score(shuffle(asked), model.answers(shuffle(asked)))
    nothing = [Question((), (), q.turn) for q in asked[: count // 2]]
    rows["empty memory"] = score(nothing, model.answers(nothing))
    return {
        "rows": {name: asdict(row) for name, row in rows.items()},
        "relations": {name: {case: asdict(row) for case, row in cases.items()} for name, cases in by_relation.items()},
    }


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    lines = ['| questions about | asked | exact | value | citation | "I don\'t know" |', "|---|---|---|---|---|---|"]
    for name, row in result["rows"].items():
        shares = " | ".join(f"{100 * row[key]:.1f} %" for key in ("exact", "value", "cited", "unknown"))
        lines.append(f"| {name} | {row['questions']} | {shares} |")
    cases = list(CASES)
    lines += ["", "| relation, exact | " + " | ".join(cases) + " |", "|---" * (len(cases) + 1) + "|"]
    for name, found in result["relations"].items():
        cells = (f"{100 * found[c]['exact']:.0f} % of {found[c]['questions']}" if c in found else "" for c in cases)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ndml.tiny.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=tiny.path(), help="folder with the weights")
    parser.add_argument("--questions", type=int, default=1000, help="of each row")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    result = evaluate(Model(given.model), given.questions)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(table(result) + "\n")


if __name__ == "__main__":
    main()
