"""What a loaded causal LM is and what it allows: found in its structure and measured in a few short passes, not looked up by name.

A new architecture needs no entry anywhere: its blocks are the modules that hand on hidden states one after the other; whether it continues
from a cache, reads embeddings, ignores padding or keeps the rows of a batch apart is tried on ten tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ndml.errors import FieldInvalid, NotAvailable
from ndml.fusion.states import join

Continues = Literal["block", "step", "no"]
Keeps = Literal["kv", "recurrent", "hybrid", "unknown", "inside"]
CACHE_NAMES = ("past_key_values", "cache_params", "state")
_TOKENS, _CUT = 10, 6
_UNBOUNDED = 1 << 24


@dataclass(frozen=True, slots=True)
class Family:
    """A causal LM as fusion sees it.

    architecture, model_type  names, for messages and checkpoints
    hidden, embed, vocab      widths of the residual stream, of the input embeddings, of the logits
    blocks                    path of the list of decoder blocks, and how many: layers
    context                   positions that it was made for, None where there is no limit
    cache                     forward's keyword for its cache, "" where it has none
    keeps                     what the cache is: keys and values, recurrent states, both; unknown here; inside: in its modules
    continues                 from a cache it reads several tokens at once (block), only one by one (step), or not at all
    positions, masks, trims   forward takes position_ids, attention_mask, logits_to_keep
    embeds, pads              reads inputs_embeds; left padding changes nothing
    joins                     caches of several rows can be put together and taken apart; without it one row runs at a time
    batches                   rows that step together do not change each other
    generates_embeds          transformers' generate takes inputs_embeds for it
    """

    architecture: str
    model_type: str
    hidden: int
    embed: int
    vocab: int
    blocks: str
    layers: int
    context: int | None
    cache: str
    keeps: Keeps
    continues: Continues
    positions: bool
    masks: bool
    trims: bool
    embeds: bool
    pads: bool
    joins: bool
    batches: bool
    generates_embeds: bool

    @property
    def attends(self) -> bool:
        """Its steps look back at slots, which a mask must describe."""
        return self.keeps not in ("recurrent", "inside")


def blocks_of(model: nn.Module, family: Family) -> nn.ModuleList:
    """The decoder blocks, first to last."""
    found = model.get_submodule(family.blocks)
    if not isinstance(found, nn.ModuleList) or len(found) != family.layers:
        raise FieldInvalid(f"{family.blocks} of this model is not the {family.layers} blocks that were inspected", field="model")
    return found


@contextmanager
def hooked(*handles: Any) -> Iterator[None]:
    """Hooks for as long as this lasts."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def study(model: Any) -> Family:
    """Inspect and try a loaded model: a dozen forward passes over ten tokens.

    Raises NotAvailable for what is no decoder with logits over a vocabulary, FieldInvalid (model) for one in training mode.
    """
    if model.training:
        raise FieldInvalid("the model is in training mode, in which no two passes agree: call model.eval()", field="model")
    if getattr(model.config, "is_encoder_decoder", False) or model.get_output_embeddings() is None:
        raise NotAvailable(
            f"{type(model).__name__} is no causal language model: memory fusion needs a decoder with an output layer over tokens"
        )
    with torch.inference_mode():
        return _Study(model).family()


class _Study:
    """One model under trial."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.takes = set(inspect.signature(model.forward).parameters)
        self.vocab = int(model.get_output_embeddings().weight.shape[0])
        table = model.get_input_embeddings()
        rows = int(table.weight.shape[0])
        self.ids = (torch.arange(_TOKENS, device=table.weight.device) * 37 + 11).remainder(max(rows - 4, 1))[None] + min(
            3, rows - 1
        )  # (1, T)
        self.full = self.run(input_ids=self.ids, use_cache=False).logits  # (1, T, V)
        self.noise = 64 * torch.finfo(self.full.dtype).eps * float(self.full.abs().max())

    def run(self, **given: Any) -> Any:
        return self.model(**{k: v for k, v in given.items() if v is not None and (k in self.takes or k in CACHE_NAMES or k == "use_cache")})

    def family(self) -> Family:
        config = self.model.config.get_text_config()
        path, blocks, hidden = self.blocks()
        cache, keeps = self.cache()
        continues, noise = self.continues(cache) if cache else ("no", self.noise)
        joins, batches = self.apart(cache, noise) if continues != "no" else (False, False)
        embeddings = self.model.get_input_embeddings()
        limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        return Family(
            architecture=type(self.model).__name__,
            model_type=str(config.model_type),
            hidden=hidden,
            embed=int(embeddings.weight.shape[1]),
            vocab=self.vocab,
            blocks=path,
            layers=len(blocks),
            context=int(limit) if limit and limit < _UNBOUNDED and keeps in ("kv", "hybrid", "unknown") else None,
            cache=cache,
            keeps=keeps,
            continues=continues,
            positions="position_ids" in self.takes,
            masks="attention_mask" in self.takes,
            trims="logits_to_keep" in self.takes,
            embeds=self.same(lambda: self.run(inputs_embeds=embeddings(self.ids), use_cache=False).logits, noise),
            pads=self.same(self.padded, noise),
            joins=joins,
            batches=batches,
            generates_embeds="inputs_embeds" in inspect.signature(self.model.prepare_inputs_for_generation).parameters,
        )

    def same(self, run: Callable[[], Tensor], noise: float) -> bool:
        """What a model cannot do, it says in many ways: each is a no."""
        try:
            return bool((run() - self.full).abs().max() <= noise)
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError):
            return False

    def padded(self) -> Tensor:
        """Logits of the same tokens behind four of padding."""
        ids = torch.cat([self.ids[:, :4], self.ids], dim=1)  # (1, 4 + T)
        mask = torch.ones_like(ids)
        mask[:, :4] = 0
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits: Tensor = self.run(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
        return logits[:, 4:]

    def blocks(self) -> tuple[str, nn.ModuleList, int]:
        """The longest list of modules that run one after the other and hand on (1, T, H)."""
        lists = [(name, m) for name, m in self.model.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
        seen: list[tuple[nn.Module, tuple[int, ...]]] = []
        note = lambda module, _args, out: seen.append((module, tuple(first(out).shape) if torch.is_tensor(first(out)) else ()))  # noqa: E731
        with hooked(*(block.register_forward_hook(note) for _, m in lists for block in m)):
            self.run(input_ids=self.ids, use_cache=False)
        for name, modules in sorted(lists, key=lambda pair: (-len(pair[1]), pair[0].count("."))):
            ran = [(m, shape) for m, shape in seen if any(m is block for block in modules)]
            widths = {shape[-1] for _, shape in ran if len(shape) == 3 and shape[:2] == self.ids.shape}
            if [id(m) for m, _ in ran] == [id(m) for m in modules] and len(widths) == 1:
                return name, modules, widths.pop()
        raise NotAvailable(f"no list of decoder blocks was found in {type(self.model).__name__}: its hidden states cannot be hooked")

    def cache(self) -> tuple[str, Keeps]:
        out = self.run(input_ids=self.ids[:, :_CUT], use_cache=True)
        name = next((n for n in CACHE_NAMES if out.get(n) is not None), "")
        return (name, _kind(out[name])) if name else ("", "inside")

    def continues(self, name: str) -> tuple[Continues, float]:
        """How it goes on from a cache, and the rounding noise of doing so, by which "the same" is judged."""
        step = max(float((logits - self.full[:, at]).abs().max()) for at, logits in self.steps(name))
        if step > 0.05 * float(self.full.abs().max()):
            return "no", self.noise
        noise = max(self.noise, 8 * step)
        out = self.run(input_ids=self.ids[:, :_CUT], use_cache=True)
        kind = _kind(out[name])
        rest = self.run(**self.later(name, out[name], kind, slice(_CUT, _TOKENS))).logits
        return ("block" if float((rest - self.full[:, _CUT:]).abs().max()) <= noise else "step"), noise

    def steps(self, name: str) -> Iterator[tuple[int, Tensor]]:
        out = self.run(input_ids=self.ids[:, :_CUT], use_cache=True)
        kind = _kind(out[name])
        for at in range(_CUT, _TOKENS):
            out = self.run(**self.later(name, out[name], kind, slice(at, at + 1)))
            yield at, out.logits[:, -1]

    def apart(self, name: str, noise: float) -> tuple[bool, bool]:
        """Two rows can be joined; they step together as each alone."""
        last = slice(_TOKENS - 1, _TOKENS)
        both = torch.cat([self.ids, self.ids.flip(1)])  # (2, T)
        alone, caches = [], []
        for row in (both[:1], both[1:]):
            alone.append(self.run(input_ids=row, use_cache=False).logits[:, -1])
            caches.append(self.run(input_ids=row[:, : _TOKENS - 1], use_cache=True)[name])
        try:
            given = self.later(name, join(caches), _kind(caches[0]), last) | {"input_ids": both[:, last]}
            given = {k: v.expand(2, -1) if k in ("position_ids", "attention_mask") and v is not None else v for k, v in given.items()}
            together = self.run(**given).logits[:, -1]
        except NotAvailable:
            return False, False
        return True, together.shape == (2, self.vocab) and float((together - torch.cat(alone)).abs().max()) <= noise

    def later(self, name: str, cache: Any, kind: Keeps, part: slice) -> dict[str, Any]:
        positions = torch.arange(part.start, part.stop, device=self.ids.device)[None]
        mask = None if kind == "recurrent" else torch.ones_like(self.ids[:, : part.stop])
        return {"input_ids": self.ids[:, part], name: cache, "position_ids": positions, "attention_mask": mask, "use_cache": True}


def first(output: Any) -> Any:
    """Hidden states of a block's output, which may be a tuple."""
    return output[0] if isinstance(output, tuple) else output


def _kind(cache: Any) -> Keeps:
    """From what its layers hold: `keys` of attention, `recurrent_states` of the rest; a list of tensors is RWKV's state."""
    if isinstance(cache, list) and all(torch.is_tensor(t) for t in cache):
        return "recurrent"
    layers = getattr(cache, "layers", None)
    if not layers:
        return "unknown"
    attends, recurs = (any(hasattr(layer, name) for layer in layers) for name in ("keys", "recurrent_states"))
    return "hybrid" if attends and recurs else "kv" if attends else "recurrent" if recurs else "unknown"


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Every string that the tokenizer turns into a control token."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return tuple({*tokenizer.all_special_tokens, *(token.content for token in added.values() if token.special)})
