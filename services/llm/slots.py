"""Rows of a model that keeps keys and values alone, in one cache that is allocated ahead: a step copies nothing but the new token.

Every layer has (rows, heads, columns, d). All rows end in the same column, which moves on by one with each step; a row begins as many
columns before it as it has tokens, and what stands left of it is masked. New rows are read straight into the columns before the common end.
A row that goes is replaced by the last one. Where the columns run out, what is in use moves back to the left, as seldom as the cache is
wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import cache_utils

from ndml.fusion.ways import Fusion, Plan
from services.llm.batching import pack
from services.llm.prefixes import BLOCK, Block, Prefixes

_ROWS = 8  # by which the cache grows
_SPARE = 64  # columns at least that it is ahead
_AHEAD = 2  # times what rows may take, or one alone needs, that is allocated at most
_PASS_TOKENS = 64  # what a pass costs beside its tokens, in tokens: padding up to this is cheaper than another pass
_LAYERS = (cache_utils.DynamicLayer, cache_utils.DynamicSlidingWindowLayer)


class Window:
    """The part of the cache that a pass reads; it writes the last `new` columns of that. height, width: of the cache."""

    def __init__(self) -> None:
        self.height = self.width = 0
        self.rows, self.columns, self.new = slice(0, 0), slice(0, 0), 0


class SlotLayer(cache_utils.DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer of transformers' cache that writes into a window of tensors allocated ahead: keys, values."""

    def __init__(self, window: Window) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.window = window

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.whole = [self._empty(states) for states in (key_states, value_states)]
        self.is_initialized = True

    def _empty(self, like: Tensor) -> Tensor:
        return like.new_zeros(self.window.height, like.shape[1], self.window.width, like.shape[3])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """(B, heads, T, d) in, (B, heads, L, d) of the window out."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        window = self.window
        read = [tensor[window.rows, :, window.columns] for tensor in self.whole]
        for part, states in zip(read, (key_states, value_states), strict=True):
            part[:, :, -window.new :] = states
        return read[0], read[1]

    def get_seq_length(self) -> int:
        """Before this pass."""
        return self.window.columns.stop - self.window.columns.start - self.window.new

    def move(self, rows: int, columns: slice, end: int) -> None:
        """Into fresh tensors of the window's size, ending in column `end`."""
        if self.is_initialized:
            self.whole = [self._moved(tensor, rows, columns, end) for tensor in self.whole]

    def _moved(self, tensor: Tensor, rows: int, columns: slice, end: int) -> Tensor:
        fresh = self._empty(tensor)
        fresh[:rows, :, end - (columns.stop - columns.start) : end] = tensor[:rows, :, columns]
        return fresh


class SlotRows:
    """See above and rows.Rows. Takes plans of way prompt: what is more than tokens goes through JoinedRows."""

    limit: int | None = None

    def __init__(self, fusion: Fusion, prefixes: Prefixes, prefill_tokens: int, most_tokens: int) -> None:
        """prefill_tokens: read in one pass; most_tokens: rows times the longest of them, which the caller keeps to."""
        self._model, self._family, self._device = fusion.decoder.model, fusion.family, fusion.decoder.device
        self._prefixes, self._prefill, self._most = prefixes, prefill_tokens, most_tokens
        self._window = Window()
        made = partial(SlotLayer, self._window)
        self._cache = cache_utils.Cache(layer_class_to_replicate=made)  # type: ignore[arg-type]
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=self._device)
        self._lengths: list[int] = []
        self._end = 0
        self.logits = torch.empty(0)

    def __len__(self) -> int:
        return len(self._lengths)

    @torch.inference_mode()
    def add(self, plans: Sequence[Plan]) -> list[int]:
        """Reads prompts of like length together."""
        before = len(self._lengths)
        order = list(range(before))
        logits = [self.logits] if self._lengths else []
        found = [self._prefixes.find(plan.tokens) for plan in plans]
        left = [len(plan.tokens) - BLOCK * len(blocks) for plan, blocks in zip(plans, found, strict=True)]
        self._reserve(len(plans), max(len(plan.tokens) for plan in plans))
        for group in pack(left, self._prefill, _PASS_TOKENS):
            logits.append(self._read([plans[i].tokens for i in group], [found[i] for i in group], max(left[i] for i in group)))
            order += [before + i for i in group]
        self.logits = torch.cat(logits)
        return order

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> None:
        """See rows.Rows."""
        self._reserve(0, 0, columns=1)
        rows = len(self._lengths)
        self._mask[:rows, self._end] = 1
        self._end += 1
        positions = torch.tensor(self._lengths, device=self._device)[:, None]
        self._lengths = [length + 1 for length in self._lengths]
        self.logits = self._pass(torch.tensor(list(tokens), device=self._device)[:, None], positions, slice(0, rows), max(self._lengths))

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> list[int]:
        """The last of those that stay take the places of those that go."""
        wanted, order = set(rows), list(range(len(self._lengths)))
        used = slice(self._end - max(self._lengths), self._end)
        for place in range(len(rows)):
            if order[place] not in wanted:
                while order[-1] not in wanted:
                    order.pop()
                order[place] = order.pop()
                self._copy(order[place], place, used)
        order = order[: len(rows)]
        self._lengths, self.logits = [self._lengths[row] for row in order], self.logits[order]
        if not order and self._window.height * self._window.width > self._bound():
            self._end = 0
            self._resize(0, 0, slice(0, 0))  # one alone may exceed the bound, and nobody after it should pay for that
        return order

    def _copy(self, source: int, target: int, columns: slice) -> None:
        for tensor in self._tensors():
            tensor[target, :, columns] = tensor[source, :, columns]
        self._mask[target] = self._mask[source]

    def _read(self, prompts: Sequence[Sequence[int]], found: Sequence[Sequence[Block]], width: int) -> Tensor:
        """Logits (k, V) after prompts whose last `width` tokens are not kept anywhere; of shorter beginnings some is read again."""
        first, end = len(self._lengths), self._end
        ids, positions = (torch.zeros(len(prompts), width, dtype=torch.long) for _ in range(2))
        for row, tokens in enumerate(prompts):
            new = min(len(tokens), width)
            ids[row, width - new :] = torch.tensor(tokens[len(tokens) - new :])
            positions[row, width - new :] = torch.arange(len(tokens) - new, len(tokens))
            self._restore(found[row], first + row, end - len(tokens), len(tokens) - new)
            self._mask[first + row] = 0
            self._mask[first + row, end - len(tokens) : end] = 1
        self._lengths += [len(tokens) for tokens in prompts]
        longest = max(len(tokens) for tokens in prompts)
        logits = self._pass(ids.to(self._device), positions.to(self._device), slice(first, len(self._lengths)), longest)
        for row, tokens in enumerate(prompts):
            self._remember(tokens, first + row, end - len(tokens))
        return logits

    def _pass(self, ids: Tensor, positions: Tensor, rows: slice, longest: int) -> Tensor:
        """Logits (B, V) at the last column."""
        window = self._window
        window.rows, window.columns, window.new = rows, slice(self._end - longest, self._end), ids.shape[1]
        given: dict[str, Any] = {"input_ids": ids, self._family.cache: self._cache, "use_cache": True}
        if self._family.masks:
            given["attention_mask"] = self._mask[rows, window.columns]
        if self._family.positions:
            given["position_ids"] = positions
        if self._family.trims:
            given["logits_to_keep"] = 1
        logits: Tensor = self._model(**given).logits[:, -1]
        return logits

    def _reserve(self, rows: int, longest: int, columns: int = 0) -> None:
        """Room for more rows, and for `longest` tokens left of the common end and `columns` right of it."""
        window, height = self._window, len(self._lengths) + rows
        if not self._lengths:
            self._end = max(longest, 1)
        if height <= window.height and self._end >= longest and self._end + columns <= window.width:
            return
        used = max(self._lengths, default=0)
        old, self._end = slice(self._end - used, self._end), max(used, longest)
        self._resize(*self._size(height, self._end + columns), old)

    def _size(self, rows: int, columns: int) -> tuple[int, int]:
        """Height and width of a cache that holds so many, and is ahead of that as far as the bound lets it."""
        most = self._bound(rows * columns)
        width = min(columns + max(_SPARE, columns // 2), most // rows)
        ahead = max(-(-rows // _ROWS) * _ROWS, self._window.height)  # a batch that shrank grows again: moving costs as much as many steps
        return max(rows, min(ahead, most // width)), width

    def _bound(self, needed: int = 0) -> int:
        """Rows times columns that may be allocated."""
        return _AHEAD * max(self._most, needed)

    def _resize(self, height: int, width: int, used: slice) -> None:
        """Into a cache of another size; the columns in use then end at the common end."""
        window, rows = self._window, len(self._lengths)
        window.height, window.width = height, width
        for layer in self._layers():
            layer.move(rows, used, self._end)
        mask = torch.zeros(height, width, dtype=torch.long, device=self._device)
        mask[:rows, self._end - (used.stop - used.start) : self._end] = self._mask[:rows, used]
        self._mask = mask

    def _layers(self) -> list[SlotLayer]:
        return [layer for layer in self._cache.layers if isinstance(layer, SlotLayer)]

    def _tensors(self) -> list[Tensor]:
        """Keys and values of every layer, (rows, heads, columns, d); layers may differ in all but rows and columns."""
        return [tensor for layer in self._layers() for tensor in layer.whole]

    def _restore(self, blocks: Sequence[Block], row: int, begin: int, most: int) -> None:
        """What is kept of a row's beginning into its columns, `most` tokens of it at most."""
        kept = [block.kept for block in blocks if block.kept]
        if not kept or most <= 0:
            return
        for tensor, *parts in zip(self._tensors(), *kept, strict=True):
            part = torch.cat(parts, dim=1)[:, :most]  # (heads, n, d)
            tensor[row, :, begin : begin + part.shape[1]] = part

    def _remember(self, tokens: Sequence[int], row: int, begin: int) -> None:
        for block in self._prefixes.seen(tokens):
            at = slice(begin + block.at, begin + block.at + BLOCK)
            self._prefixes.keep(block, tuple(tensor[row, :, at].clone() for tensor in self._tensors()))


def fits(fusion: Fusion) -> bool:
    """The model's rows may live in slots: full or windowed attention alone, told by mask and positions."""
    family = fusion.family
    if (family.keeps, family.continues) != ("kv", "block") or not (family.batches and family.pads and family.masks):
        return False
    cache = fusion.decoder.read([0, 1]).cache
    return family.cache == "past_key_values" and all(type(layer) in _LAYERS for layer in cache.layers)
