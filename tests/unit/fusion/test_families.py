"""Every way on every family: the identity bit for bit, an effect, cached as uncached, a batch as one by one; a table of what is refused."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ndml.errors import NotAvailable
from ndml.fusion.adapter import Adapter, AdapterConfig
from ndml.fusion.checkpoints import Trained, card_for
from ndml.fusion.families import blocks_of, study
from ndml.fusion.knn import KnnOptions
from ndml.fusion.prefix import Projector, ProjectorConfig, loudness
from ndml.fusion.prompt import Message
from ndml.fusion.readout import Entry, MemoryReadout
from ndml.fusion.ways import WAYS, Fusion, FusionOptions, Plan, Way
from tests.unit.fusion.tiny import CONFIGS, model, tokenizer

FAMILIES = list(CONFIGS)
# One rounding error of float32 is 1.2e-7 of the size of a logit. Another batch size or a cache adds in another order; through two
# layers, and a recurrent scan in chunks against one in steps, that grows to some hundred of them.
TOLERANCE = 1e-4
EFFECT = 1e-3  # of a log probability: small models of random weights feel little, and rounding moves them by a thousandth of it
D = 12

# What a family keeps between tokens, how it goes on from there, whether left padding leaves it alone: measured by `study`.
TABLE = {
    **dict.fromkeys(["Llama", "Mistral", "Qwen2", "Qwen3", "Phi", "Phi3", "Gemma", "Gemma2", "Gemma3Text"], ("kv", "block", True)),
    **dict.fromkeys(["GPT2", "GPTNeoX", "OPT", "Bloom", "Mixtral"], ("kv", "block", True)),
    "Mamba": ("recurrent", "step", True),  # its scan starts from zero whenever it gets more than one token
    "Mamba2": ("recurrent", "block", True),
    "Rwkv": ("recurrent", "block", False),  # reads padding like text
    "RecurrentGemma": ("inside", "no", False),  # keeps state in its modules; its convolution sees padding
    "Jamba": ("hybrid", "step", True),  # Mamba layers, as above
    **dict.fromkeys(["Zamba2", "FalconH1", "Bamba", "GraniteMoeHybrid", "Qwen3Next"], ("hybrid", "block", True)),
}
REFUSED: dict[str, tuple[Way, ...]] = {"RecurrentGemma": ("state",)}
NO_EMBEDS_IN_GENERATE = {"Zamba2", "FalconH1", "Bamba"}
STEPS_FROM_STATES = [name for name in FAMILIES if name not in REFUSED]

HELLO = [Message("user", "where is my cat?")]
LONGER = [Message("user", "good morning to you"), Message("assistant", "hello"), Message("user", "and what is it called?")]


def readout(*texts: str) -> MemoryReadout:
    random = np.random.default_rng(len(texts[0]) if texts else 0)
    return MemoryReadout(
        tuple(
            Entry(n, text, "Ana", datetime(2026, 1, n, tzinfo=UTC), random.normal(size=D).astype(np.float32), 1 / n)
            for n, text in enumerate(texts, 1)
        )
    )


EMPTY = MemoryReadout()
CAT = readout("my cat is called Miso", "she sleeps on the blue chair by the window")
DOG = readout("the dog ate 3 shoes")


@cache
def fusion(name: str) -> Fusion:
    """With an adapter and a projector of random weights, as if training had written them."""
    lm = model(name)
    family = study(lm)
    torch.manual_seed(3)
    blocks = tuple(range(family.layers))
    adapter = Adapter(AdapterConfig(blocks, family.hidden, family.embed, vector=D, width=16, heads=2)).eval()
    for reader in adapter.blocks:
        torch.nn.init.normal_(reader.leave.weight, std=0.5)  # type: ignore[arg-type, union-attr]
    projector = Projector(ProjectorConfig(D, family.embed, tokens=2, width=16), loudness(lm.get_input_embeddings())).eval()
    vouched: list[Any] = [Trained(m, card_for(m, family, steps=1, score=0.0)) for m in (adapter, projector)]
    options = FusionOptions(knn=KnnOptions(share=0.5, reach=100.0))
    return Fusion(lm, tokenizer(), adapter=vouched[0], projector=vouched[1], options=options, family=family)


def bare(name: str, ids: tuple[int, ...]) -> Tensor:
    """(V,) of the model alone, called as transformers' own users do."""
    inputs = torch.tensor([ids])
    with torch.inference_mode():
        logits: Tensor = model(name)(input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=True, logits_to_keep=1).logits
    return logits[0, -1]


def first_logits(made: Fusion, plan: Plan) -> Tensor:
    """(V,) after the prompt."""
    if made.family.continues != "no":
        return made.start(plan).logits[0]
    with made.for_generate([plan]) as given, torch.inference_mode():
        processors = given.pop("logits_processor", [])
        logits: Tensor = made.decoder.model(**given, logits_to_keep=1).logits[:, -1]
        for processor in processors:
            logits = processor(None, logits)
    return logits[0]


def close(a: Tensor, b: Tensor) -> bool:
    return float((a - b).abs().max()) <= TOLERANCE * float(b[b.isfinite()].abs().max())


def open_ways(name: str) -> list[Way]:
    return [way for way in WAYS if way not in REFUSED.get(name, ())]


def test_the_table_is_what_the_models_say() -> None:
    studied = {name: fusion(name).family for name in FAMILIES}
    assert {name: (f.keeps, f.continues, f.pads) for name, f in studied.items()} == TABLE
    assert {name for name, f in studied.items() if not f.generates_embeds} == NO_EMBEDS_IN_GENERATE
    assert all(f.embeds for f in studied.values())
    # In transformers' RWKV a step of several rows mixes each with all others' last token: such a batch is stepped row by row.
    assert {name for name, f in studied.items() if not f.batches} == {"Rwkv", "RecurrentGemma"}
    assert {name: fusion(name).ways() for name in FAMILIES} == {name: tuple(open_ways(name)) for name in FAMILIES}
    assert (studied["OPT"].embed, studied["OPT"].hidden) == (16, 32)
    assert [len(blocks_of(model(name), studied[name])) for name in ("GPT2", "RecurrentGemma", "Zamba2")] == [2, 3, 2]


@pytest.mark.parametrize("name", FAMILIES)
def test_without_memory_every_way_is_the_model_itself(name: str) -> None:
    made = fusion(name)
    for way in open_ways(name):
        plan = made.plan(LONGER, EMPTY, way)
        assert plan.used == ()
        assert torch.equal(first_logits(made, plan), bare(name, plan.tokens)), way


@pytest.mark.parametrize("name", FAMILIES)
def test_a_closed_gate_and_a_share_of_nothing_are_the_model_itself(name: str) -> None:
    made = fusion(name)
    plan = made.plan(HELLO, CAT, "adapter")
    assert made._adapter is not None
    gates = [reader.gate for reader in made._adapter.module._readers()]
    try:
        for gate in gates:
            gate.data.zero_()
        assert torch.equal(first_logits(made, plan), bare(name, plan.tokens))
    finally:
        for gate in gates:
            gate.data.fill_(1.0)
    plan = made.plan(HELLO, CAT, "knn")
    assert plan.store is not None
    plan.store.options, kept = dataclasses.replace(plan.store.options, share=0.0), plan.store.options
    try:
        assert torch.equal(first_logits(made, plan), bare(name, plan.tokens))
    finally:
        plan.store.options = kept


@pytest.mark.parametrize("name", FAMILIES)
def test_with_memory_every_way_changes_the_answer_and_what_is_remembered_matters(name: str) -> None:
    made = fusion(name)
    for way in open_ways(name):
        cat, dog, none = (first_logits(made, made.plan(HELLO, memory, way)).log_softmax(-1) for memory in (CAT, DOG, EMPTY))
        assert min(float((cat - other).abs().max()) for other in (dog, none)) > EFFECT, way


@pytest.mark.parametrize("name", STEPS_FROM_STATES)
def test_step_by_step_is_the_same_as_reading_it_all_again(name: str) -> None:
    made = fusion(name)
    for way in open_ways(name):
        plan = made.plan(HELLO, CAT, way)
        running = made.start(plan)
        for _ in range(3):
            token = running.logits.argmax(-1)
            running, plan = made.step(running, token), dataclasses.replace(plan, tokens=(*plan.tokens, int(token)))
            assert close(running.logits[0], made.start(plan).logits[0]), way


@pytest.mark.parametrize("name", STEPS_FROM_STATES)
def test_rows_of_a_batch_do_not_know_of_each_other(name: str) -> None:
    """Every way beside every other, of different lengths, one without memory; rows leave and join between two steps."""
    made = fusion(name)
    plans = [made.plan(HELLO, CAT, way) for way in open_ways(name)] + [made.plan(LONGER, DOG, "adapter"), made.plan(LONGER, EMPTY)]
    alone = [made.start(plan) for plan in plans]
    batch = made.join([made.start(plan) for plan in plans[1:]])
    late = made.start(plans[0])
    rows = list(range(1, len(plans)))
    for turn in range(4):
        assert all(close(batch.logits[i], alone[row].logits[0]) for i, row in enumerate(rows)), turn
        tokens = torch.tensor([int(alone[row].logits.argmax(-1)) for row in rows])
        batch = made.step(batch, tokens)
        for row, token in zip(rows, tokens, strict=True):
            alone[row] = made.step(alone[row], token[None])
        if turn == 0:
            batch, rows = made.join([late, batch]), [0, *rows]
        if turn == 1:
            rows = rows[::-2]
            batch = made.take(batch, list(range(len(plans)))[::-2])


@pytest.mark.parametrize("name", STEPS_FROM_STATES)
def test_a_state_is_the_prompt_read_before_and_is_not_worn_out(name: str) -> None:
    """AT-6b: the same ids as way prompt, logits within 1e-4, again and again from one state."""
    made = fusion(name)
    prompt, plan = made.plan(HELLO, CAT, "prompt"), made.plan(HELLO, CAT, "state")
    assert plan.state is not None and plan.tokens == prompt.tokens and plan.used == prompt.used == (1, 2)
    assert len(plan.unread) < 60 < len(plan.state)
    wanted = made.start(prompt).logits[0]
    for _ in range(2):
        running = made.start(plan)
        assert float((running.logits[0] - wanted).abs().max()) < 1e-4
        made.step(made.step(running, torch.tensor([5])), torch.tensor([6]))
    assert made.plan(LONGER, CAT, "state").state is plan.state


@pytest.mark.parametrize("name", ["Llama", "GPT2", "Mamba", "RecurrentGemma", "Zamba2", "Rwkv"])
def test_transformers_own_loop_gives_the_same_cached_or_not(name: str) -> None:
    made = fusion(name)
    for way in open_ways(name):
        plan = made.plan(HELLO, CAT, way)
        if (way == "prefix" and name in NO_EMBEDS_IN_GENERATE) or (way == "state" and made.family.keeps != "kv"):
            with pytest.raises(NotAvailable, match="start, join and step"), made.for_generate([plan]):
                pass
            continue
        given_tokens = []
        for cached in (True, False) if way not in ("prefix", "state") else (True,):  # without a cache it drops what it began from
            with made.for_generate([plan], cached=cached) as given:
                made_ids = made.decoder.model.generate(**given, max_new_tokens=4, do_sample=False, pad_token_id=0)
            given_tokens.append(made_ids[0, -4:].tolist())
        if name not in REFUSED:
            given_tokens.append(made.greedy([plan], 4)[0])
        assert all(tokens == given_tokens[0] for tokens in given_tokens), way


def test_a_padded_batch_in_transformers_loop_is_as_one_by_one() -> None:
    made = fusion("Llama")
    for way in ("prompt", "prefix", "adapter", "knn"):
        plans = [made.plan(HELLO, CAT, way), made.plan(LONGER, DOG, way), made.plan(LONGER, EMPTY, way)]
        with made.for_generate(plans) as given:
            ids = made.decoder.model.generate(**given, max_new_tokens=4, do_sample=False, pad_token_id=0)
        assert ids[:, -4:].tolist() == [made.greedy([plan], 4)[0] for plan in plans], way
    with pytest.raises(NotAvailable, match="padding"), fusion("Rwkv").for_generate([made.plan(HELLO, EMPTY), made.plan(LONGER, EMPTY)]):
        pass


@pytest.mark.parametrize("name", ["Llama", "Mamba2", "Jamba"])
def test_closed_hooks_leave_nothing_behind(name: str) -> None:
    lm = model(name)

    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.modules())

    made = fusion(name)
    ids = made.plan(HELLO, EMPTY).tokens
    before, weights = bare(name, ids), {n: p.clone() for n, p in lm.named_parameters()}
    second = Fusion(lm, tokenizer(), family=made.family)
    hooked = hooks()
    second.close()
    made.close()
    fusion.cache_clear()
    assert hooks() == hooked - 2 - made.family.layers
    assert torch.equal(bare(name, ids), before)
    assert all(torch.equal(p, weights[n]) for n, p in lm.named_parameters())


def ready(lm: Any) -> Any:
    return lm.eval()


def test_what_is_no_causal_model_or_not_ready_is_refused() -> None:
    import transformers

    from ndml.errors import FieldInvalid

    config = transformers.T5Config(vocab_size=64, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(NotAvailable, match="no causal language model"):
        study(ready(transformers.T5ForConditionalGeneration(config)))
    bert = transformers.BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with pytest.raises(NotAvailable, match="BertModel"):
        study(ready(transformers.BertModel(bert)))
    training = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)).train()
    with pytest.raises(FieldInvalid, match=r"model\.eval"):
        study(training)
