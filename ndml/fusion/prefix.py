"""Soft prefix: each trace's sentence vector becomes k vectors of the model's embedding space, set in front of the prompt.

A trace costs k positions however long its text is. What can be read from a sentence vector is its gist, not the spelling of a name.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ndml.errors import FieldInvalid
from ndml.fusion.readout import Entry, MemoryReadout, oldest_first


@dataclass(frozen=True, slots=True)
class ProjectorConfig:
    """vector: components of a sentence vector; embed: of the model's input embeddings; tokens: prefix vectors for each trace;
    width: of the layer between; entries: the most traces at once, best first, since each takes room from the prompt."""

    vector: int
    embed: int
    tokens: int = 1
    width: int = 256
    entries: int = 16

    def __post_init__(self) -> None:
        if min(self.vector, self.embed, self.tokens, self.width, self.entries) < 1:
            raise FieldInvalid("every size of a projector is at least 1", field="projector")


class Projector(nn.Module):
    """(n, D) to (n, k, E)."""

    scale: Tensor

    def __init__(self, config: ProjectorConfig, scale: float = 1.0) -> None:
        """scale: root mean square of the model's embeddings, so that a prefix is as loud as a token from the start (`loudness`)."""
        super().__init__()
        self.config = config
        self.inner = nn.Sequential(nn.Linear(config.vector, config.width), nn.GELU(), nn.Linear(config.width, config.tokens * config.embed))
        self.norm = nn.LayerNorm(config.embed)
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, vectors: Tensor) -> Tensor:
        out: Tensor = self.norm(self.inner(vectors).unflatten(-1, (self.config.tokens, self.config.embed))) * self.scale
        return out

    def chosen(self, readout: MemoryReadout) -> list[Entry]:
        """The best entries that have a vector, oldest first. Raises EmbeddingDimensionMismatch."""
        readout.check_dimension(self.config.vector)
        ranked = [e for e in readout.ranked() if e.embedding is not None]
        return oldest_first(ranked[: self.config.entries])

    def prefix(self, entries: list[Entry]) -> Tensor:
        """(n k, E) of entries with vectors."""
        parameter = next(self.parameters())
        vectors = torch.stack([torch.from_numpy(e.embedding.copy()) for e in entries if e.embedding is not None])  # (n, D)
        rows: Tensor = self(vectors.to(device=parameter.device, dtype=parameter.dtype))
        return rows.flatten(0, 1)


def loudness(embed: nn.Module, sample: int = 256) -> float:
    """Root mean square of the vectors that input embeddings give, over `sample` tokens spread over the vocabulary."""
    weight = next(iter(embed.parameters()))
    ids = torch.linspace(0, weight.shape[0] - 1, min(sample, weight.shape[0]), device=weight.device).long()
    with torch.inference_mode():
        return float(embed(ids).float().square().mean().sqrt())
