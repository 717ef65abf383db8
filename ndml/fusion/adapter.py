"""Gated cross-attention over memory on chosen blocks, by forward hooks: the frozen model gains a second place to look.

What a memory token is: not the embedder's sentence vector alone, from which no name can be spelled, but each token of the trace's text. Its
value is the model's own embedding of that token; its key is made from the tokens that stand before it in the same entry (and from the entry
as a whole). A query that matches "her cat is called" thus finds what comes next and can copy it, piece by piece, however rare the name.
What is copied is the row of the output layer that says this token: put into the stream, it is said. The sentence vector, where there is
one, helps to choose the entry.

What is added counts in units of the stream's own loudness at that place, which differs between models and blocks by orders of magnitude.

Identity: the output projection and the share of what is copied start at zero, so an untrained adapter adds exactly nothing. The gate starts
open (tanh 1): with both at zero neither would ever receive a gradient. A row without memory passes bit for bit whatever the weights are.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ndml.errors import FieldInvalid
from ndml.fusion.families import Family, blocks_of, first
from ndml.fusion.readout import Entry, MemoryReadout

FEATURES = 3  # of an entry: ln strength, how recent it is among the others, superseded
_LEAST_STRENGTH = 1e-3  # a bias of -7 at most: weak is not gone
Tokenize = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """Shape of an adapter.

    blocks           indices of the decoder blocks whose output it adds to
    hidden, embed    of the model: residual stream, input embeddings
    vector           components of the sentence vectors it reads, 0: none
    width, heads     inside the adapter
    window           tokens before a token that make its key
    entry_tokens     read of one entry at most; tokens: of all, best entries first: cost grows with their number
    """

    blocks: tuple[int, ...]
    hidden: int
    embed: int
    vector: int = 0
    width: int = 64
    heads: int = 4
    window: int = 6
    entry_tokens: int = 64
    tokens: int = 2048

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if not self.blocks or len(set(self.blocks)) < len(self.blocks) or min(self.blocks) < 0:
            raise FieldInvalid(f"blocks {self.blocks}: name at least one block, each once, counted from 0", field="adapter.blocks")
        if self.width % self.heads:
            raise FieldInvalid(f"width {self.width} is no multiple of {self.heads} heads", field="adapter.width")
        if min(self.hidden, self.embed, self.width, self.heads, self.window, self.entry_tokens, self.tokens) < 1 or self.vector < 0:
            raise FieldInvalid("every size of an adapter is at least 1 (vector: 0)", field="adapter")


@dataclass(frozen=True, slots=True)
class MemoryTokens:
    """Tokens of one row's memory, M of them (0: none).

    embeds (M, E), entry (M,) its place in the readout, place (M,) its place in the entry, features (M, 3), vectors (M, D)
    says (M, E) what in the stream makes the model say it, None: the same as embeds
    """

    embeds: Tensor
    entry: Tensor
    place: Tensor
    features: Tensor
    vectors: Tensor
    used: tuple[int, ...] = ()
    says: Tensor | None = None

    def __len__(self) -> int:
        return int(self.entry.shape[0])


class MemoryEncoder(nn.Module):
    """Memory tokens to keys and values that all blocks of the adapter read."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.window, width = config.window, config.width
        self.before = nn.Linear(config.window * config.embed, width)
        self.whole = nn.Linear(config.embed, width)
        self.vector = nn.Linear(config.vector, width, bias=False) if config.vector else None
        self.key = nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))
        self.value = nn.Linear(config.embed, width)
        self.norm = nn.LayerNorm(config.embed)

    def forward(self, memory: MemoryTokens) -> tuple[Tensor, Tensor, Tensor]:
        """keys, values (M, W), and what is copied, at one loudness (M, E)."""
        tokens: Tensor = self.norm(memory.embeds)  # (M, E)
        apart = F.pad(tokens, (0, 0, self.window, 0)).unfold(0, self.window, 1)[:-1]  # (M, E, window): the tokens before each
        far = torch.arange(self.window, 0, -1, device=tokens.device)  # (window,)
        apart = apart * (memory.place[:, None] >= far)[:, None, :]  # none of another entry
        key = self.before(apart.flatten(1)) + self.whole(_entry_means(tokens, memory.entry))  # (M, W)
        if self.vector is not None:
            key = key + self.vector(memory.vectors)
        said = memory.embeds if memory.says is None else memory.says
        return self.key(key), self.value(tokens), F.rms_norm(said, said.shape[-1:])


class AdapterBlock(nn.Module):
    """One reader: looks back over the conversation, then into memory, and adds to the residual stream."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.enter = nn.Sequential(nn.LayerNorm(config.hidden), nn.Linear(config.hidden, width))
        self.look = nn.Linear(width, 3 * width)  # causal self-attention: frozen models do not gather what a query needs in one place
        self.near = nn.Parameter(torch.linspace(-6.0, -1.5, config.heads))  # ln of how fast each head forgets distance
        self.query = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.sharp = nn.Parameter(torch.full((config.heads,), 16.0).log())
        self.nothing = nn.Parameter(torch.zeros(config.heads))  # score of reading nothing
        self.bias = nn.Linear(FEATURES, config.heads, bias=False)
        self.worth = nn.Linear(width, config.heads, bias=False)  # of reading a token at all: unit vectors are then free to tell which
        self.leave = nn.Linear(width, config.hidden)
        self.copy = nn.Linear(config.embed, config.hidden, bias=False)  # what is read, put into the stream as it is: a token never seen
        self.copies = nn.Parameter(torch.zeros(1))  # in training can be said, where a learned value could only say what it has met
        self.gate = nn.Parameter(torch.ones(1))
        nn.init.eye_(self.copy.weight)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        nn.init.zeros_(self.bias.weight)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, W) to (B, heads, T, W / heads)."""
        return x.reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads).transpose(1, 2)

    def back(self, h: Tensor, past: tuple[Tensor, Tensor] | None, mask: Tensor | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Self-attention of (B, T, W) over past and itself; mask (B, L) says which of all L slots are real."""
        q, k, v = (self.split(part) for part in self.look(h).chunk(3, dim=-1))
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        length, new = k.shape[2], q.shape[2]
        away = torch.arange(length - new, length, device=h.device)[:, None] - torch.arange(length, device=h.device)[None]  # (T, L)
        bias = -self.near.exp()[:, None, None] * away  # (heads, T, L)
        hidden = (away < 0)[None, None]
        if mask is not None:
            hidden = hidden | (~mask[:, None, None, :] & (away != 0))  # a padding slot still sees itself: no row of -inf
        bias = torch.where(hidden, float("-inf"), bias[None]).expand(q.shape[0], -1, -1, -1)  # (B, heads, T, L)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return mixed.transpose(1, 2).flatten(2), (k, v)

    def forward(self, h: Tensor, keys: Tensor, values: Tensor, bias: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What to add to the stream (B, T, H), in units of its loudness, and scores (B, heads, T, M + 1) before softmax.

        The last score is that of reading nothing. keys, values (B, heads, M, d) as `memory` made them, bias (B, heads, M), -inf where a row
        has no such token; tokens (B, M, E); these with a B of 1 where all rows read the same. h (B, T, W): `back`.
        """
        q = F.normalize(self.split(self.query(h)), dim=-1) * self.sharp.exp()[:, None, None]
        scores = torch.einsum("bhtd,bhmd->bhtm", q, keys) + bias[:, :, None, :]
        nothing = self.nothing[None, :, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, nothing], dim=-1)
        share = scores.softmax(-1)[..., :-1]
        read = self.leave(torch.einsum("bhtm,bhmd->bthd", share, values).flatten(2))  # (B, T, H)
        copied = self.copy(torch.einsum("btm,bme->bte", share.mean(1), tokens))
        return torch.tanh(self.gate) * (read + self.copies * copied), scores

    def memory(self, keys: Tensor, values: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values (B, M, W) of the encoder as this block reads them, and the bias (B, heads, M) of each."""
        bias: Tensor = self.bias(features) + self.worth(keys)
        return F.normalize(self.split(self.key(keys)), dim=-1), self.split(self.value(values)), bias.transpose(1, 2)


@dataclass(slots=True)
class AdapterRows:
    """A batch in use: what each row reads, and what each block saw before.

    tokens  (B, M, E) what can be copied
    layers  for each block: keys, values (B, heads, M, d), bias (B, heads, M)
    reads   (B,) rows that have memory
    past    for each block what its self-attention keeps, None before the first pass; mask (B, L) real slots, None: all
    cached  the model is called with new tokens only; if not, each call brings the whole sequence
    record  keep `scores`, one (B, heads, T, M + 1) for each block, for supervision and for showing
    """

    tokens: Tensor
    layers: list[tuple[Tensor, Tensor, Tensor]]
    reads: Tensor
    past: list[tuple[Tensor, Tensor] | None]
    mask: Tensor | None = None
    cached: bool = True
    record: bool = False
    scores: list[Tensor] = field(default_factory=list)

    def slots(self) -> int:
        """Tokens seen so far."""
        return 0 if self.past[0] is None else int(self.past[0][0].shape[2])

    def real(self) -> Tensor:
        """(B, L) which slots so far are real."""
        return self.mask if self.mask is not None else torch.ones(len(self.reads), self.slots(), dtype=torch.bool, device=self.reads.device)

    def spread(self, count: int) -> AdapterRows:
        """One row as `count` that read the same, not copied, before the first pass of a whole batch without a cache."""
        return replace(self, reads=self.reads.expand(count))

    def take(self, rows: Sequence[int]) -> AdapterRows:
        """These rows only."""
        at = torch.tensor(list(rows), device=self.reads.device)
        pick: Callable[[Tensor], Tensor] = lambda t: t.index_select(0, at)  # noqa: E731  # its gradient adds up in a row: t[at] sorts first
        layers = [(pick(k), pick(v), pick(b)) for k, v, b in self.layers]
        past = [None if p is None else (pick(p[0]), pick(p[1])) for p in self.past]
        mask = None if self.mask is None else pick(self.mask)
        return AdapterRows(pick(self.tokens), layers, pick(self.reads), past, mask, self.cached, self.record)


def join_rows(rows: Sequence[AdapterRows]) -> AdapterRows:
    """Batches as one; shorter memories are padded on the right, shorter pasts on the left."""
    layers = []
    for parts in zip(*(r.layers for r in rows), strict=True):
        most = max(k.shape[2] for k, _, _ in parts)
        keys, values = (torch.cat([F.pad(part[i], (0, 0, 0, most - part[i].shape[2])) for part in parts]) for i in (0, 1))
        bias = torch.cat([F.pad(b, (0, most - b.shape[2]), value=float("-inf")) for _, _, b in parts])
        layers.append((keys, values, bias))
    longest, most = max(r.slots() for r in rows), max(r.tokens.shape[1] for r in rows)
    tokens = torch.cat([F.pad(r.tokens, (0, 0, 0, most - r.tokens.shape[1])) for r in rows])
    sizes = [len(r.reads) for r in rows]
    past = [_join_past([r.past[i] for r in rows], sizes, longest) for i in range(len(layers))]
    mask = torch.cat([F.pad(r.real(), (longest - r.slots(), 0)) for r in rows]) if longest else None
    return AdapterRows(tokens, layers, torch.cat([r.reads for r in rows]), past, mask, rows[0].cached, rows[0].record)


def _join_past(parts: Sequence[tuple[Tensor, Tensor] | None], sizes: Sequence[int], longest: int) -> tuple[Tensor, Tensor] | None:
    """Rows without memory were never read for: theirs is all padding."""
    known = next((p for p in parts if p is not None), None)
    if known is None:
        return None
    keys, values = (
        torch.cat(
            [
                _left(known[i].new_zeros(n, *known[i].shape[1:])[:, :, :0] if p is None else p[i], longest)
                for p, n in zip(parts, sizes, strict=True)
            ]
        )
        for i in (0, 1)
    )
    return keys, values


def _left(slots: Tensor, longest: int) -> Tensor:
    return F.pad(slots, (0, 0, longest - slots.shape[2], 0))


class Adapter(nn.Module):
    """All of it: an encoder of memory and a block for each hooked block of the model. The model itself stays as it is."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = MemoryEncoder(config)
        self.blocks = nn.ModuleList(AdapterBlock(config) for _ in config.blocks)
        self._here = threading.local()
        self._handles: list[Any] = []
        self._head: tuple[Any, ...] = ()  # a tuple: the model's layer does not become the adapter's

    def attach(self, model: Any, family: Family) -> None:
        """Hook the model's blocks. Without rows in use (`using`) the hooks pass everything on untouched. Raises FieldInvalid (adapter)."""
        config = self.config
        if (config.hidden, config.embed) != (family.hidden, family.embed) or max(config.blocks) >= family.layers:
            raise FieldInvalid(
                f"an adapter for width {config.hidden}, embeddings {config.embed}, blocks {config.blocks} does not fit "
                f"{family.architecture} with {family.hidden}, {family.embed} and {family.layers} blocks",
                field="adapter",
            )
        self.detach()
        head = model.get_output_embeddings()
        self._head = (head,) if head.weight.shape[-1] == config.embed and head.weight.is_floating_point() else ()
        targets = blocks_of(model, family)
        self._handles = [targets[at].register_forward_hook(self._hook(i)) for i, at in enumerate(config.blocks)]

    def detach(self) -> None:
        """Take the hooks out."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._head = [], ()

    def memory(self, readout: MemoryReadout, tokenize: Tokenize, embed: nn.Module) -> MemoryTokens:
        """Tokens of a readout within the config's bounds, best entries first, for the attached model. embed: its input embeddings."""
        readout.check_dimension(self.config.vector)
        picked = self._picked(readout, tokenize)
        weight = next(iter(embed.parameters()))
        entry = torch.tensor([at for at, (_, ids) in enumerate(picked) for _ in ids], dtype=torch.long)
        place = torch.tensor([at for _, ids in picked for at in range(len(ids))], dtype=torch.long)
        ids = torch.tensor([i for _, part in picked for i in part], dtype=torch.long, device=weight.device)
        own = self._readers()[0].gate.dtype  # the model may be in half of it
        with torch.no_grad():
            embeds = embed(ids).to(own, copy=True)  # (M, E)
            says = self._head[0].weight[ids].to(embeds) if self._head else None
        entries = [e for e, _ in picked]
        return MemoryTokens(
            embeds=embeds,
            entry=entry.to(weight.device),
            place=place.to(weight.device),
            features=_features(entries)[entry].to(device=weight.device, dtype=embeds.dtype),
            vectors=_vectors(entries, self.config.vector)[entry].to(device=weight.device, dtype=embeds.dtype),
            used=tuple(e.number for e in entries),
            says=says,
        )

    def _picked(self, readout: MemoryReadout, tokenize: Tokenize) -> list[tuple[Entry, list[int]]]:
        picked, left = [], self.config.tokens
        for entry in readout.ranked():
            ids = list(tokenize(" " + entry.text))[: self.config.entry_tokens]
            if 0 < len(ids) <= left:
                picked.append((entry, ids))
                left -= len(ids)
        return picked

    def rows(
        self, memories: Sequence[MemoryTokens], *, mask: Tensor | None = None, cached: bool = True, record: bool = False
    ) -> AdapterRows:
        """A batch that reads these memories, a row each, before its first pass. mask (B, T): real tokens of prompts padded on the left."""
        each = [self._row(memory, cached, record) for memory in memories]
        joined = each[0] if len(each) == 1 else join_rows(each)
        joined.mask = None if mask is None else mask.bool()
        return joined

    def _row(self, memory: MemoryTokens, cached: bool, record: bool) -> AdapterRows:
        keys, values, tokens = (part[None] for part in self.encoder(memory))  # (1, M, …)
        layers = [block.memory(keys, values, memory.features[None]) for block in self._readers()]
        reads = torch.tensor([len(memory) > 0], device=keys.device)
        return AdapterRows(tokens, layers, reads, [None] * len(layers), None, cached, record)

    @contextmanager
    def using(self, rows: AdapterRows | None) -> Iterator[None]:
        """The model's passes in this thread read these rows. Other threads are not touched."""
        before, self._here.rows = getattr(self._here, "rows", None), rows
        try:
            yield
        finally:
            self._here.rows = before

    def _readers(self) -> list[AdapterBlock]:
        return list(self.blocks)  # type: ignore[arg-type]

    def _hook(self, index: int) -> Any:
        block = self._readers()[index]

        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            rows: AdapterRows | None = getattr(self._here, "rows", None)
            if rows is None or not bool(rows.reads.any()):
                return None
            x: Tensor = first(output)  # (B, T, H)
            changed = _read(block, rows, index, x)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook


def _read(block: AdapterBlock, rows: AdapterRows, index: int, x: Tensor) -> Tensor:
    keys, values, bias = rows.layers[index]
    if x.shape[0] != len(rows.reads):
        raise FieldInvalid(f"a batch of {x.shape[0]} rows was run with the memory of {len(rows.reads)}", field="rows")
    if index == 0:
        rows.scores = []
    past = rows.past[index] if rows.cached else None
    if index == 0 and rows.mask is not None:  # new tokens are real; without a cache the mask grows with the sequence
        total = x.shape[1] + (0 if past is None else past[0].shape[2])
        rows.mask = F.pad(rows.mask, (0, total - rows.mask.shape[1]), value=True)
    entered = block.enter(x.to(block.gate.dtype))
    seen, now = block.back(entered, past, rows.mask)
    if rows.cached:
        rows.past[index] = now
    added, scores = block(entered + seen, keys, values, bias, rows.tokens)
    if rows.record:
        rows.scores.append(scores)
    loudness = x.float().square().mean(-1, keepdim=True).sqrt()  # (B, T, 1)
    return torch.where(rows.reads[:, None, None], x + (added * loudness).to(x.dtype), x)


def _entry_means(tokens: Tensor, entry: Tensor) -> Tensor:
    """(M, E): of each token's entry."""
    if not len(entry):
        return tokens
    count = int(entry[-1]) + 1
    sums = torch.zeros(count, tokens.shape[1], dtype=tokens.dtype, device=tokens.device).index_add(0, entry, tokens)
    return (sums / torch.bincount(entry, minlength=count)[:, None].to(tokens.dtype))[entry]


def _features(entries: Sequence[Entry]) -> Tensor:
    """(n, 3): ln strength; 0 for the oldest or undated to 1 for the newest, evenly spaced; superseded."""
    known = sorted({e.said_utc for e in entries if e.said_utc is not None})
    ages = {said: (i + 1) / len(known) for i, said in enumerate(known)}
    rows = [
        (math.log(max(e.strength, _LEAST_STRENGTH)), 0.0 if e.said_utc is None else ages[e.said_utc], float(e.superseded)) for e in entries
    ]
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, FEATURES)


def _vectors(entries: Sequence[Entry], dimension: int) -> Tensor:
    """(n, D), zeros where an entry has none."""
    rows = torch.zeros(len(entries), dimension)
    for row, entry in enumerate(entries):
        if dimension and entry.embedding is not None:
            rows[row] = torch.from_numpy(entry.embedding.copy())
    return rows
