"""Generations under way as one batch that changes between two steps: rows come, step, go.

Which of these a model gets depends on what its cache allows, which `ndml.fusion.families` measures:

    SlotRows    keys and values alone: rows share one cache that is allocated ahead (`slots.py`)
    JoinedRows  recurrent states and hybrids, ways of fusion beside the prompt: caches are put together and taken apart as rows come and go
    SplitRows   both, side by side: what is a prompt and nothing else goes into slots
    SingleRow   state inside the model's own modules (RecurrentGemma): one generation after the other
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from ndml.fusion.decoding import Running
from ndml.fusion.ways import Fusion, Plan
from services.llm.prefixes import Prefixes
from services.llm.settings import ChatSection
from services.llm.slots import SlotRows, fits


class Rows(Protocol):
    """A batch under way. One thread. `add` and `keep` give the order of the rows from now on, as places among those before.

    limit: rows at most, None for as many as there is room for.
    """

    limit: int | None

    @property
    def logits(self) -> Tensor:
        """(B, V) of each row's next token."""

    def add(self, plans: Sequence[Plan]) -> list[int]:
        """Read prompts; their places come after those of the rows before."""

    def step(self, tokens: Sequence[int]) -> None:
        """One more token in each row."""

    def keep(self, rows: Sequence[int]) -> list[int]:
        """These places alone, given from small to large."""


class JoinedRows:
    """See above. Where rows change each other (`Family.batches`) they step one by one, where they cannot be joined there is but one."""

    def __init__(self, fusion: Fusion) -> None:
        self.limit: int | None = None if fusion.family.joins else 1
        self._fusion = fusion
        self._running: Running | None = None

    def __len__(self) -> int:
        return 0 if self._running is None else len(self._running)

    @property
    def logits(self) -> Tensor:
        assert self._running is not None
        return self._running.logits

    def add(self, plans: Sequence[Plan]) -> list[int]:
        before = [] if self._running is None else [self._running]
        self._running = self._fusion.join([*before, *(self._fusion.start(plan) for plan in plans)])
        return list(range(len(self)))

    def step(self, tokens: Sequence[int]) -> None:
        assert self._running is not None
        self._running = self._fusion.step(self._running, torch.tensor(list(tokens)))

    def keep(self, rows: Sequence[int]) -> list[int]:
        self._running = self._fusion.take(self._running, rows) if rows and self._running is not None else None
        return list(rows)


class SplitRows:
    """See above: the slots' rows come first."""

    limit: int | None = None

    def __init__(self, slots: SlotRows, joined: JoinedRows) -> None:
        self._slots, self._joined = slots, joined

    @property
    def logits(self) -> Tensor:
        parts = [rows.logits for rows in (self._slots, self._joined) if len(rows)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def add(self, plans: Sequence[Plan]) -> list[int]:
        first, second = len(self._slots), len(self._joined)
        plain = [i for i, plan in enumerate(plans) if _plain(plan)]
        other = [i for i, plan in enumerate(plans) if not _plain(plan)]
        front = [*range(first), *(first + second + i for i in plain)]
        back = [*range(first, first + second), *(first + second + i for i in other)]
        front = [front[at] for at in self._slots.add([plans[i] for i in plain])] if plain else front
        back = [back[at] for at in self._joined.add([plans[i] for i in other])] if other else back
        return front + back

    def step(self, tokens: Sequence[int]) -> None:
        count = len(self._slots)
        for rows, part in ((self._slots, tokens[:count]), (self._joined, tokens[count:])):
            if len(part):
                rows.step(part)

    def keep(self, rows: Sequence[int]) -> list[int]:
        count = len(self._slots)
        front, back = [row for row in rows if row < count], [row - count for row in rows if row >= count]
        order = self._slots.keep(front) if count else []
        return order + ([count + row for row in self._joined.keep(back)] if len(self._joined) else [])


class SingleRow:
    """See above. The model itself goes on from a token; keys and values, where it has any, it writes into the cache that it is given."""

    limit: int | None = 1

    def __init__(self, fusion: Fusion) -> None:
        self._model, self._device = fusion.decoder.model, fusion.decoder.device
        self._cache = DynamicCache()
        self._length = 0
        self.logits = torch.empty(0)

    def add(self, plans: Sequence[Plan]) -> list[int]:
        [plan] = plans
        self._length, self._cache = 0, DynamicCache(config=self._model.config)
        self._pass(plan.tokens)
        return [0]

    def step(self, tokens: Sequence[int]) -> None:
        self._pass(tokens)

    def keep(self, rows: Sequence[int]) -> list[int]:
        return list(rows)

    @torch.inference_mode()
    def _pass(self, tokens: Sequence[int]) -> None:
        positions = torch.arange(self._length, self._length + len(tokens), device=self._device)[None]
        given: dict[str, Any] = {"input_ids": torch.tensor([list(tokens)], device=self._device), "position_ids": positions}
        self.logits = self._model(**given, past_key_values=self._cache, use_cache=True).logits[:, -1]
        self._length += len(tokens)


def rows_for(fusion: Fusion, settings: ChatSection) -> Callable[[], Rows]:
    """What makes an empty batch of the kind that the model allows; a pass of the model finds out which."""
    if fusion.family.continues == "no":
        return lambda: SingleRow(fusion)
    if not fits(fusion):
        return lambda: JoinedRows(fusion)
    reading, most = settings.prefill_tokens, settings.batch_tokens
    return lambda: SplitRows(SlotRows(fusion, Prefixes(settings.prefix_bytes), reading, most), JoinedRows(fusion))


def _plain(plan: Plan) -> bool:
    """Tokens and nothing else."""
    return plan.prefix is None and plan.state is None and plan.memory is None and plan.store is None
