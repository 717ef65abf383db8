"""The next token of a row."""

from __future__ import annotations

import torch
from torch import Tensor

from services.llm.ports import Sampling

_HEAD = 256  # most probable tokens that are sorted first; a nucleus seldom reaches beyond, and a vocabulary has 100,000


class Sampler:
    """Temperature and nucleus sampling from a random source of its own, so that a seed holds while others generate beside it."""

    def __init__(self, sampling: Sampling) -> None:
        self.greedy = sampling.temperature <= 0
        self._temperature, self._top_p = sampling.temperature, sampling.top_p
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def choose(self, logits: Tensor) -> int:
        """One of (V,). Raises RuntimeError where they are no numbers."""
        probabilities = torch.softmax(logits.float().cpu() / self._temperature, dim=-1)  # (V,)
        if self._top_p >= 1:
            return int(torch.multinomial(probabilities, 1, generator=self._random))
        kept, order = self._nucleus(probabilities)
        return int(order[torch.multinomial(kept, 1, generator=self._random)])

    def _nucleus(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities, those outside 0, and their tokens. The token that crosses top_p still counts, so one is always left."""
        kept, order = probabilities.topk(min(_HEAD, len(probabilities)))
        if float(kept.sum()) < self._top_p:
            kept, order = probabilities.sort(descending=True)
        return kept.masked_fill(kept.cumsum(0) - kept >= self._top_p, 0.0), order
