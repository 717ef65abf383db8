"""`Fusion`: one interface to the five ways in which a model reads memory.

    fusion = Fusion(model, tokenizer)
    plan = fusion.plan(messages, readout, way="auto")          # which ids, which entries, what else
    batch = fusion.join([fusion.start(plan), …])               # rows of any way together
    batch = fusion.step(batch, batch.logits.argmax(-1))        # as long as it takes

or, with transformers' own loop: `with fusion.for_generate([plan]) as given: model.generate(**given, …)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jinja2.exceptions import TemplateError
from torch import Tensor

from ndml.errors import FieldInvalid, ModelNotConfigured, NdmlError, NotAvailable
from ndml.fusion import decoding, states
from ndml.fusion.adapter import Adapter, AdapterRows, MemoryTokens
from ndml.fusion.checkpoints import Trained, check
from ndml.fusion.decoding import Decoder, Running
from ndml.fusion.families import Family, special_tokens, study
from ndml.fusion.knn import Datastore, HiddenTap, KnnOptions, KnnProcessor, build
from ndml.fusion.prefix import Projector
from ndml.fusion.prompt import Block, Message, PromptLimits, Turn, broken, control_tokens, plain_line, quote, write_block
from ndml.fusion.readout import MemoryReadout
from ndml.fusion.states import Kept, State

Way = Literal["prompt", "prefix", "adapter", "state", "knn"]
WAYS: tuple[Way, ...] = get_args(Way)
_FRAME = 16  # tokens that a chat template puts around a message, generously
Encode = Callable[[Sequence[Turn], int], list[int]]


@dataclass(frozen=True, slots=True)
class FusionOptions:
    """What bounds fusion.

    prompt         of the block, for the ways prompt and state
    knn            how to look up
    state_bytes    of states kept for readouts that come again; one of 1,000 tokens in a 1 B model is some 30 MiB
    store_bytes    of kNN stores kept, likewise
    mix            way state: read each entry alone and mix the states by strength (pure state space models), instead of reading the block
    """

    prompt: PromptLimits = field(default_factory=PromptLimits)
    knn: KnnOptions = field(default_factory=KnnOptions)
    state_bytes: int = 256 << 20
    store_bytes: int = 256 << 20
    mix: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One request, ready to start.

    tokens    ids of the prompt; those that `state` has read already are among them unless `mixed`
    used      numbers of the entries that the model can read, oldest first for prompt, best first elsewhere
    prefix    (n, E) goes in behind the first `after` tokens
    """

    way: Way
    tokens: tuple[int, ...]
    used: tuple[int, ...] = ()
    prefix: Tensor | None = None
    after: int = 0
    state: State | None = None
    mixed: bool = False
    memory: MemoryTokens | None = None
    store: Datastore | None = None

    @property
    def positions(self) -> int:
        """Of the model's context that the prompt takes."""
        return len(self.tokens) + (0 if self.prefix is None else len(self.prefix)) + (len(self.state) if self.mixed and self.state else 0)

    @property
    def unread(self) -> tuple[int, ...]:
        """Tokens still to read when it starts."""
        return self.tokens if self.state is None or self.mixed else self.tokens[len(self.state) :]


class Fusion:
    """A model, its tokenizer, what was trained for them. Any thread."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        adapter: Trained[Adapter] | None = None,
        projector: Trained[Projector] | None = None,
        options: FusionOptions | None = None,
        encode: Encode | None = None,
        count: Callable[[str], int] | None = None,
        family: Family | None = None,
    ) -> None:
        """encode: (messages, positions that something else takes) -> prompt ids that fit the model; None: `template`, uncut.
        count: tokens that a text costs in a prompt; None: the tokenizer's. family: from `study`, where it is known already.

        Raises ModelNotConfigured for an adapter or projector without training or for another model.
        """
        self.family = family or study(model)
        self.options = options or FusionOptions()
        for trained in (adapter, projector):
            if trained is not None:
                check(trained.card, self.family)
        self._tokenizer, self._adapter, self._projector = tokenizer, adapter, projector
        self._encode = encode or (lambda messages, _taken: template(tokenizer, messages))
        self._count = count or (lambda text: len(self._plain(text)))
        self._specials = special_tokens(tokenizer)
        self._tap = HiddenTap(model)
        self.decoder = Decoder(model, self.family, self._tap, adapter.module if adapter else None)
        self._states: Kept[State] = Kept(self.options.state_bytes, lambda state: states.size_bytes(state.cache))
        self._stores: Kept[Datastore] = Kept(self.options.store_bytes, lambda store: store.keys.nbytes + store.tokens.nbytes)
        for trained in (adapter, projector):
            if trained is not None:
                trained.module.to(self.decoder.device)
        if adapter:
            adapter.module.attach(model, self.family)

    def close(self) -> None:
        """Take every hook out: the model is as it was."""
        self._tap.close()
        if self._adapter:
            self._adapter.module.detach()

    def refusal(self, way: str) -> NdmlError | None:
        """Why this model cannot read memory in this way, None where it can."""
        if way not in WAYS:
            return FieldInvalid(f"way {way!r} is unknown: choose auto, {', '.join(WAYS)}", field="way")
        if way == "prefix" and not self.family.embeds:
            return NotAvailable(f"{self.family.architecture} does not read inputs_embeds: a soft prefix cannot go in")
        if way == "state" and self.family.continues == "no":
            return NotAvailable(f"{self.family.architecture} keeps its state inside its modules: it cannot be held and given back")
        if way == "state" and self.options.mix and self.family.keeps != "recurrent":
            return NotAvailable(
                f"{self.family.architecture} keeps keys and values, which stand at positions and cannot be mixed: set mix off"
            )
        if way in ("prefix", "adapter") and not (self._projector if way == "prefix" else self._adapter):
            name = "projector" if way == "prefix" else "adapter"
            return ModelNotConfigured(f"way={way} needs a trained {name} for this model, none is loaded: train one, or use way=prompt")
        return None

    def ways(self) -> tuple[Way, ...]:
        """Those that this model can take now."""
        return tuple(way for way in WAYS if self.refusal(way) is None)

    def plan(
        self,
        messages: Sequence[Turn],
        readout: MemoryReadout,
        way: Way | Literal["auto"] = "auto",
        *,
        beside: int = 0,
        limits: PromptLimits | None = None,
    ) -> Plan:
        """Everything that reading `messages` with `readout` takes. beside: positions that are not theirs: the answer's, of tools.

        auto: prompt, which needs no training and has the evidence on its side; where the block finds no room, an adapter, a prefix or kNN,
        the first of them that the model has. Raises FieldInvalid, NotAvailable, ModelNotConfigured, EmbeddingDimensionMismatch.
        """
        if not messages:
            raise FieldInvalid("there is no message to answer", field="messages")
        if way == "auto":
            way, block = self._automatic(messages, readout, beside, limits)
        else:
            refusal = self.refusal(way)
            if refusal is not None:
                raise refusal
            block = self._block(messages, readout, beside, limits) if way in ("prompt", "state") and not self.options.mix else Block()
        if not readout or (way in ("prompt", "state") and not block.text and not self.options.mix):
            return Plan(way, tuple(self._encode(messages, 0)))
        makers: dict[Way, Callable[[], Plan]] = {
            "prompt": lambda: Plan("prompt", tuple(self._encode(block.into(messages), 0)), block.used),
            "prefix": lambda: self._prefixed(messages, readout),
            "adapter": lambda: self._adapted(messages, readout),
            "state": lambda: self._mixture(messages, readout) if self.options.mix else self._stated(messages, block),
            "knn": lambda: self._looked_up(messages, readout),
        }
        return makers[way]()

    def start(self, plan: Plan) -> Running:
        """Read the prompt: a batch of one row."""
        rows = None if self._adapter is None else self._rows([plan], None, cached=True)
        return self.decoder.start(plan.unread, prefix=plan.prefix, after=plan.after, state=plan.state, rows=rows, store=plan.store)

    def step(self, running: Running, tokens: Tensor) -> Running:
        """The batch after one more token (B,) in each row; `running` is used up."""
        return self.decoder.step(running, tokens)

    def join(self, running: Sequence[Running]) -> Running:
        """Batches as one, rows in order; one alone is not copied."""
        return running[0] if len(running) == 1 else decoding.join(running)

    def take(self, running: Running, rows: Sequence[int]) -> Running:
        """These rows of a batch."""
        return decoding.take(running, rows)

    def greedy(self, plans: Sequence[Plan], new_tokens: int, ends: Sequence[int] = ()) -> list[list[int]]:
        """Most likely continuations of at most `new_tokens`, as one batch; the end token is the last of a row that has one."""
        running = self.join([self.start(plan) for plan in plans])
        rows: list[list[int]] = [[] for _ in plans]
        for _ in range(new_tokens):
            tokens = running.logits.argmax(-1)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                if not row or row[-1] not in ends:
                    row.append(int(token))
            if all(row[-1] in ends for row in rows):
                break
            running = self.step(running, tokens)
        return rows

    @contextmanager
    def for_generate(self, plans: Sequence[Plan], *, cached: bool = True) -> Iterator[dict[str, Any]]:
        """Keywords for transformers' generate, called inside: prompts padded on the left, state, processors, use_cache=cached.

        Raises NotAvailable where transformers cannot do it: rows of different length for a model without padding, states beside others or
        of a model that is not all keys and values.
        """
        given = self._inputs(plans) | {"use_cache": cached}
        mask: Tensor = given["attention_mask"]
        with ExitStack() as stack:
            if any(plan.store is not None for plan in plans):
                stack.enter_context(self._tap.watching())
                given["logits_processor"] = [KnnProcessor(self._tap, [plan.store for plan in plans])]
            if self._adapter is not None:
                stack.enter_context(self._adapter.module.using(self._rows(plans, mask if bool((mask == 0).any()) else None, cached=cached)))
            yield given

    def _inputs(self, plans: Sequence[Plan]) -> dict[str, Any]:
        longest = max(plan.positions for plan in plans)
        if any(plan.positions < longest for plan in plans) and not self.family.pads:
            raise NotAvailable(
                f"{self.family.architecture} is changed by padding: generate rows of one length, or use start, join and step"
            )
        ones = [torch.ones(plan.positions, dtype=torch.long, device=self.decoder.device) for plan in plans]
        given: dict[str, Any] = {"attention_mask": torch.stack([F.pad(row, (longest - len(row), 0)) for row in ones])}
        if any(plan.prefix is not None for plan in plans):
            if not self.family.generates_embeds:
                raise NotAvailable(f"transformers' generate takes no embeddings for {self.family.architecture}: use start, join and step")
            rows = [self._embeds(plan) for plan in plans]
            return given | {"inputs_embeds": torch.stack([F.pad(row, (0, 0, longest - len(row), 0)) for row in rows])}
        ids = [F.pad(torch.tensor(plan.tokens, device=self.decoder.device), (longest - len(plan.tokens), 0)) for plan in plans]
        given["input_ids"] = torch.stack(ids)
        if any(plan.state is not None for plan in plans):
            if len(plans) > 1 or plans[0].mixed or plans[0].state is None or (self.family.keeps, self.family.continues) != ("kv", "block"):
                raise NotAvailable("transformers' generate goes on from one state of keys and values alone: use start, join and step")
            given[self.family.cache] = states.clone(plans[0].state.cache)
        return given

    @torch.inference_mode()
    def _embeds(self, plan: Plan) -> Tensor:
        ids = torch.tensor(plan.tokens, device=self.decoder.device)
        own: Tensor = self.decoder.embed(ids)
        return own if plan.prefix is None else torch.cat([own[: plan.after], plan.prefix.to(own), own[plan.after :]])

    def _rows(self, plans: Sequence[Plan], mask: Tensor | None, *, cached: bool) -> AdapterRows:
        assert self._adapter is not None
        adapter = self._adapter.module
        nothing = adapter.memory(MemoryReadout(), self._plain, self.decoder.embed)
        with torch.inference_mode():
            return adapter.rows([nothing if plan.memory is None else plan.memory for plan in plans], mask=mask, cached=cached)

    def _automatic(self, messages: Sequence[Turn], readout: MemoryReadout, beside: int, limits: PromptLimits | None) -> tuple[Way, Block]:
        block = self._block(messages, readout, beside, limits)
        if block.text or not readout:
            return "prompt", block
        open_ways = self.ways()
        return next((way for way in ("adapter", "prefix", "knn") if way in open_ways), "prompt"), block

    def _block(self, messages: Sequence[Turn], readout: MemoryReadout, beside: int, limits: PromptLimits | None) -> Block:
        """Within the limits, and beside what must stand in the prompt: memory gives way to the question, not the question to memory."""
        if not readout:
            return Block()
        limits = limits or self.options.prompt
        room = limits.tokens
        if self.family.context is not None:
            must = [m for m in messages[:-1] if m.role == "system"] + [messages[-1]]
            room = min(room, self.family.context - beside - sum(self._count(m.content) + _FRAME for m in must))
        return write_block(readout, self._count, PromptLimits(max(room, 0), limits.entry_chars), self._specials)

    def _prefixed(self, messages: Sequence[Turn], readout: MemoryReadout) -> Plan:
        assert self._projector is not None
        projector = self._projector.module
        entries = projector.chosen(readout)
        if not entries:
            return Plan("prefix", tuple(self._encode(messages, 0)))
        with torch.inference_mode():
            prefix = projector.prefix(entries)
        tokens = self._encode(messages, len(prefix))
        after = int(bool(tokens) and tokens[0] == getattr(self._tokenizer, "bos_token_id", None))  # models rest on their first token
        return Plan("prefix", tuple(tokens), tuple(e.number for e in entries), prefix=prefix, after=after)

    def _adapted(self, messages: Sequence[Turn], readout: MemoryReadout) -> Plan:
        assert self._adapter is not None
        memory = self._adapter.module.memory(readout, self._plain, self.decoder.embed)
        return Plan("adapter", tuple(self._encode(messages, 0)), memory.used, memory=memory)

    def _stated(self, messages: Sequence[Turn], block: Block) -> Plan:
        """The same ids as way prompt; the head that system text and block decide is read once and kept."""
        tokens = self._encode(block.into(messages), 0)
        own = list(messages[:1]) if messages[0].role == "system" else []
        others = (self._encode(block.into([*own, Message("user", text)]), 0) for text in ("a", "Z"))
        shared = min((_shared(tokens, other) for other in others), default=0)
        head = tuple(tokens[: min(shared, len(tokens) - 1)])
        state = self._states.get(head, lambda: self.decoder.read(head)) if head else None
        return Plan("state", tuple(tokens), block.used, state=state)

    def _mixture(self, messages: Sequence[Turn], readout: MemoryReadout) -> Plan:
        entries = [e for e in readout.ranked() if e.strength > 0]
        texts = [tuple(self._tokenizer(quote(e.text, self._specials) + "\n")["input_ids"]) for e in entries]
        read = [self._states.get(text, lambda text=text: self.decoder.read(text)) for text in texts]  # type: ignore[misc]
        if not read:
            return Plan("state", tuple(self._encode(messages, 0)))
        mixed = states.mix(read, [e.strength for e in entries])
        return Plan("state", tuple(self._encode(messages, 0)), tuple(e.number for e in entries), state=mixed, mixed=True)

    def _looked_up(self, messages: Sequence[Turn], readout: MemoryReadout) -> Plan:
        ranked = readout.ranked()
        texts = tuple(quote(e.text, self._specials) for e in ranked)
        store = self._stores.get(texts, lambda: build(texts, self._special, self.decoder.hidden, self.family.vocab, self.options.knn))
        tokens = tuple(self._encode(messages, 0))
        return Plan("knn", tokens, tuple(e.number for e in ranked[: store.texts]), store=store) if len(store) else Plan("knn", tokens)

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _special(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text)["input_ids"]
        return ids


def template(tokenizer: Any, messages: Sequence[Turn]) -> list[int]:
    """Ids of a conversation up to where the answer begins: by the chat template, or as "role: content" lines where there is none.

    Control tokens that a message spells are broken. Raises FieldInvalid (messages) where the template takes no such roles in this order.
    """
    specials = control_tokens(special_tokens(tokenizer))
    turns = [{"role": m.role, "content": broken(m.content, specials)} for m in messages]
    if getattr(tokenizer, "chat_template", None):
        try:
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise FieldInvalid(f"the model's chat template refuses these messages: {error}", field="messages") from error
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
    lines = "".join(plain_line(turn["role"], turn["content"]) + "\n" for turn in turns)
    plain: list[int] = tokenizer(lines + "assistant:")["input_ids"]
    return plain


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
