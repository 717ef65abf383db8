"""Episodes as tokens: what the model sees, what it should say, and where in memory each token of that stands."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ndml.errors import FieldInvalid
from ndml.fusion.prompt import Message, Turn
from ndml.fusion.ways import template
from ndml.training.data import Ask

IGNORED = -100  # label of what is given, not said
_TEXTS = 65_536  # tokenised texts that are kept: each is asked for again in every pass over a file


@dataclass(frozen=True, slots=True)
class Spoken:
    """A question as the model is asked it, and the answer: ids that follow each other."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """Questions side by side, padded on the right: causal models do not see what comes later.

    ids, labels  (B, T); labels are those of the next token, IGNORED where it is not of the answer
    """

    ids: Tensor
    labels: Tensor

    def first(self) -> list[int]:
        """Where each row's answer is first predicted."""
        return [int(row.ne(IGNORED).nonzero()[0]) for row in self.labels]


class Writer:
    """Questions and answers in a model's own form."""

    def __init__(self, tokenizer: Any, prompt_tokens: int, answer_tokens: int, context: int | None = None) -> None:
        self._tokenizer, self._prompt, self._answer, self._context = tokenizer, prompt_tokens, answer_tokens, context
        self._kept: OrderedDict[Any, tuple[int, ...]] = OrderedDict()

    def spoken(self, ask: Ask, line: int = 0, before: Sequence[Turn] = ()) -> Spoken:
        """What stands between question and answer, and after it, is the chat template's affair. Raises FieldInvalid past the bounds."""
        turns = [*before, Message("user", ask.question)]
        prompt = tuple(template(self._tokenizer, turns))
        # What a template writes for an assistant may depend on the roles before it, never on their words.
        answer = self._once((tuple(turn.role for turn in turns), ask.answer), lambda: self._said(turns, ask.answer))
        where = f"line {line}: " if line else ""
        if self._context is not None and len(prompt) + len(answer) > self._context:
            took = f"question and answer take {len(prompt) + len(answer)} tokens of the model's {self._context}"
            raise FieldInvalid(f"{where}{took}: shorten them", field="data")
        for name, ids, most in (("prompt", prompt, self._prompt), ("answer", answer, self._answer)):
            if len(ids) > most:
                raise FieldInvalid(
                    f"{where}the {name} has {len(ids)} tokens, {name}_tokens allows {most}: shorten it or raise the bound", field="data"
                )
        return Spoken(prompt, answer)

    def tokens(self, text: str) -> tuple[int, ...]:
        """Ids of a memory's text, without special ones."""
        return self._once(text, lambda: tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"]))

    def _once(self, key: Any, make: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = make()
            if len(self._kept) > _TEXTS:
                self._kept.popitem(last=False)
        return found

    def _said(self, turns: Sequence[Turn], answer: str) -> tuple[int, ...]:
        """The answer as the template writes an assistant's turn, its end included; without a template " answer" and the end token."""
        if getattr(self._tokenizer, "chat_template", None):
            given: list[dict[str, str]] = [{"role": t.role, "content": t.content} for t in turns]
            asked: str = self._tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=True)
            whole: str = self._tokenizer.apply_chat_template([*given, {"role": "assistant", "content": answer}], tokenize=False)
            if whole.startswith(asked):
                return tuple(self._tokenizer(whole[len(asked) :], add_special_tokens=False)["input_ids"])
        end = self._tokenizer.eos_token_id
        ids = self._tokenizer(" " + answer, add_special_tokens=False)["input_ids"]
        return (*ids, *(() if end is None else (end,)))


def rows(spoken: Sequence[Spoken], device: torch.device) -> Rows:
    """Questions as a batch."""
    longest = max(len(s.prompt) + len(s.answer) for s in spoken) - 1
    ids = torch.zeros(len(spoken), longest, dtype=torch.long)
    labels = torch.full((len(spoken), longest), IGNORED)
    for at, each in enumerate(spoken):
        whole = (*each.prompt, *each.answer)
        ids[at, : len(whole) - 1] = torch.tensor(whole[:-1])
        labels[at, len(each.prompt) - 1 : len(whole) - 1] = torch.tensor(each.answer)
    return Rows(ids.to(device), labels.to(device))


@dataclass(frozen=True, slots=True)
class Sites:
    """Where answers stand in memory.

    row, time     (G,) which predictions should look somewhere
    group, token  (P,) for which of them, at which memory token; a prediction may have several
    """

    row: Tensor
    time: Tensor
    group: Tensor
    token: Tensor


def sites(found: Sequence[tuple[int, int, Sequence[int]]], device: torch.device) -> Sites:
    """Of (row, time, tokens)."""
    predictions = torch.tensor([(row, time) for row, time, _ in found], dtype=torch.long, device=device).reshape(-1, 2)
    flat = [(group, token) for group, (_, _, tokens) in enumerate(found) for token in tokens]
    places = torch.tensor(flat, dtype=torch.long, device=device).reshape(-1, 2)
    return Sites(*predictions.unbind(1), *places.unbind(1))


def standing(answer: Sequence[str], entries: Sequence[tuple[int, Sequence[str]]]) -> list[tuple[int, ...]]:
    """For each piece of an answer the memory tokens that say it, those at the end of the longest run of the answer within one entry.

    entries: those that the answer stands in: number of the first memory token, and the pieces from there on.
    """
    before: dict[int, int] = {}
    found = []
    for piece in answer:
        runs = {
            first + at: 1 + (before.get(first + at - 1, 0) if at else 0)
            for first, said in entries
            for at, other in enumerate(said)
            if other == piece
        }
        longest = max(runs.values(), default=0)
        found.append(tuple(place for place, run in runs.items() if run == longest))
        before = runs
    return found


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """What tokens spell, whether they begin a word or not: " Miso" of a memory is the "Miso" that an answer begins with."""
    return [str(piece).lstrip("Ġ▁ ") for piece in tokenizer.convert_ids_to_tokens(list(ids))]
