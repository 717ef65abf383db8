"""AT-6c: a datastore of what somebody said before lowers the perplexity of what they say next; another's does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MambaConfig, PretrainedConfig

from ndml.fusion.decoding import Decoder
from ndml.fusion.families import study
from ndml.fusion.knn import HiddenTap, KnnOptions, build, interpolate
from services.llm.settings import ChatSection
from tests.perf.tables import Part, Row, Table
from tests.unit.fusion.test_knn import Writers

LENGTH, VOCAB = 24, 40
RATE = 3e-3
_NO_ENDS: dict[str, Any] = {"vocab_size": VOCAB, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_SIZE = _NO_ENDS | {"hidden_size": 32, "num_hidden_layers": 2}
STEPS = {"GPT-2": 60, "Llama": 150, "Mamba": 150}  # until each knows where phrases end: a perplexity near 20.7, as letters are drawn
CONFIGS: dict[str, PretrainedConfig] = {
    "GPT-2": GPT2Config(**_NO_ENDS, n_embd=32, n_layer=2, n_head=4, n_positions=48),
    "Llama": LlamaConfig(**_SIZE, num_attention_heads=4, intermediate_size=96, max_position_embeddings=48),
    "Mamba": MambaConfig(**_SIZE, state_size=16),
}
CHAT = ChatSection()
SERVED = KnnOptions(CHAT.knn_share, CHAT.knn_neighbours, CHAT.knn_temperature, CHAT.knn_reach)
UNBOUND = {f"share {share:g}": KnnOptions(share=share, reach=1e9, temperature=0.02, text_tokens=LENGTH) for share in (0.0, 0.25, 0.5, 0.75)}
ALONE, DEFAULT = "share 0", "as served by default"
OPTIONS = UNBOUND | {DEFAULT: SERVED}
NOTE = """A GPT-2, a Llama and a Mamba of two layers, trained for seconds on people who each have 24 phrases of their own: they know how
phrases are built, not whose they are. Perplexity of what a person they have never met says next, with a datastore of what that person
said before, or what another did; share 0 is the model. In the rows with a share every neighbour has a vote (reach without bound,
temperature .02). *As served by default*: the llm service's `chat.knn_*` as they come: share {share:g}, {neighbours} neighbours,
temperature {temperature:g}, reach {reach:g}. **In serving the store is made of what was recalled** for the question, some hundred
tokens, not of all that a person ever said, as it is here."""


def perplexity() -> Part:
    """A minute."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    silent = True
    for name, config in CONFIGS.items():
        writers = Writers(1)
        decoder = _model(config, STEPS[name], writers)
        own, other = writers.phrases(), writers.phrases()
        heard, foreign, said = (writers.says(whose, count).reshape(-1, LENGTH) for whose, count in ((own, 96), (other, 96), (own, 48)))
        found[name] = {label: (_of(decoder, said, heard, o), _of(decoder, said, foreign, o)) for label, o in OPTIONS.items()}
        silent &= found[name][ALONE] == (_of(decoder, said, None, OPTIONS[ALONE]),) * 2
    rows = [(label, *(f"{value:.2f}" for name in CONFIGS for value in found[name][label])) for label in OPTIONS]
    head = ("store", *(f"{name}, {whose}" for name in CONFIGS for whose in ("own text", "another's")))
    note = NOTE.format(share=SERVED.share, neighbours=SERVED.neighbours, temperature=SERVED.temperature, reach=SERVED.reach)
    targets = [row for name in CONFIGS for row in _targets(name, found[name])]
    targets.append(Row("AT-6c: share 0 is the model", "same" if silent else "differs", "bit for bit", "same", silent))
    return Part(targets, [Table("kNN-LM on a person's own text", note, head, rows)])


def _targets(name: str, found: dict[str, tuple[float, float]]) -> list[Row]:
    alone = found[ALONE][0]
    best = {"with a store of their own text": min(mine for mine, _ in found.values()), DEFAULT: found[DEFAULT][0]}
    return [
        Row(f"AT-6c, {name}: perplexity {how}", f"{mine:.2f}", f"the model alone {alone:.2f}", "lower", mine < alone)
        for how, mine in best.items()
    ]


def _model(config: PretrainedConfig, steps: int, writers: Writers) -> Decoder:
    torch.manual_seed(0)
    lm: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    learner = torch.optim.AdamW(lm.parameters(), RATE)
    for _ in range(steps):
        batch = torch.stack([writers.says(writers.phrases(), 4) for _ in range(32)])
        learner.zero_grad()
        lm(input_ids=batch, labels=batch).loss.backward()
        learner.step()
    lm.eval()
    return Decoder(lm, study(lm), HiddenTap(lm))


@torch.inference_mode()
def _of(decoder: Decoder, said: Tensor, past: Tensor | None, options: KnnOptions) -> float:
    tokenize: Callable[[str], list[int]] = lambda at: past[int(at)].tolist() if past is not None else []  # noqa: E731
    store = build([str(i) for i in range(len(past))], tokenize, decoder.hidden, VOCAB, options) if past is not None else None
    losses = []
    for row in said:
        scores = decoder.model(input_ids=row[None]).logits[0, :-1]
        mixed = interpolate(scores, decoder.hidden(row.tolist())[:-1], [store] * (LENGTH - 1))
        losses.append(F.cross_entropy(mixed, row[1:]))
    return math.exp(float(torch.stack(losses).mean()))
