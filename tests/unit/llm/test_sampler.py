from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.llm.ports import Sampling
from services.llm.sampler import Sampler


def by_sorting(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Probabilities of a nucleus as the definition has it: the smallest set of the likeliest tokens that reaches top_p."""
    p = (logits / temperature).softmax(-1)
    ordered, order = p.sort(descending=True)
    outside = ordered.cumsum(0) - ordered >= top_p
    kept = torch.zeros_like(p).scatter(0, order, ordered.masked_fill(outside, 0.0))
    return kept / kept.sum()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), flat=st.floats(0.01, 3.0), temperature=st.floats(0.1, 2.0), top_p=st.floats(0.05, 0.999))
def test_the_nucleus_is_that_of_the_whole_vocabulary(seed: int, flat: float, temperature: float, top_p: float) -> None:
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(seed)) * flat
    kept, order = Sampler(Sampling(temperature=temperature, top_p=top_p))._nucleus((logits / temperature).softmax(-1))
    found = torch.zeros(1000).scatter(0, order, kept / kept.sum())
    torch.testing.assert_close(found, by_sorting(logits, temperature, top_p), atol=1e-6, rtol=1e-4)


def test_tokens_come_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -9.0])
    sampler = Sampler(Sampling(temperature=1.0, top_p=0.95, seed=5))
    drawn = torch.bincount(torch.tensor([sampler.choose(logits) for _ in range(4000)]), minlength=4) / 4000
    torch.testing.assert_close(drawn, by_sorting(logits, 1.0, 0.95), atol=0.03, rtol=0)
