"""A forward pass over a caller's ids in which each row reads its own memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ndml.errors import FieldInvalid, NotAvailable
from ndml.fusion.adapter import Adapter
from ndml.fusion.checkpoints import Trained
from ndml.fusion.families import special_tokens
from ndml.fusion.prefix import Projector
from ndml.fusion.prompt import PromptLimits, write_block
from ndml.fusion.readout import MemoryReadout
from ndml.fusion.ways import Fusion


class Forward:
    """Rows without memory get exactly the model's own logits, whatever stands beside them."""

    def __init__(
        self,
        fusion: Fusion,
        model: Any,
        tokenizer: Any,
        adapter: Trained[Adapter] | None,
        projector: Trained[Projector] | None,
        prompt_tokens: int,
    ) -> None:
        """adapter, projector: those that `fusion` was made with."""
        self._fusion, self._model, self._tokenizer = fusion, model, tokenizer
        self._adapter = adapter.module if adapter else None
        self._projector = projector.module if projector else None
        self._tokens = prompt_tokens
        self._specials = special_tokens(tokenizer)
        self._embed = model.get_input_embeddings()

    def texts(self, ids: Tensor, mask: Tensor | None) -> list[str]:
        """What each row of (B, T) says. Raises FieldInvalid for another shape."""
        if ids.dim() != 2 or not ids.numel():
            raise FieldInvalid(f"input_ids has shape {tuple(ids.shape)}: give (rows, tokens), at least one of each", field="input_ids")
        if mask is not None and mask.shape != ids.shape:
            raise FieldInvalid(f"attention_mask is {tuple(mask.shape)}, input_ids is {tuple(ids.shape)}", field="attention_mask")
        rows = [row if mask is None else row[mask[at].bool()] for at, row in enumerate(ids)]
        return [str(self._tokenizer.decode(row.tolist(), skip_special_tokens=True)) for row in rows]

    def logits(self, ids: Tensor, mask: Tensor | None, reads: Sequence[MemoryReadout], way: str) -> tuple[Tensor, str]:
        """(B, T, V), and the way. Raises what `Fusion.refusal` says, NotAvailable for kNN."""
        way = self._way(way)
        ids = ids.to(self._embed.weight.device)
        mask = None if mask is None else mask.to(ids.device)
        if not any(reads):
            return self._plain(ids, mask), way
        if way == "adapter":
            return self._adapted(ids, mask, reads), way
        return self._before(ids, mask, reads, way), way

    def _way(self, way: str) -> str:
        if way == "auto":
            return "adapter" if self._adapter is not None else "prompt"
        refusal = self._fusion.refusal(way)
        if refusal is not None:
            raise refusal
        if way == "knn":
            raise NotAvailable("kNN is for the next token, a forward pass gives all of them: use chat_completion, or another way")
        return way

    def _plain(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        given = {} if mask is None else {"attention_mask": mask}
        logits: Tensor = self._model(input_ids=ids, use_cache=False, **given).logits
        return logits

    def _adapted(self, ids: Tensor, mask: Tensor | None, reads: Sequence[MemoryReadout]) -> Tensor:
        assert self._adapter is not None
        memories = [self._adapter.memory(read, self._ids, self._embed) for read in reads]
        padded = mask if mask is not None and bool((mask == 0).any()) else None
        with self._adapter.using(self._adapter.rows(memories, mask=padded, cached=False)):
            return self._plain(ids, mask)

    def _before(self, ids: Tensor, mask: Tensor | None, reads: Sequence[MemoryReadout], way: str) -> Tensor:
        """Rows with memory one by one, what they read in front of them; the others, and padding, as the model has them."""
        out = self._plain(ids, mask)
        rows = list(out)
        for at, read in enumerate(reads):
            own = ids[at] if mask is None else ids[at][mask[at].bool()]
            found = self._behind(own, read, way) if read and len(own) else None
            if found is not None:
                real = slice(None) if mask is None else mask[at].bool()
                rows[at] = rows[at].clone()
                rows[at][real] = found.to(rows[at].dtype)
        return torch.stack(rows)

    def _behind(self, own: Tensor, read: MemoryReadout, way: str) -> Tensor | None:
        """(T, V) of one row behind its memory; None where there is no room for any."""
        after = int(int(own[0]) == self._tokenizer.bos_token_id)  # models rest on their first token
        memory = self._prefix(read) if way == "prefix" else self._block(read, len(own))
        if memory is None:
            return None
        row: Tensor = self._embed(own)
        embeds = torch.cat([row[:after], memory.to(row.dtype), row[after:]])[None]
        logits: Tensor = self._model(inputs_embeds=embeds, use_cache=False).logits[0]
        return torch.cat([logits[:after], logits[after + len(memory) :]])

    def _block(self, read: MemoryReadout, length: int) -> Tensor | None:
        context = self._fusion.family.context
        room = self._tokens if context is None else min(self._tokens, context - length)
        block = write_block(read, lambda text: len(self._ids(text)), PromptLimits(max(room, 0)), self._specials)
        if not block.text:
            return None
        embeds: Tensor = self._embed(torch.tensor(self._ids(block.text + "\n")[:room], device=self._embed.weight.device))
        return embeds

    def _prefix(self, read: MemoryReadout) -> Tensor | None:
        assert self._projector is not None
        entries = self._projector.chosen(read)
        return self._projector.prefix(entries) if entries else None

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
