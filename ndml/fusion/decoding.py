"""Requests under way: read a prompt for one row, join rows into a batch, step it token by token.

Each row is prefilled alone and then joined: rows of any length, way and readout share one batch, may come and go between two steps, and
architectures that know no padding take part too. What a step needs of its rows travels with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ndml.errors import FieldInvalid, NotAvailable
from ndml.fusion import states
from ndml.fusion.adapter import Adapter, AdapterRows, join_rows
from ndml.fusion.families import Family
from ndml.fusion.knn import Datastore, HiddenTap, interpolate
from ndml.fusion.states import State


@dataclass(slots=True)
class Running:
    """A batch between two steps. It owns its cache: after `step` only what `step` gave may be used.

    logits     (B, V) of the next token, memory included
    mask       (B, L) slots of the cache that are real; positions (B,) of the next token
    rows       what the adapter reads, stores what kNN looks up, None where the row does not
    """

    logits: Tensor
    cache: Any
    mask: Tensor
    positions: Tensor
    rows: AdapterRows | None
    stores: tuple[Datastore | None, ...]

    def __len__(self) -> int:
        return int(self.logits.shape[0])


def join(running: Sequence[Running]) -> Running:
    """Batches as one, rows in order. Raises NotAvailable where the model's cache cannot be joined."""
    longest = max(r.mask.shape[1] for r in running)
    rows = [r.rows for r in running if r.rows is not None]
    return Running(
        logits=torch.cat([r.logits for r in running]),
        cache=states.join([r.cache for r in running]),
        mask=torch.cat([F.pad(r.mask, (longest - r.mask.shape[1], 0)) for r in running]),
        positions=torch.cat([r.positions for r in running]),
        rows=join_rows(rows) if rows else None,
        stores=tuple(store for r in running for store in r.stores),
    )


def take(running: Running, rows: Sequence[int]) -> Running:
    """Some rows of a batch, in this order: the others are done."""
    at = torch.tensor(list(rows), device=running.mask.device)
    return Running(
        logits=running.logits[at],
        cache=states.take(running.cache, rows),
        mask=running.mask[at],
        positions=running.positions[at],
        rows=None if running.rows is None else running.rows.take(rows),
        stores=tuple(running.stores[row] for row in rows),
    )


class Decoder:
    """Forward passes of one model, called in the way its family needs. Any thread; a Running belongs to one at a time."""

    def __init__(self, model: Any, family: Family, tap: HiddenTap, adapter: Adapter | None = None) -> None:
        self.model, self.family, self._tap, self._adapter = model, family, tap, adapter
        self.embed = model.get_input_embeddings()

    @property
    def device(self) -> torch.device:
        device: torch.device = self.embed.weight.device
        return device

    @torch.inference_mode()
    def read(self, tokens: Sequence[int]) -> State:
        """The state after `tokens`, at least one of them, from nothing. Raises NotAvailable where the family keeps none."""
        self._continues()
        return State(tuple(tokens), self._pass(self._ids(tokens), None, None)[1])

    @torch.inference_mode()
    def hidden(self, tokens: Sequence[int]) -> Tensor:
        """(T, H) that the output layer reads at each token."""
        ids = self._ids(tokens)
        given = {"attention_mask": torch.ones_like(ids)} if self.family.masks else {}
        with self._tap.watching() as tap:
            self.model(input_ids=ids, use_cache=False, **given)
            return tap.hidden[0].float().clone()

    @torch.inference_mode()
    def start(
        self,
        tokens: Sequence[int],
        *,
        prefix: Tensor | None = None,
        after: int = 0,
        state: State | None = None,
        rows: AdapterRows | None = None,
        store: Datastore | None = None,
    ) -> Running:
        """Read a prompt. prefix (n, E) goes in behind the first `after` tokens; state: what was read before `tokens`."""
        self._continues()
        if not tokens:
            raise FieldInvalid("a prompt has at least one token", field="messages")
        with ExitStack() as stack:
            self._enter(stack, rows, [store])
            inputs = self._ids(tokens) if prefix is None else self._embedded(tokens, prefix, after)
            logits, cache = self._after(state, inputs) if state is not None else self._pass(inputs, None, None)
            length = inputs.shape[1] + (0 if state is None else len(state))
            return self._running(logits, cache, torch.ones(1, length, dtype=torch.long, device=self.device), rows, (store,))

    @torch.inference_mode()
    def step(self, running: Running, tokens: Tensor) -> Running:
        """The batch after one more token (B,) in each row; row by row for a model whose rows change each other."""
        if len(running) > 1 and not self.family.batches:
            return join([self.step(take(running, [row]), tokens[row : row + 1]) for row in range(len(running))])
        mask = F.pad(running.mask, (0, 1), value=1)
        with ExitStack() as stack:
            self._enter(stack, running.rows, running.stores)
            logits, cache = self._pass(tokens.to(self.device)[:, None], running.cache, mask, running.positions[:, None])
            return self._running(logits, cache, mask, running.rows, running.stores)

    def _enter(self, stack: ExitStack, rows: AdapterRows | None, stores: Sequence[Datastore | None]) -> None:
        if self._adapter is not None:
            stack.enter_context(self._adapter.using(rows))
        if any(store is not None for store in stores):
            stack.enter_context(self._tap.watching())

    def _running(self, logits: Tensor, cache: Any, mask: Tensor, rows: AdapterRows | None, stores: tuple[Datastore | None, ...]) -> Running:
        """Called while the tap still watches."""
        if any(store is not None for store in stores):
            logits = interpolate(logits, self._tap.hidden[:, -1], stores)
        return Running(logits, cache, mask, mask.sum(1), rows, stores)

    def _after(self, state: State, inputs: Tensor) -> tuple[Tensor, Any]:
        """Go on from a copy of `state`, in one pass where the family can."""
        cache, read = states.clone(state.cache), len(state)
        width = inputs.shape[1] if self.family.continues == "block" else 1
        logits = torch.empty(0)
        for at in range(0, inputs.shape[1], width):
            part = inputs[:, at : at + width]
            end = read + at + part.shape[1]
            positions = torch.arange(end - part.shape[1], end, device=self.device)[None]
            logits, cache = self._pass(part, cache, torch.ones(1, end, dtype=torch.long, device=self.device), positions)
        return logits, cache

    def _pass(self, inputs: Tensor, cache: Any, mask: Tensor | None, positions: Tensor | None = None) -> tuple[Tensor, Any]:
        """inputs: ids (B, T) or embeddings (B, T, E). Logits (B, V) at the last token, and the cache after it."""
        family = self.family
        given: dict[str, Any] = {"input_ids" if inputs.dim() == 2 else "inputs_embeds": inputs, "use_cache": True}
        if mask is None:
            mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
        if positions is None:
            positions = torch.arange(inputs.shape[1], device=inputs.device)[None]
        if family.masks and (family.attends or cache is None):
            given["attention_mask"] = mask
        if family.positions:
            given["position_ids"] = positions
        if family.trims:
            given["logits_to_keep"] = 1
        if cache is not None:
            given[family.cache] = cache
        out = self.model(**given)
        return out.logits[:, -1], out[family.cache]

    def _ids(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor([list(tokens)], dtype=torch.long, device=self.device)

    def _embedded(self, tokens: Sequence[int], prefix: Tensor, after: int) -> Tensor:
        """(1, n + T, E)."""
        own = self.embed(self._ids(tokens))[0]
        return torch.cat([own[:after], prefix.to(device=own.device, dtype=own.dtype), own[after:]])[None]

    def _continues(self) -> None:
        if self.family.continues == "no":
            raise NotAvailable(
                f"{self.family.architecture} does not go on from a cache that a caller can hold: use generate (`for_generate`)"
            )
