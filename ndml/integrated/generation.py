"""An answer of the model in this process: plan, within the context, then token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ndml.errors import FieldInvalid
from ndml.fusion.prompt import Message
from ndml.fusion.readout import MemoryReadout
from ndml.fusion.ways import Fusion, Plan, Way


@dataclass(frozen=True, slots=True)
class Made:
    """An answer; used: numbers of the memories that the model read."""

    text: str
    used: tuple[int, ...]
    way: str
    prompt_tokens: int
    completion_tokens: int


class Generation:
    """Blocking; any number of threads."""

    def __init__(self, fusion: Fusion, model: Any, tokenizer: Any) -> None:
        self._fusion, self._model, self._tokenizer = fusion, model, tokenizer
        listed = getattr(model.generation_config, "eos_token_id", None)
        ends = [*(listed if isinstance(listed, list) else [listed]), tokenizer.eos_token_id]
        self._ends = sorted({int(end) for end in ends if end is not None})

    def answer(
        self, messages: Sequence[Message], read: MemoryReadout, way: str, new_tokens: int, temperature: float, seed: int | None
    ) -> Made:
        """Raises FieldInvalid where a value is out of its range or the question alone does not fit the model."""
        if not (1 <= new_tokens <= 1 << 20 and 0 <= temperature <= 2):
            raise FieldInvalid(
                f"max_new_tokens {new_tokens}, temperature {temperature}: give 1 or more, and 0 to 2", field="max_new_tokens"
            )
        plan = self._fitting(messages, read, way, new_tokens)
        pick = _Picker(temperature, seed)
        ids = self._stepped(plan, new_tokens, pick) if self._fusion.family.continues != "no" else self._generated(plan, new_tokens, pick)
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True).strip()
        return Made(text, plan.used, plan.way, plan.positions, len(ids))

    def _fitting(self, messages: Sequence[Message], read: MemoryReadout, way: str, new_tokens: int) -> Plan:
        """The oldest turns give way, system messages and the last one do not."""
        left = list(messages)
        context = self._fusion.family.context
        while True:
            plan = self._fusion.plan(left, read, cast(Way, way), beside=new_tokens)
            if context is None or plan.positions + new_tokens <= context:
                return plan
            oldest = next((at for at, message in enumerate(left[:-1]) if message.role != "system"), None)
            if oldest is None:
                raise FieldInvalid(
                    f"the last message and {new_tokens} new tokens do not fit a context of {context}: shorten it, or ask for fewer",
                    field="messages",
                )
            del left[oldest]

    def _stepped(self, plan: Plan, new_tokens: int, pick: _Picker) -> list[int]:
        running = self._fusion.start(plan)
        ids: list[int] = []
        while True:
            token = pick(running.logits)
            if int(token) in self._ends:
                return ids
            ids.append(int(token))
            if len(ids) == new_tokens:
                return ids
            running = self._fusion.step(running, token)

    def _generated(self, plan: Plan, new_tokens: int, pick: _Picker) -> list[int]:
        """For models that keep their state inside: transformers' own loop."""
        with self._fusion.for_generate([plan]) as given, torch.inference_mode():
            given["logits_processor"] = [*given.get("logits_processor", []), pick.processor]
            length = given["input_ids"].shape[1] if "input_ids" in given else 0
            made = self._model.generate(
                **given, max_new_tokens=new_tokens, do_sample=False, eos_token_id=self._ends or None, pad_token_id=(self._ends or [0])[0]
            )
        return [int(token) for token in made[0, length:].tolist() if token not in self._ends]


class _Picker:
    """The next token of a row: the likeliest, or one drawn at a temperature from a random source of its own."""

    def __init__(self, temperature: float, seed: int | None) -> None:
        self._temperature = temperature
        self._random = torch.Generator()
        if seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(seed)

    def __call__(self, logits: Tensor) -> Tensor:
        """(1, V) to (1,)."""
        if not self._temperature:
            return logits.argmax(-1)
        shares = torch.softmax(logits[0].float().cpu() / self._temperature, dim=-1)
        return torch.multinomial(shares, 1, generator=self._random).to(logits.device)

    def processor(self, _ids: Tensor, scores: Tensor) -> Tensor:
        """As transformers' LogitsProcessor: one token is left."""
        return torch.full_like(scores, float("-inf")).index_fill(1, self(scores), 0.0)
