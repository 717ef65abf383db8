"""kNN-LM: the mixture, its bounds, and AT-6c."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from ndml.errors import FieldInvalid
from ndml.fusion.decoding import Decoder
from ndml.fusion.families import study
from ndml.fusion.knn import Datastore, HiddenTap, KnnOptions, KnnProcessor, build, interpolate
from tests.unit.fusion.tiny import model

FAR = KnnOptions(reach=1e9)


def store(keys: int = 50, options: KnnOptions = FAR, seed: int = 0) -> Datastore:
    random = torch.Generator().manual_seed(seed)
    return Datastore(torch.randn(keys, 8, generator=random), torch.randint(0, 20, (keys,), generator=random), 20, options)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 1.0), st.integers(1, 60), st.floats(0.01, 3.0), st.integers(0, 99))
def test_a_mixture_is_a_distribution_between_both(share: float, neighbours: int, temperature: float, seed: int) -> None:
    made = store(options=KnnOptions(share, neighbours, temperature, reach=1e9), seed=seed)
    logits, hidden = torch.randn(3, 20), torch.randn(3, 8)
    found, reached = made.distribution(hidden)
    assert reached.all() and torch.allclose(found.sum(1), torch.ones(3), atol=1e-5)
    mixed = interpolate(logits, hidden, [made] * 3).exp()
    assert torch.allclose(mixed, share * found + (1 - share) * logits.softmax(-1), atol=1e-5)


def test_rows_with_nothing_to_say_pass_bit_for_bit() -> None:
    made = store(options=KnnOptions(reach=0.5))
    none = Datastore(torch.zeros(0, 8), torch.zeros(0, dtype=torch.long), 20, FAR)
    mute = store(options=replace(FAR, share=0.0))
    logits, hidden = torch.randn(5, 20), torch.randn(5, 8)
    hidden[0] = 1e3  # far from everything
    hidden[1] = made.keys[7]
    out = interpolate(logits, hidden, [made, made, none, mute, None])
    assert torch.equal(out[[0, 2, 3, 4]], logits[[0, 2, 3, 4]]) and not torch.equal(out[1], logits[1])
    assert int(made.distribution(made.keys[7:8])[0].argmax()) == int(made.tokens[7])
    assert interpolate(logits[2:], hidden[2:], [none, mute, None]).data_ptr() == logits[2:].data_ptr()


def test_faiss_and_torch_find_the_same() -> None:
    random = torch.Generator().manual_seed(3)
    keys, tokens = torch.randn(5000, 16, generator=random), torch.randint(0, 50, (5000,), generator=random)
    one, two, auto = (Datastore(keys, tokens, 50, KnnOptions(backend=b, reach=1e9)) for b in ("torch", "faiss", "auto"))
    queries = torch.randn(7, 16, generator=random)
    for other in (two, auto):
        assert torch.allclose(one.distribution(queries)[0], other.distribution(queries)[0], atol=1e-4)
    assert one._index is None and auto._index.ntotal == 5000


def test_a_store_is_bounded_and_says_how_much_went_in() -> None:
    def read(tokens: list[int]) -> Tensor:
        return torch.tensor(tokens, dtype=torch.float32)[:, None].expand(-1, 4)

    made = build(
        ["abcd", "", "xyz" * 9, "never reached"], lambda text: [ord(c) for c in text], read, 300, KnnOptions(keys=10, text_tokens=8)
    )
    assert len(made) == 10 and made.texts == 3
    assert made.tokens.tolist() == [ord(c) for c in "bcd" + "yzxyzxy"] and made.keys[:, 0].tolist() == [ord(c) for c in "abc" + "xyzxyzx"]
    assert build(["a", ""], lambda text: [1] * len(text), read, 300, FAR).texts == 2
    for wrong in ({"share": 1.5}, {"share": -0.1}, {"temperature": 0.0}, {"neighbours": 0}, {"keys": 0}, {"text_tokens": 1}):
        with pytest.raises(FieldInvalid):
            KnnOptions(**wrong)


def test_the_tap_sees_only_when_asked_and_only_its_thread() -> None:
    lm = model("GPT2")
    tap = HiddenTap(lm)
    inputs = torch.tensor([[5, 6, 7]])
    try:
        with tap.watching(), torch.inference_mode():
            wanted = lm(input_ids=inputs, output_hidden_states=True).hidden_states[-1]
            assert torch.equal(tap.hidden, wanted)
            with pytest.raises(FieldInvalid, match="beam search"):
                KnnProcessor(tap, [None, None])(inputs, torch.zeros(3, 260))
        lm(input_ids=inputs)
        assert tap.hidden is None
    finally:
        tap.close()


class Writers:
    """People who each have 24 phrases of their own of five letters, and say them in any order."""

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)

    def phrases(self) -> Tensor:
        return torch.randint(2, 40, (24, 5), generator=self.random)

    def says(self, phrases: Tensor, count: int) -> Tensor:
        chosen = phrases[torch.randint(0, len(phrases), (count,), generator=self.random)]
        return torch.cat([chosen, torch.ones(count, 1, dtype=torch.long)], dim=1).flatten()  # 1 ends a phrase


def test_at_6c_their_own_text_lowers_the_perplexity_of_what_they_say_next() -> None:
    """A GPT-2 that knows how phrases are built, not whose they are. Control: somebody else's store does not help."""
    writers = Writers(0)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=48, bos_token_id=None, eos_token_id=None)
    lm: Any = GPT2LMHeadModel(config)
    learner = torch.optim.AdamW(lm.parameters(), 3e-3)
    for _ in range(60):
        batch = torch.stack([writers.says(writers.phrases(), 4) for _ in range(32)])  # (32, 24)
        loss = lm(input_ids=batch, labels=batch).loss
        learner.zero_grad()
        loss.backward()
        learner.step()
    lm.eval()
    tap = HiddenTap(lm)
    decoder = Decoder(lm, study(lm), tap)
    own, other = writers.phrases(), writers.phrases()
    heard, foreign, said = (writers.says(whose, count).reshape(-1, 24) for whose, count in ((own, 96), (other, 96), (own, 48)))

    def perplexity(share: float, past: Tensor) -> float:
        options = KnnOptions(share=share, reach=1e9, temperature=0.02, text_tokens=24)
        stored = build([str(i) for i in range(len(past))], lambda at: past[int(at)].tolist(), decoder.hidden, 40, options)
        losses = []
        for row in said:
            with torch.inference_mode():
                scores = lm(input_ids=row[None]).logits[0, :-1]
            mixed = interpolate(scores, decoder.hidden(row.tolist())[:-1], [stored] * 23)
            losses.append(torch.nn.functional.cross_entropy(mixed, row[1:]))
        return math.exp(float(torch.stack(losses).mean()))

    alone, with_own, with_foreign = perplexity(0.0, heard), perplexity(0.5, heard), perplexity(0.5, foreign)
    print(f"perplexity {alone:.2f}, own text {with_own:.2f}, another's {with_foreign:.2f}")
    assert with_own < 0.75 * alone
    assert with_foreign > 0.98 * alone
