"""States as values: mixed, joined, kept within a bound."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from transformers import cache_utils

from ndml.errors import FieldInvalid, NotAvailable
from ndml.fusion import states
from ndml.fusion.families import study
from ndml.fusion.prompt import Message
from ndml.fusion.readout import Entry, MemoryReadout
from ndml.fusion.states import Kept, State
from ndml.fusion.ways import Fusion, FusionOptions
from tests.unit.fusion.tiny import model, tokenizer

ASK = [Message("user", "hi")]


def fusion(name: str, **options: Any) -> Fusion:
    return Fusion(model(name), tokenizer(), options=FusionOptions(**options), family=study(model(name)))


@pytest.mark.parametrize("name", ["Mamba", "Mamba2"])
def test_a_mixture_of_one_is_that_one_and_of_two_lies_between(name: str) -> None:
    made = fusion(name)
    one, two = (made.decoder.read(tokenizer()(text)["input_ids"]) for text in ("the cat is Miso", "a dog ate it"))
    same = states.mix([one, two], [2.0, 0.0])
    assert torch.equal(made.decoder.start([9], state=same).logits, made.decoder.start([9], state=one).logits)
    halves = [
        states.mix([one, two], [1, 1]).cache.layers[0].recurrent_states[0],
        *(s.cache.layers[0].recurrent_states[0] for s in (one, two)),
    ]
    assert torch.allclose(halves[0], (halves[1] + halves[2]) / 2)
    assert not torch.equal(made.decoder.start([9], state=states.mix([one, two], [1, 1])).logits, made.decoder.start([9], state=one).logits)


def test_what_cannot_be_mixed_says_so() -> None:
    for name in ("Llama", "Jamba", "Rwkv"):
        state = fusion(name).decoder.read([5, 6, 7])
        with pytest.raises(NotAvailable, match="pure state space model"):
            states.mix([state, state], [1, 1])
    state = fusion("Mamba").decoder.read([5, 6, 7])
    for weights in ([1.0], [-1.0, 2.0], [0.0, 0.0]):
        with pytest.raises(FieldInvalid, match="weight"):
            states.mix([state, state], weights)


def test_a_soup_of_entries_is_read_entry_by_entry_and_the_stronger_weighs_more() -> None:
    made = fusion("Mamba2", mix=True)
    cat, dog = Entry(1, "my cat is called Miso", strength=0.9), Entry(2, "the dog ate 3 shoes", strength=0.1)
    plan = made.plan(ASK, MemoryReadout((cat, dog)), "state")
    assert plan.mixed and plan.used == (1, 2) and plan.unread == plan.tokens
    logits = {
        key: made.start(made.plan(ASK, MemoryReadout(entries), "state")).logits for key, entries in (("cat", (cat,)), ("dog", (dog,)))
    }
    mixed = made.start(plan).logits
    assert float((mixed - logits["cat"]).norm()) < float((mixed - logits["dog"]).norm())
    assert len(made.greedy([plan], 3)[0]) == 3
    assert made._states.misses == 2 and made._states.hits == 2
    with pytest.raises(NotAvailable, match="set mix off"):
        fusion("Llama", mix=True).plan(ASK, MemoryReadout((cat,)), "state")
    silent = made.plan(ASK, MemoryReadout((Entry(1, "x", strength=0.0),)), "state")
    assert silent.state is None and silent.used == ()


def test_a_state_is_never_written_into() -> None:
    for name in ("Llama", "Mamba", "Rwkv", "Jamba"):
        made = fusion(name)
        state = made.decoder.read([5, 6, 7, 8])
        before = [slot.get().clone() for slot in states._slots(state.cache)]
        running = made.decoder.start([9, 10], state=state)
        made.step(running, torch.tensor([11]))
        states.join([state.cache, running.cache])
        states.take(state.cache, [0, 0])
        assert all(torch.equal(slot.get(), was) for slot, was in zip(states._slots(state.cache), before, strict=True)), name
        assert states.size_bytes(state.cache) == sum(t.nbytes for t in before)


def test_windows_that_have_slid_are_joined() -> None:
    """Gemma-2's window here is 24: rows past it, at it and before it go on together as alone."""
    made = fusion("Gemma2")
    prompts = [list(range(3, 3 + n)) for n in (60, 24, 5)]
    alone = [made.decoder.start(tokens) for tokens in prompts]
    batch = made.join([made.decoder.start(tokens) for tokens in prompts])
    for token in range(100, 104):
        batch = made.step(batch, torch.full((3,), token))
        alone = [made.step(row, torch.tensor([token])) for row in alone]
        assert torch.allclose(batch.logits, torch.cat([row.logits for row in alone]), atol=1e-4)


def test_a_cache_of_another_kind_is_refused() -> None:
    cache = cache_utils.StaticCache(config=model("Llama").config, max_cache_len=8)
    with pytest.raises(NotAvailable, match="StaticLayer"):
        states.join([cache, cache])


def state_of(size: int) -> State:
    return State((size,), [torch.zeros(size, dtype=torch.uint8)])


def test_what_is_kept_stays_within_its_bound() -> None:
    kept: Kept[State] = Kept(100, lambda state: states.size_bytes(state.cache))
    made: list[int] = []

    def ask(key: int, size: int = 40) -> State:
        def make() -> State:
            made.append(key)
            return state_of(size)

        return kept.get(key, make)

    assert ask(1) is ask(1) and ask(2) is ask(2)
    ask(1)
    ask(3)  # 2 was used longest ago
    assert kept.bytes == 80 and made == [1, 2, 3]
    ask(1)
    ask(2)
    assert made == [1, 2, 3, 2] and kept.bytes == 80
    ask(9, 101)
    ask(9, 101)
    assert made[-2:] == [9, 9] and kept.bytes == 80  # too large to keep, served all the same


def test_threads_share_what_is_kept() -> None:
    kept: Kept[State] = Kept(1000, lambda state: states.size_bytes(state.cache))
    barrier = threading.Barrier(4)
    seen: list[int] = []

    def work() -> None:
        barrier.wait()
        seen.extend(len(kept.get(i % 7, lambda: state_of(50)).tokens) for i in range(200))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 800 and kept.bytes == 350
