"""Caches and recurrent states as values: copied before use, joined into a batch, mixed, kept by what they have read.

`prompt` and `state` read the same text; `state` has read it before. A state is never handed out itself: models write into what they get.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor
from transformers import cache_utils

from ndml.errors import FieldInvalid, NotAvailable

V = TypeVar("V")
_KNOWN = (
    cache_utils.DynamicLayer,
    cache_utils.DynamicSlidingWindowLayer,
    cache_utils.LinearAttentionLayer,
    cache_utils.LinearAttentionAndFullAttentionLayer,
    cache_utils.LinearAttentionAndSlidingWindowAttentionLayer,
)


@dataclass(frozen=True, slots=True)
class State:
    """What a model holds after reading `tokens` from nothing, for one row. `cache` belongs to this value: use `clone(state.cache)`."""

    tokens: tuple[int, ...]
    cache: Any

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class _Slot:
    """A tensor inside a cache. slots (B, heads, L, d): one entry for each token; state (B, …): of fixed size."""

    kind: Literal["slots", "state"]
    holder: Any
    key: Any

    def get(self) -> Tensor:
        tensor: Tensor = getattr(self.holder, self.key) if isinstance(self.key, str) else self.holder[self.key]
        return tensor

    def set(self, tensor: Tensor) -> None:
        if isinstance(self.key, str):
            setattr(self.holder, self.key, tensor)
        else:
            self.holder[self.key] = tensor


def clone(cache: Any) -> Any:
    """A deep copy: nothing that happens to one is seen in the other."""
    return copy.deepcopy(cache)


def join(caches: Sequence[Any]) -> Any:
    """Caches of any batch sizes as one, rows in order; rows with fewer slots are padded on the left, which the attention mask must say.

    Raises NotAvailable for kinds of cache that are not known here.
    """
    together = _hull(caches[0])
    parts = [list(_slots(cache)) for cache in caches]
    for place, slot in enumerate(_slots(together)):
        slot.set(_stack([part[place].get() for part in parts], slot.kind))
    for place, layer in enumerate(getattr(together, "layers", [])):
        if hasattr(layer, "cumulative_length"):
            layer.cumulative_length = max(cache.layers[place].cumulative_length for cache in caches)
    return together


def take(cache: Any, rows: Sequence[int]) -> Any:
    """A copy with these rows only."""
    return _mapped(cache, lambda tensor: tensor.index_select(0, torch.tensor(list(rows), device=tensor.device)))


def mix(states: Sequence[State], weights: Sequence[float]) -> State:
    """Linear mixture of recurrent states (State Soup), weights brought to sum 1; the tokens read are all of theirs, one after the other.

    Raises NotAvailable for caches with keys and values, whose slots belong to positions, and for states kept in a scaled form (RWKV).
    """
    if not states or len(states) != len(weights) or min(weights) < 0 or sum(weights) <= 0:
        raise FieldInvalid("give one weight of 0 or more for each state, not all 0", field="weights")
    if any(isinstance(s.cache, list) or any(slot.kind == "slots" for slot in _slots(s.cache)) for s in states):
        raise NotAvailable(
            "only the states of a pure state space model can be mixed: keys and values stand at positions, RWKV's are scaled"
        )
    mixed = clone(states[0].cache)
    shares = [w / sum(weights) for w in weights]
    for slots in zip(_slots(mixed), *(_slots(s.cache) for s in states), strict=True):
        slots[0].set(sum((share * slot.get() for share, slot in zip(shares, slots[1:], strict=True)), torch.zeros(())))
    return State(tuple(token for s in states for token in s.tokens), mixed)


def size_bytes(cache: Any) -> int:
    """Of its tensors."""
    return sum(slot.get().nbytes for slot in _slots(cache))


class Kept(Generic[V]):
    """Values by key, least recently used out first, at most `limit_bytes` in all; one larger than that is made each time. Any thread."""

    def __init__(self, limit_bytes: int, size: Callable[[V], int]) -> None:
        self._limit, self._size = limit_bytes, size
        self._kept: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._lock = Lock()
        self.bytes = self.hits = self.misses = 0

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value of `key`, made outside the lock where there is none: two threads may both make it, one is kept."""
        with self._lock:
            found = self._kept.get(key)
            if found:
                self._kept.move_to_end(key)
                self.hits += 1
                return found[0]
            self.misses += 1
        value = make()
        self._put(key, value, self._size(value))
        return value

    def _put(self, key: Hashable, value: V, size: int) -> None:
        with self._lock:
            if size > self._limit or key in self._kept:
                return
            self._kept[key] = (value, size)
            self.bytes += size
            while self.bytes > self._limit:
                self.bytes -= self._kept.popitem(last=False)[1][1]


def _hull(cache: Any) -> Any:
    """A copy that still has the other's tensors, for whoever puts others in their place."""
    return copy.deepcopy(cache, {id(tensor): tensor for tensor in (slot.get() for slot in _slots(cache))})


def _mapped(cache: Any, change: Callable[[Tensor], Tensor]) -> Any:
    copied = _hull(cache)
    for slot in _slots(copied):
        slot.set(change(slot.get()))
    return copied


def _stack(tensors: Sequence[Tensor], kind: str) -> Tensor:
    if kind == "slots":
        longest = max(t.shape[-2] for t in tensors)
        tensors = [torch.nn.functional.pad(t, (0, 0, longest - t.shape[-2], 0)) for t in tensors]
    return torch.cat(list(tensors), dim=0)


def _slots(cache: Any) -> Iterator[_Slot]:
    """Every tensor of a cache that has a row for each row of the batch."""
    if isinstance(cache, list):
        yield from (_Slot("state", cache, i) for i in range(len(cache)))
        return
    for layer in getattr(cache, "layers", None) or [None]:
        if type(layer) not in _KNOWN:
            raise NotAvailable(
                f"a cache with {type(layer).__name__} in {type(cache).__name__} is of a kind that cannot be taken apart here"
            )
        for states in (getattr(layer, "conv_states", {}), getattr(layer, "recurrent_states", {})):
            yield from (_Slot("state", states, i) for i, tensor in states.items() if tensor is not None)
        if getattr(layer, "keys", None) is not None:
            yield from (_Slot("slots", layer, name) for name in ("keys", "values"))
