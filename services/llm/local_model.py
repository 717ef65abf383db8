"""A Hugging Face causal LM in this process: prompt in, tokens out. Blocking; `generator.py` gives it threads and a stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LogitsProcessorList
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging as transformers_logging

from ndml.errors import FieldInvalid
from services.llm.encoder import pick_device
from services.llm.model_files import explained, resolve
from services.llm.ports import Message, Sampling
from services.llm.prompt import PromptWriter
from services.llm.settings import ChatSection

transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
_UNBOUNDED = 1 << 24


class LocalModel:
    """Weights, tokenizer and what they allow; `run` blocks and may run in several threads at once."""

    def __init__(self, name: str, tokenizer: Any, network: Any, context_tokens: int | None) -> None:
        self.name, self._tokenizer, self._network, self._context = name, tokenizer, network, context_tokens
        self.prompts = PromptWriter(tokenizer)
        self._ends = _ends(tokenizer, network)

    @classmethod
    def load(cls, settings: ChatSection) -> LocalModel:
        """Takes seconds to minutes. Raises ModelUnavailable."""
        name, source = resolve(settings.model)
        device = pick_device(settings.device, "chat.device")
        dtype = "float32" if settings.dtype == "auto" and device.type == "cpu" else settings.dtype
        with explained("chat.model", settings.model):
            tokenizer = AutoTokenizer.from_pretrained(source)
            network: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
            network = network.to(device).eval()
        return cls(name, tokenizer, network, settings.context_tokens or _context(tokenizer, network))

    def prepare(self, messages: Sequence[Message], sampling: Sampling, default_new: int) -> tuple[list[int], int]:
        """(prompt ids, new tokens at most). Raises FieldInvalid where they cannot fit the context."""
        if self._context is None:
            return self.prompts.fit(messages, None), sampling.max_new_tokens or default_new
        new = sampling.max_new_tokens or min(default_new, self._context // 2)
        if new >= self._context:
            raise FieldInvalid(
                f"{new} new tokens leave no room for a prompt: the model's context is {self._context} tokens",
                field="sampling.max_new_tokens",
            )
        return self.prompts.fit(messages, self._context - new), new

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def run(self, prompt: Sequence[int], new_tokens: int, sampling: Sampling, on_token: Callable[[int], bool]) -> Literal["stop", "length"]:
        """Generate until `on_token(token)` returns False, an end token comes, or `new_tokens` are out."""
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            num_beams=1,
            max_new_tokens=new_tokens,
            use_cache=True,
            eos_token_id=self._ends or None,
            pad_token_id=self._pad(),
        )
        ids = torch.tensor([list(prompt)], device=self._network.device)  # (1, T)
        streamer = _TokenStream(on_token, frozenset(self._ends))
        processors = LogitsProcessorList([_Sampler(sampling)] if sampling.temperature > 0 else [])
        try:
            with torch.inference_mode():
                self._network.generate(
                    ids, attention_mask=torch.ones_like(ids), generation_config=config, logits_processor=processors, streamer=streamer
                )
        except _Halt:
            return "stop"
        return "stop" if streamer.ended else "length"

    def _pad(self) -> int:
        pad = self._tokenizer.pad_token_id
        return int(pad) if pad is not None else (self._ends or [0])[0]


class _Halt(Exception):
    """Ends transformers' generate from inside its streamer: the one hook that sees each token before the next is computed."""


class _TokenStream(BaseStreamer):
    """Passes new tokens on; the first call brings the prompt."""

    def __init__(self, on_token: Callable[[int], bool], ends: frozenset[int]) -> None:
        self._on_token, self._ends = on_token, ends
        self._prompt_seen = False
        self.ended = False

    def put(self, value: torch.Tensor) -> None:
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        for token in value.reshape(-1).tolist():
            self.ended = token in self._ends
            if not self._on_token(token):
                raise _Halt

    def end(self) -> None:
        """Nothing to do: the end is seen by generate's return."""


class _Sampler:
    """Temperature and nucleus sampling from a random source of its own, so that a seed holds while others generate beside it."""

    def __init__(self, sampling: Sampling) -> None:
        self._temperature, self._top_p = sampling.temperature, sampling.top_p
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def __call__(self, _ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (1, V) to scores in which one token is left."""
        probabilities = torch.softmax(scores[0].float().cpu() / self._temperature, dim=-1)  # (V,)
        ordered, order = probabilities.sort(descending=True)
        outside = ordered.cumsum(0) - ordered >= self._top_p  # the token that crosses top_p still counts, so one is always left
        chosen = order[torch.multinomial(ordered.masked_fill(outside, 0.0), 1, generator=self._random)]
        return torch.full_like(scores, float("-inf")).index_fill(1, chosen.to(scores.device), 0.0)


def _ends(tokenizer: Any, network: Any) -> list[int]:
    """Tokens that end an answer: the model's (chat models list several) and the tokenizer's."""
    listed = getattr(network.generation_config, "eos_token_id", None)
    ids = listed if isinstance(listed, list) else [listed]
    return sorted({int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None})


def _context(tokenizer: Any, network: Any) -> int | None:
    """Positions that the model was made for; None for one without a limit (state space models)."""
    config = network.config.get_text_config()
    limits = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    return min((int(limit) for limit in limits if limit and limit < _UNBOUNDED), default=None)
