"""One pass over questions for each way to read memory: logits, what should have been said, and how far off it looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ndml.errors import FieldInvalid
from ndml.fusion.adapter import Adapter, AdapterConfig, AdapterRows
from ndml.fusion.families import special_tokens
from ndml.fusion.prefix import Projector, ProjectorConfig, loudness
from ndml.fusion.prompt import PromptLimits, write_block
from ndml.training.config import AdapterShape, ProjectorShape, TrainConfig
from ndml.training.data import Episode
from ndml.training.examples import IGNORED, Rows, Sites, Spoken, Writer, pieces, rows, sites, standing
from ndml.training.models import Subject

_FLOOR = 1e-9  # a probability below which its logarithm says nothing more


@dataclass(frozen=True, slots=True)
class Pass:
    """logits (B, T, V) beside labels (B, T); look: mean -ln of the attention on the places where answers stand, 0 where none is asked."""

    logits: Tensor
    labels: Tensor
    look: Tensor

    def spoken_loss(self) -> Tensor:
        """Cross-entropy of the answers' tokens."""
        return F.cross_entropy(self.logits.flatten(0, 1).float(), self.labels.flatten(), ignore_index=IGNORED)

    def right(self) -> Tensor:
        """(B,) whether each token of an answer is the most likely one: greedy decoding would say exactly this."""
        return ((self.logits.argmax(-1) == self.labels) | (self.labels == IGNORED)).all(1)


class Reader(Protocol):
    """A way to read memory, as training needs it."""

    @property
    def module(self) -> Adapter | Projector | None:
        """What learns, None where it is the model itself."""

    def read(self, episodes: Sequence[Episode], *, look: bool = False) -> Pass:
        """All questions of the episodes, in order, as one batch. look: with its loss, where the way has one."""

    def close(self) -> None:
        """Leave the model as it was."""


def reader(subject: Subject, config: TrainConfig, vector: int) -> Reader:
    """An untrained reader of the run's way. vector: components of the memories' vectors, 0: they have none. Raises FieldInvalid."""
    writer = Writer(subject.tokenizer, config.prompt_tokens, config.answer_tokens, subject.family.context)
    if config.way == "adapter":
        return AdapterReader(subject, config.adapter, vector, writer)
    if config.way == "prefix":
        return PrefixReader(subject, config.projector, vector, writer)
    return PromptReader(subject, PromptLimits(config.memory_tokens), writer)


class AdapterReader:
    """Cross-attention on the model's blocks, by hooks."""

    def __init__(self, subject: Subject, shape: AdapterShape, vector: int, writer: Writer) -> None:
        family = subject.family
        made = AdapterConfig(
            blocks=shape.blocks or spread(family.layers),
            hidden=family.hidden,
            embed=family.embed,
            vector=vector,
            width=shape.width,
            heads=shape.heads,
            window=shape.window,
            entry_tokens=shape.entry_tokens,
            tokens=shape.tokens,
        )
        self.module = Adapter(made).to(subject.device)
        self.module.attach(subject.model, family)
        self._subject, self._writer = subject, writer
        self._embed = subject.model.get_input_embeddings()

    def read(self, episodes: Sequence[Episode], *, look: bool = False) -> Pass:
        batch, given = _rows(episodes, self._writer, self._subject)
        which = [at for at, episode in enumerate(episodes) for _ in episode.asks]
        read = [self.module.memory(e.readout, self._writer.tokens, self._embed) for e in episodes]
        each = self.module.rows(read, cached=False, record=look)
        memory = each.spread(len(which)) if len(read) == 1 else each.take(which)
        with self.module.using(memory):
            logits = _logits(self._subject.model, input_ids=batch.ids)
        found = self._sites(episodes, [memory.used for memory in read], given) if look else None
        return Pass(logits, batch.labels, logits.new_zeros(()) if found is None else looked(memory, found))

    def close(self) -> None:
        self.module.detach()

    def _sites(self, episodes: Sequence[Episode], used: Sequence[tuple[int, ...]], given: Sequence[Spoken]) -> Sites:
        places, row = [], 0
        for episode, numbers in zip(episodes, used, strict=True):
            said = self._said(episode, numbers)
            for ask in episode.asks:
                spoken = given[row]
                at = standing(pieces(self._subject.tokenizer, spoken.answer), [said[n] for n in ask.used if n in said])
                places += [(row, len(spoken.prompt) - 1 + step, tokens) for step, tokens in enumerate(at) if tokens]
                row += 1
        return sites(places, self._subject.device)

    def _said(self, episode: Episode, numbers: Sequence[int]) -> dict[int, tuple[int, list[str]]]:
        """For each entry that was read, in this order: its first memory token, and its pieces."""
        texts = {entry.number: entry.text for entry in episode.readout.entries}
        said, first = {}, 0
        for number in numbers:
            ids = self._writer.tokens(" " + texts[number])[: self.module.config.entry_tokens]
            said[number] = first, pieces(self._subject.tokenizer, ids)
            first += len(ids)
        return said


class PrefixReader:
    """Sentence vectors in front of the prompt."""

    def __init__(self, subject: Subject, shape: ProjectorShape, vector: int, writer: Writer) -> None:
        if not vector:
            raise FieldInvalid(
                "a projector reads the memories' vectors, and there are none: bring `embedding`, or name an embedder", field="way"
            )
        if not subject.family.embeds:
            raise FieldInvalid(f"{subject.family.architecture} does not read inputs_embeds: train an adapter instead", field="way")
        self._embed = subject.model.get_input_embeddings()
        made = ProjectorConfig(vector, subject.family.embed, shape.tokens, shape.width, shape.entries)
        self.module = Projector(made, loudness(self._embed)).to(subject.device)
        self._subject, self._writer = subject, writer

    def read(self, episodes: Sequence[Episode], *, look: bool = False) -> Pass:
        batch, given = _rows(episodes, self._writer, self._subject)
        own: Tensor = self._embed(batch.ids)  # (B, T, E)
        prefixes = [prefix for episode in episodes for prefix in [self._prefix(episode)] * len(episode.asks)]
        most = max(len(prefix) for prefix in prefixes)
        embeds, labels = [], []
        for row, (spoken, prefix) in enumerate(zip(given, prefixes, strict=True)):
            after = int(spoken.prompt[0] == self._subject.tokenizer.bos_token_id)
            room = most - len(prefix)
            embeds.append(F.pad(torch.cat([own[row, :after], prefix.to(own), own[row, after:]]), (0, 0, 0, room)))
            labels.append(F.pad(batch.labels[row], (len(prefix), room), value=IGNORED))  # what is before the answer is ignored anyway
        logits = _logits(self._subject.model, inputs_embeds=torch.stack(embeds))
        return Pass(logits, torch.stack(labels), logits.new_zeros(()))

    def close(self) -> None:
        """Nothing hangs in the model."""

    def _prefix(self, episode: Episode) -> Tensor:
        entries = self.module.chosen(episode.readout)
        return self.module.prefix(entries) if entries else torch.zeros(0, self._subject.family.embed, device=self._subject.device)


class PromptReader:
    """Quoted text in the prompt: what learns is the model, by LoRA."""

    module: Adapter | Projector | None = None

    def __init__(self, subject: Subject, limits: PromptLimits, writer: Writer) -> None:
        self._subject, self._limits, self._writer = subject, limits, writer
        self._specials = special_tokens(subject.tokenizer)

    def read(self, episodes: Sequence[Episode], *, look: bool = False) -> Pass:
        count = lambda text: len(self._writer.tokens(text))  # noqa: E731
        given = []
        for episode in episodes:
            block = write_block(episode.readout, count, self._limits, self._specials)
            given += [self._writer.spoken(ask, episode.line, block.into(())) for ask in episode.asks]
        batch = rows(given, self._subject.device)
        logits = _logits(self._subject.model, input_ids=batch.ids)
        return Pass(logits, batch.labels, logits.new_zeros(()))

    def close(self) -> None:
        """Nothing hangs in the model."""


def spread(layers: int) -> tuple[int, ...]:
    """Up to three blocks: behind a third of the depth, behind two thirds, the last."""
    return tuple(sorted({max(0, layers // 3 - 1), max(0, 2 * layers // 3 - 1), layers - 1})) if layers > 2 else tuple(range(layers))


def looked(memory: AdapterRows, found: Sites) -> Tensor:
    """Mean over the groups of -ln of the attention that their places get, heads and blocks apart."""
    losses = []
    for scores in memory.scores if len(found.row) else ():  # (B, heads, T, M + 1)
        shares = scores[found.row, :, found.time].float().softmax(-1)  # (G, heads, M + 1)
        hits = shares[found.group, :, found.token]  # (P, heads)
        sums = hits.new_zeros(len(found.row), hits.shape[1]).index_add(0, found.group, hits)  # (G, heads)
        losses.append(-sums.clamp_min(_FLOOR).log().mean())
    return torch.stack(losses).sum() if losses else torch.zeros((), device=found.row.device)


def _rows(episodes: Sequence[Episode], writer: Writer, subject: Subject) -> tuple[Rows, list[Spoken]]:
    given = [writer.spoken(ask, episode.line) for episode in episodes for ask in episode.asks]
    return rows(given, subject.device), given


def _logits(model: nn.Module, **given: Any) -> Tensor:
    logits: Tensor = model(**given, use_cache=False).logits
    return logits
