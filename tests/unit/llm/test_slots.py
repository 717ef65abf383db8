"""Rows in slots against each row alone, as they come, step and go; and the store of shared beginnings against a plain list."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.fusion.prompt import Message
from ndml.fusion.readout import MemoryReadout
from ndml.fusion.ways import Fusion, Plan
from services.llm.prefixes import BLOCK, Block, Prefixes
from services.llm.slots import SlotRows, fits
from tests.unit.fusion.tiny import CONFIGS, model, tokenizer

IN_SLOTS = {
    "Llama",
    "Mistral",
    "Qwen2",
    "Qwen3",
    "Phi",
    "Phi3",
    "Gemma",
    "Gemma2",
    "Gemma3Text",
    "GPT2",
    "GPTNeoX",
    "OPT",
    "Bloom",
    "Mixtral",
}
TOLERANCE = 1e-5  # some ten rounding errors of float32 at logits of 4: another order of adding, nothing else


def ask(fusion: Fusion, length: int, rules: str = "be brief and kind " * 3) -> Plan:
    return fusion.plan([Message("system", rules), Message("user", "x" * length)], MemoryReadout())


def test_what_keeps_keys_and_values_alone_goes_into_slots() -> None:
    assert {name for name in CONFIGS if fits(Fusion(model(name), tokenizer()))} == IN_SLOTS


@pytest.mark.parametrize("name", ["Llama", "GPT2", "Gemma2", "Bloom", "OPT"])
def test_rows_come_and_go_and_each_is_as_if_alone(name: str) -> None:
    fusion, chance = Fusion(model(name), tokenizer()), random.Random(3)
    prefixes = Prefixes(1 << 18)
    rows = SlotRows(fusion, prefixes, prefill_tokens=200, most_tokens=4096)
    alone: list[tuple[Plan, torch.Tensor]] = []  # of each row: its prompt with what came after, the logits then
    for _ in range(40):
        plans = [ask(fusion, chance.randint(1, 120)) for _ in range(chance.choice([0, 0, 1, 3]))]
        if plans:
            together = [*alone, *((plan, fusion.start(plan).logits[0]) for plan in plans)]
            alone = [together[row] for row in rows.add(plans)]
        if not alone:
            continue
        assert max(float((rows.logits[i] - logits).abs().max()) for i, (_, logits) in enumerate(alone)) < TOLERANCE
        live = [row for row in range(len(alone)) if chance.random() > 0.15]
        if len(live) < len(alone):
            live = rows.keep(live)
        tokens = [int(alone[row][1].argmax()) for row in live]
        longer = [Plan("prompt", (*alone[row][0].tokens, token)) for row, token in zip(live, tokens, strict=True)]
        alone = [(plan, fusion.start(plan).logits[0]) for plan in longer]
        if live:
            rows.step(tokens)
    assert prefixes.tokens_found > 100 and 0 < prefixes.bytes <= 1 << 18


def allocated(rows: SlotRows) -> int:
    """Rows times columns of the largest tensor."""
    return max((tensor.shape[0] * tensor.shape[2] for tensor in rows._tensors()), default=0)


@pytest.mark.parametrize("long", [10, 900])
def test_the_cache_stays_within_its_bound_and_one_that_exceeds_it_alone_gives_it_back(long: int) -> None:
    fusion, most, prefixes = Fusion(model("Llama"), tokenizer()), 512, Prefixes(1 << 22)
    rows = SlotRows(fusion, prefixes, prefill_tokens=4096, most_tokens=most)
    for _ in range(2):  # what the second begins with is found
        plan = ask(fusion, long)
        rows.add([plan])
        tokens = list(plan.tokens)
        for _ in range(70):
            assert allocated(rows) <= 2 * max(most, len(tokens))
            assert float((rows.logits - fusion.start(Plan("prompt", tuple(tokens))).logits).abs().max()) < TOLERANCE
            tokens.append(int(rows.logits.argmax()))
            rows.step(tokens[-1:])
        rows.keep([])
        assert allocated(rows) <= 2 * most
    rows.add([ask(fusion, 10) for _ in range(3)])
    for _ in range(8):
        rows.step([1] * len(rows))
        assert allocated(rows) <= 2 * most
    rows.keep([1, 2])
    assert len(rows) == 2 and rows.add([ask(fusion, 4)]) == [0, 1, 2]


def test_a_beginning_is_read_once() -> None:
    fusion, read = Fusion(model("Llama"), tokenizer()), []
    fusion.decoder.model.register_forward_pre_hook(lambda _m, _a, given: read.append(given["input_ids"].shape[1]), with_kwargs=True)
    rows = SlotRows(fusion, Prefixes(1 << 22), prefill_tokens=4096, most_tokens=4096)
    for _ in range(3):
        rows.add([ask(fusion, 3)])
    whole = len(ask(fusion, 3).tokens)
    assert read == [whole, whole, whole - whole // BLOCK * BLOCK or BLOCK], "seen once, kept at the second time, found at the third"
    none = SlotRows(fusion, Prefixes(0), prefill_tokens=4096, most_tokens=4096)
    for _ in range(3):
        none.add([ask(fusion, 3)])
    assert read[3:] == [whole] * 3


PROMPTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), max_size=30)  # blocks of one repeated token: many share beginnings


@settings(max_examples=60, deadline=None)
@given(prompts=PROMPTS, limit=st.integers(0, 20_000))
def test_what_is_found_was_kept_for_these_very_tokens(prompts: list[list[int]], limit: int) -> None:
    store, kept = Prefixes(limit), set()
    for shape in prompts:
        tokens = [token for token in shape for _ in range(BLOCK)] + [9]
        found = store.find(tokens)
        said = [token for block in found for token in block.tokens]
        assert said == tokens[: len(said)] and len(said) < len(tokens)
        for block in found:
            assert int(block.kept[0][0]) == hash(_path(block)) % 1000 and _path(block) in kept
        for block in store.seen(tokens):
            kept.add(_path(block))
            store.keep(block, (torch.full((100,), hash(_path(block)) % 1000),))
        assert store.bytes <= limit
        again = store.seen(tokens)
        assert not any(block.kept for block in again)


def _path(block: Block) -> tuple[int, ...]:
    return (*(_path(block.parent) if block.parent else ()), *block.tokens)


def test_the_least_recently_used_goes_first_and_never_a_block_before_what_follows_it() -> None:
    store = Prefixes(3 * (1024 + 400) + 100)
    first, second = [1] * (2 * BLOCK) + [9], [2] * BLOCK + [9]
    for tokens in (first, first, second, second):
        for block in store.seen(tokens):
            store.keep(block, (torch.zeros(100),))
    assert [len(store.find(tokens)) for tokens in (first, second)] == [2, 1]
    for tokens in ([3] * BLOCK, [3] * BLOCK):
        for block in store.seen(tokens):
            store.keep(block, (torch.zeros(100),))
    assert [len(store.find(tokens)) for tokens in (first, second, [*([3] * BLOCK), 9])] == [1, 1, 1]
