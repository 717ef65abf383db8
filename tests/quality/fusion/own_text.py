"""AT-6c: a datastore of what somebody said before lowers the perplexity of what they say next; another's does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from ndml.fusion.decoding import Decoder
from ndml.fusion.families import study
from ndml.fusion.knn import HiddenTap, KnnOptions, build, interpolate
from tests.perf.tables import Part, Row, Table
from tests.unit.fusion.test_knn import Writers

LENGTH, VOCAB = 24, 40
SHARES = (0.0, 0.25, 0.5, 0.75)
NOTE = """A GPT-2 of two layers, trained for seconds on people who each have 24 phrases of their own: it knows how phrases are built, not
whose they are. Perplexity of what a person it has never met says next, by the share of the datastore in the mixture; share 0 is the
model."""


def perplexity() -> Part:
    """A third of a minute."""
    writers = Writers(1)
    decoder = _model(writers)
    own, other = writers.phrases(), writers.phrases()
    heard, foreign, said = (writers.says(whose, count).reshape(-1, LENGTH) for whose, count in ((own, 96), (other, 96), (own, 48)))
    found = {share: (_of(decoder, said, heard, share), _of(decoder, said, foreign, share)) for share in SHARES}
    alone, best = found[0.0][0], min(mine for mine, _ in found.values())
    silent = found[0.0] == (_of(decoder, said, None, 0.0),) * 2
    rows = [(f"{share:g}", f"{mine:.2f}", f"{theirs:.2f}") for share, (mine, theirs) in found.items()]
    targets = [
        Row("AT-6c: perplexity with a store of their own text", f"{best:.2f}", f"the model alone {alone:.2f}", "lower", best < alone),
        Row("AT-6c: share 0 is the model", "same" if silent else "differs", "bit for bit", "same", silent),
    ]
    return Part(targets, [Table("kNN-LM on a person's own text", NOTE, ("share", "own text", "another's text"), rows)])


def _model(writers: Writers) -> Decoder:
    torch.manual_seed(0)
    lm: Any = GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=48, bos_token_id=None, eos_token_id=None)
    )
    learner = torch.optim.AdamW(lm.parameters(), 3e-3)
    for _ in range(60):
        batch = torch.stack([writers.says(writers.phrases(), 4) for _ in range(32)])
        learner.zero_grad()
        lm(input_ids=batch, labels=batch).loss.backward()
        learner.step()
    lm.eval()
    return Decoder(lm, study(lm), HiddenTap(lm))


@torch.inference_mode()
def _of(decoder: Decoder, said: Tensor, past: Tensor | None, share: float) -> float:
    options = KnnOptions(share=share, reach=1e9, temperature=0.02, text_tokens=LENGTH)
    tokenize: Callable[[str], list[int]] = lambda at: past[int(at)].tolist() if past is not None else []  # noqa: E731
    store = build([str(i) for i in range(len(past))], tokenize, decoder.hidden, VOCAB, options) if past is not None else None
    losses = []
    for row in said:
        scores = decoder.model(input_ids=row[None]).logits[0, :-1]
        mixed = interpolate(scores, decoder.hidden(row.tolist())[:-1], [store] * (LENGTH - 1))
        losses.append(F.cross_entropy(mixed, row[1:]))
    return math.exp(float(torch.stack(losses).mean()))
