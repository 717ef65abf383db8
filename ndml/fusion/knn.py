"""kNN-LM: next tokens looked up by hidden state in the user's own text, mixed into the model's distribution.

p = l p_kNN + (1 - l) p_LM. No training; what it knows is how the user's text went on where the model felt like now, so it repeats surface
forms and does not carry over to a paraphrase.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ndml.errors import FieldInvalid, NotAvailable

Backend = Literal["auto", "torch", "faiss"]
_FAISS_FROM = 4096  # keys from which FAISS beats one matrix product


@dataclass(frozen=True, slots=True)
class KnnOptions:
    """How to look up.

    share        l, the part of the neighbours in the mixture
    neighbours   that vote
    temperature  of their votes, in units of the store's spread (mean squared distance of its keys from their mean): it fits any model
    reach        neighbours further than this many spreads have no vote; a step in which none has is the model's alone
    keys         in one store at most: 64 Ki of width 4096 are 1 GiB
    text_tokens  read of one text at most
    backend      torch: exact; faiss: exact too, faster from some thousand keys on; auto
    """

    share: float = 0.25
    neighbours: int = 16
    temperature: float = 0.1
    reach: float = 1.0
    keys: int = 65_536
    text_tokens: int = 512
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise FieldInvalid(f"share is {self.share!r}: give a number from 0 to 1", field="knn.share")
        if self.temperature <= 0 or self.reach <= 0 or min(self.neighbours, self.keys) < 1 or self.text_tokens < 2:
            raise FieldInvalid("temperature and reach are above 0, neighbours and keys at least 1, text_tokens 2", field="knn")


class Datastore:
    """Keys (N, H), the token that came next after each (N,), the vocabulary's size. Immutable; any thread."""

    def __init__(self, keys: Tensor, tokens: Tensor, vocab: int, options: KnnOptions, texts: int = 0) -> None:
        """texts: how many of those given went in, the rest being past the bound."""
        self.keys, self.tokens, self.vocab, self.options, self.texts = keys.float().contiguous(), tokens, vocab, options, texts
        self.spread = float((self.keys - self.keys.mean(0)).square().sum(1).mean()) if len(keys) > 1 else 0.0
        self._index = _faiss_index(self.keys, options.backend)

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    def distribution(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """p_kNN (B, V) of hidden states (B, H), and which rows (B,) have a neighbour within reach."""
        count = min(self.options.neighbours, len(self))
        distances, found = self._search(queries.float(), count)  # (B, k)
        spread = max(self.spread, torch.finfo(torch.float32).tiny)
        near = distances / spread
        votes = torch.where(near <= self.options.reach, -near / self.options.temperature, float("-inf"))
        reached = torch.isfinite(votes).any(1)
        weights = torch.where(reached[:, None], votes, 0.0).softmax(1)
        rows = torch.zeros(len(queries), self.vocab, device=queries.device)
        return rows.scatter_add_(1, self.tokens[found], weights), reached

    def _search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Squared distances and places of the nearest keys, (B, k)."""
        if self._index is None:
            distances = torch.cdist(queries, self.keys, compute_mode="donot_use_mm_for_euclid_dist").square()
            return distances.topk(count, dim=1, largest=False)
        found, places = self._index.search(queries.cpu().numpy(), count)
        return torch.from_numpy(found).to(queries.device), torch.from_numpy(places).to(queries.device)


def _faiss_index(keys: Tensor, backend: Backend) -> Any:
    """A flat FAISS index, None for torch."""
    here = importlib.util.find_spec("faiss") is not None
    if backend == "faiss" and not here:
        raise NotAvailable("knn.backend is faiss, which is not installed: pip install faiss-cpu, or set torch")
    if backend == "torch" or not here or (backend == "auto" and (len(keys) < _FAISS_FROM or keys.device.type != "cpu")):
        return None
    import faiss

    index = faiss.IndexFlatL2(int(keys.shape[1]))
    index.add(keys.cpu().numpy())
    return index


class HiddenTap:
    """What the model's output layer reads, seen by a hook for as long as somebody asks for it. Each thread sees its own."""

    def __init__(self, model: Any) -> None:
        self._here = threading.local()
        self._handle = model.get_output_embeddings().register_forward_pre_hook(self._see)

    def _see(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        if getattr(self._here, "open", False):
            self._here.hidden = args[0].detach()

    def close(self) -> None:
        """Take the hook out."""
        self._handle.remove()

    @property
    def hidden(self) -> Tensor:
        """(B, T, H) of the last pass in this thread; T may be the last position only."""
        hidden: Tensor = self._here.hidden
        return hidden

    @contextmanager
    def watching(self) -> Iterator[HiddenTap]:
        """Passes in this thread are seen."""
        before, self._here.open = getattr(self._here, "open", False), True
        try:
            yield self
        finally:
            self._here.open = before
            if not before:
                self._here.hidden = None


def build(
    texts: Sequence[str], tokenize: Callable[[str], Sequence[int]], read: Callable[[list[int]], Tensor], vocab: int, options: KnnOptions
) -> Datastore:
    """A store of texts, best first; those past `options.keys` stay out. read: ids (T) to hidden states (T, H) before the output layer."""
    keys: list[Tensor] = []
    tokens: list[Tensor] = []
    room, taken = options.keys, 0
    for text in texts:
        ids = list(tokenize(text))[: options.text_tokens]
        if len(ids) - 1 > room:
            break
        taken += 1
        if len(ids) < 2:
            continue
        hidden = read(ids)
        keys.append(hidden[:-1])
        tokens.append(torch.tensor(ids[1:], device=hidden.device))
        room -= len(ids) - 1
    if not keys:
        return Datastore(torch.zeros(0, 1), torch.zeros(0, dtype=torch.long), vocab, options, taken)
    return Datastore(torch.cat(keys), torch.cat(tokens), vocab, options, taken)


def interpolate(logits: Tensor, hidden: Tensor, stores: Sequence[Datastore | None]) -> Tensor:
    """Log of the mixture (B, V), row by row; rows without a store, without a neighbour or with share 0 are passed on bit for bit."""
    if all(_silent(store) for store in stores):
        return logits
    rows = [logits[i] if store is None or _silent(store) else _mixed(logits[i], hidden[i], store) for i, store in enumerate(stores)]
    return torch.stack(rows)


def _silent(store: Datastore | None) -> bool:
    return store is None or not len(store) or store.options.share == 0.0


def _mixed(logits: Tensor, hidden: Tensor, store: Datastore) -> Tensor:
    found, reached = store.distribution(hidden[None])
    if not bool(reached[0]):
        return logits
    share = store.options.share
    p = share * found[0] + (1 - share) * logits.float().softmax(-1)
    return p.log().to(logits.dtype)


class KnnProcessor:
    """`interpolate` as transformers' LogitsProcessor: a store for each row of the batch, hidden states from the tap."""

    def __init__(self, tap: HiddenTap, stores: Sequence[Datastore | None]) -> None:
        self._tap, self._stores = tap, tuple(stores)

    def __call__(self, _ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) in and out."""
        if len(scores) != len(self._stores):
            raise FieldInvalid(
                f"{len(scores)} rows of scores, {len(self._stores)} stores: beam search cannot be combined with kNN", field="knn"
            )
        return interpolate(scores, self._tap.hidden[:, -1], self._stores)
