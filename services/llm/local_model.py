"""A Hugging Face causal LM in this process: what it is asked becomes a plan, tokens become text. `generator.py` has the threads."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ndml import tiny
from ndml.errors import FieldInvalid, FusionUnsupported, ModelUnavailable
from ndml.fusion.adapter import Adapter
from ndml.fusion.checkpoints import Trained, load_adapter, load_projector
from ndml.fusion.families import Family, study
from ndml.fusion.knn import KnnOptions
from ndml.fusion.prefix import Projector
from ndml.fusion.prompt import PromptLimits, Turn
from ndml.fusion.ways import Fusion, FusionOptions, Plan
from services.llm import loading
from services.llm.ports import WAYS, Abilities, Ask, Message, Tool, WayName
from services.llm.prompt import PromptWriter
from services.llm.rows import rows_for
from services.llm.settings import ChatSection
from services.llm.tool_calls import check_tools
from services.llm.vocabulary import Vocabulary

_UNBOUNDED = 1 << 24
_COUNTED = 4096  # lines of memory whose tokens are remembered: some megabytes; the same ones come back with a user's next question
_LINE = 2048  # characters; longer texts are counted each time


@dataclass(frozen=True, slots=True)
class Job:
    """A request as the model takes it: what to read, and how many tokens to answer at most."""

    plan: Plan
    new_tokens: int
    tools: bool


class LocalModel:
    """Weights, tokenizer, what was trained for them, and what they allow. Any thread."""

    def __init__(self, name: str, tokenizer: Any, network: Any, settings: ChatSection) -> None:
        """Raises ModelUnavailable, ModelNotConfigured where chat.trained or chat.fusion do not fit the model."""
        self.name, self.network, self._tokenizer, self._settings = name, network, tokenizer, settings
        self.context = settings.context_tokens or _context(tokenizer, network)
        self.vocabulary = Vocabulary(tokenizer)
        self.prompts = PromptWriter(tokenizer, self.vocabulary)
        self.ends = _ends(tokenizer, network)
        self._counted = lru_cache(_COUNTED)(lambda text: len(self.ids(text)))
        self._writing: ContextVar[tuple[int, Sequence[Tool]]] = ContextVar("writing", default=(0, ()))
        family = replace(study(network), context=self.context)
        limits = PromptLimits(settings.memory_tokens, settings.entry_chars)
        knn = KnnOptions(settings.knn_share, settings.knn_neighbours, settings.knn_temperature, settings.knn_reach)
        options = FusionOptions(prompt=limits, knn=knn, state_bytes=settings.state_bytes, store_bytes=settings.store_bytes)
        adapter, projector = _trained(settings.trained, family)
        self.fusion = Fusion(
            network,
            tokenizer,
            adapter=adapter,
            projector=projector,
            options=options,
            encode=self._encode,
            count=self._count,
            family=family,
        )
        if settings.fusion != "auto" and (why := self.refusal(settings.fusion)):
            raise ModelUnavailable(f"chat.fusion={settings.fusion} is not possible with {name}: {why}")
        self.empty_rows = rows_for(self.fusion, settings)

    @classmethod
    def load(cls, settings: ChatSection) -> LocalModel:
        """Takes seconds to minutes. Raises ModelUnavailable, ModelNotConfigured."""
        return cls(*loading.load(settings), settings)

    @property
    def abilities(self) -> Abilities:
        return Abilities({way: self.refusal(way) for way in WAYS}, not self.mute, self.context or 0)

    @property
    def inside(self) -> bool:
        """It keeps its state in its own modules: any other pass beside a generation would destroy that."""
        return self.fusion.family.continues == "no"

    @property
    def mute(self) -> str:
        """Why it scores no texts, "" where it does."""
        if self.name == tiny.NAME:
            return f"{tiny.NAME} was trained to answer from memory and on nothing else: how likely other text is to it says nothing"
        return f"{self.name} keeps its state inside its modules: scoring would destroy the answers under way" if self.inside else ""

    def refusal(self, way: WayName) -> str:
        """Why memory cannot be read in this way, "" where it can."""
        if self.inside and way != "prompt":
            return f"{self.fusion.family.architecture} keeps its state inside its modules, one generation at a time: use FUSION_WAY_PROMPT"
        error = self.fusion.refusal(way)
        return error.message if error else ""

    def prepare(self, ask: Ask) -> Job:
        """Raises FieldInvalid where it cannot fit or names tools that the model does not know, FusionUnsupported."""
        new = self._room(ask)
        tools = self._tools(ask)
        way = ask.fusion or self._settings.fusion
        if way != "auto" and (why := self.refusal(way)):
            raise FusionUnsupported(why, field="fusion")
        token = self._writing.set((new, tools))
        try:
            beside = new + (self.prompts.length(tools) if ask.memory else 0)
            plan = self.fusion.plan(ask.messages, ask.memory, "prompt" if way == "auto" and self.inside else way, beside=beside)
            return Job(plan, new, bool(tools))
        finally:
            self._writing.reset(token)

    @property
    def begin(self) -> int | None:
        """The token that begins texts; many models have none, and take the one that ends them."""
        begin, end = (getattr(self._tokenizer, f"{name}_token_id", None) for name in ("bos", "eos"))
        return begin if begin is not None else end

    def ids(self, text: str) -> list[int]:
        """Of a text alone."""
        return self.vocabulary.ids(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.vocabulary.text(ids)

    def _count(self, text: str) -> int:
        return self._counted(text) if len(text) <= _LINE else len(self.ids(text))

    def _room(self, ask: Ask) -> int:
        """New tokens at most."""
        wanted, default = ask.sampling.max_new_tokens, self._settings.default_max_new_tokens
        if self.context is None:
            return wanted or default
        new = wanted or min(default, self.context // 2)
        if new >= self.context:
            raise FieldInvalid(
                f"{new} new tokens leave no room for a prompt: the model's context is {self.context} tokens",
                field="sampling.max_new_tokens",
            )
        return new

    def _tools(self, ask: Ask) -> Sequence[Tool]:
        check_tools(ask.tools, ask.tool_choice)
        if not ask.tools or ask.tool_choice == "none":
            return ()
        if not self.prompts.knows_tools:
            raise FieldInvalid(
                f"the chat template of {self.name} knows no tools: leave them out, set tool_choice to none, or serve a model that does",
                field="tools",
            )
        if ask.tool_choice not in ("", "auto"):
            raise FieldInvalid("a local model cannot be made to use a tool: set tool_choice to auto or none", field="tool_choice")
        return ask.tools

    def _encode(self, messages: Sequence[Turn], taken: int) -> list[int]:
        """For Fusion: it knows what its own part takes, the request says the rest."""
        new, tools = self._writing.get()
        turns = [m if isinstance(m, Message) else Message("system" if m.role == "system" else "user", m.content) for m in messages]
        return self.prompts.fit(turns, None if self.context is None else self.context - new - taken, tools)


def _trained(directory: str, family: Family) -> tuple[Trained[Adapter] | None, Trained[Projector] | None]:
    """What a directory of `ndml train` has for this model."""
    if not directory:
        return None, None
    path = Path(directory).expanduser()
    adapter, projector = ((path / f"{kind}.json").is_file() for kind in ("adapter", "projector"))
    if not adapter and not projector:
        raise ModelUnavailable(f"chat.trained={directory} holds neither adapter.json nor projector.json: point it at what ndml train wrote")
    return load_adapter(path, family) if adapter else None, load_projector(path, family) if projector else None


def _ends(tokenizer: Any, network: Any) -> frozenset[int]:
    """Tokens that end an answer: the model's (chat models list several) and the tokenizer's."""
    listed = getattr(network.generation_config, "eos_token_id", None)
    ids = listed if isinstance(listed, list) else [listed]
    return frozenset(int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None)


def _context(tokenizer: Any, network: Any) -> int | None:
    """Positions that the model was made for; None for one without a limit (state space models)."""
    config = network.config.get_text_config()
    limits = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    return min((int(limit) for limit in limits if limit and limit < _UNBOUNDED), default=None)
