"""What an adapter reads, that rows and threads keep apart, and that it can be taught where to look."""

from __future__ import annotations

import threading
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ndml.errors import EmbeddingDimensionMismatch, FieldInvalid
from ndml.fusion.adapter import Adapter, AdapterConfig, MemoryTokens, _read
from ndml.fusion.families import study
from ndml.fusion.prefix import Projector, ProjectorConfig, loudness
from ndml.fusion.readout import Entry, MemoryReadout
from tests.unit.fusion.tiny import model, tokenizer


def ids(text: str) -> list[int]:
    found: list[int] = tokenizer()(text, add_special_tokens=False)["input_ids"]
    return found


def adapter(loud: bool = True, **config: Any) -> Adapter:
    torch.manual_seed(5)
    shape: dict[str, Any] = {"blocks": (0, 1), "hidden": 32, "embed": 32, "width": 16, "heads": 2}
    made = Adapter(AdapterConfig(**(shape | config))).eval()
    for reader in made._readers() if loud else ():
        torch.nn.init.normal_(reader.leave.weight, std=0.5)
    return made


def memory(made: Adapter, *texts: str, **given: Any) -> MemoryTokens:
    readout = MemoryReadout(tuple(Entry(n, text, **given) for n, text in enumerate(texts, 1)))
    return made.memory(readout, ids, model("Llama").get_input_embeddings())


@pytest.fixture
def attached() -> Any:
    made = adapter()
    made.attach(model("Llama"), study(model("Llama")))
    yield made
    made.detach()


def logits(inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model("Llama")(input_ids=inputs).logits
    return found


def test_a_token_is_known_by_what_stands_before_it_in_its_own_entry() -> None:
    made = adapter(window=3)
    keys, values, _ = made.encoder(memory(made, "the cat is Miso", "abc"))
    other, same, _ = made.encoder(memory(made, "the cat is Miso", "xyz and more"))
    first = len(ids(" the cat is Miso"))
    assert torch.equal(keys[:first], other[:first]) and torch.equal(values[:first], same[:first])
    tokens = memory(made, "aabaab")
    assert tokens.place.tolist() == list(range(7)) and tokens.entry.tolist() == [0] * 7
    found, spelled, _ = made.encoder(tokens)
    alike = [(i, j) for i in range(7) for j in range(i) if torch.allclose(found[i], found[j], atol=1e-6)]
    assert alike == []  # "aab" comes once only with three whole tokens before it
    longer, _, _ = made.encoder(memory(made, "aabaabaab"))
    assert torch.allclose(longer[6], longer[9], atol=1e-5)  # behind "aab" again
    assert torch.equal(spelled[1], spelled[2]) and not torch.equal(spelled[2], spelled[3])


def test_bounds_strengths_ages_and_vectors_of_what_is_read() -> None:
    made = adapter(vector=4, entry_tokens=5, tokens=12)
    table = model("Llama").get_input_embeddings()
    entries = (
        Entry(1, "weak one", said_at=datetime(2026, 1, 2, tzinfo=UTC), strength=0.0),
        Entry(2, "strong one", said_at=datetime(2026, 1, 3), embedding=np.ones(4, np.float32)),
        Entry(3, "", strength=1.0),
        Entry(4, "past", said_at=datetime(2026, 1, 1), strength=0.5, superseded=True),
    )
    read = made.memory(MemoryReadout(entries), ids, table)
    assert read.used == (2, 3, 1) and read.entry.tolist() == [0] * 5 + [1] + [2] * 5
    assert read.features[[0, 5, 6]].tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [pytest.approx(np.log(1e-3)), 0.5, 0.0]]
    assert read.vectors[[0, 6]].tolist() == [[1.0] * 4, [0.0] * 4]
    assert torch.equal(read.embeds[:5], table(torch.tensor(ids(" stro"))))
    with pytest.raises(EmbeddingDimensionMismatch, match="trained on 4"):
        made.memory(MemoryReadout((Entry(1, "x", embedding=np.ones(3, np.float32)),)), ids, table)


def test_a_row_without_memory_is_untouched_bit_for_bit_beside_rows_with(attached: Adapter) -> None:
    inputs = torch.tensor([ids("where is it?"), ids("what was it?"), ids("where is it?")])
    bare = logits(inputs)
    with attached.using(attached.rows([memory(attached), memory(attached, "on the table"), memory(attached)], cached=False)):
        found = logits(inputs)
    assert torch.equal(found[[0, 2]], bare[[0, 2]]) and not torch.allclose(found[1], bare[1], atol=1e-2)
    assert torch.equal(logits(inputs), bare)
    with pytest.raises(FieldInvalid, match="3 rows was run with the memory of 1"), attached.using(attached.rows([memory(attached, "x")])):
        logits(inputs)


def test_threads_read_their_own_rows(attached: Adapter) -> None:
    inputs = torch.tensor([ids("where is it?")])
    texts = ["on the red table", "under a bed", ""]
    alone = []
    for text in texts:
        with attached.using(attached.rows([memory(attached, text)], cached=False)):
            alone.append(logits(inputs))
    barrier, found = threading.Barrier(3), {}

    def work(at: int) -> None:
        torch.set_num_threads(1)
        with attached.using(attached.rows([memory(attached, texts[at])], cached=False)):
            for turn in range(5):
                barrier.wait()
                found[at, turn] = logits(inputs)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 15 and all(torch.equal(out, alone[at]) for (at, _), out in found.items())


def test_what_is_copied_is_said_though_the_model_spells_it_otherwise_than_it_reads_it() -> None:
    lm, made = model("Llama"), adapter(loud=False)
    assert not torch.equal(lm.get_input_embeddings().weight, lm.get_output_embeddings().weight)
    made.attach(lm, study(lm))
    try:
        for reader in made._readers():
            torch.nn.init.constant_(reader.copies, 30.0)
        inputs = torch.tensor([ids("where is it?")])
        for token in range(0, 256, 17):
            word = made.memory(MemoryReadout((Entry(1, "x"),)), lambda _, token=token: [token], lm.get_input_embeddings())
            assert word.says is not None and torch.equal(word.says[0], lm.get_output_embeddings().weight[token])
            with made.using(made.rows([word], cached=False)):
                assert int(logits(inputs)[0, -1].argmax()) == token
    finally:
        made.detach()


@torch.inference_mode()
def test_what_is_added_grows_with_the_stream() -> None:
    made = adapter()
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(2))
    added = []
    for factor in (1.0, 1000.0):
        rows = made.rows([memory(made, "on the table")], cached=False)
        added.append((_read(made._readers()[0], rows, 0, factor * x) - factor * x) / factor)
    assert torch.allclose(added[0], added[1], atol=1e-3) and float(added[0].abs().max()) > 0.1


@torch.inference_mode()
def test_a_model_in_half_precision_is_read_for_by_an_adapter_in_single() -> None:
    lm, made = deepcopy(model("Llama")).to(torch.bfloat16), adapter()
    made.attach(lm, study(lm))
    inputs = torch.tensor([ids("where is it?")])
    bare = lm(input_ids=inputs).logits
    read = made.memory(MemoryReadout((Entry(1, "on the table"),)), ids, lm.get_input_embeddings())
    with made.using(made.rows([read], cached=False)):
        found = lm(input_ids=inputs).logits
    assert found.dtype == torch.bfloat16 and float((found - bare).abs().max()) > 0.1


def test_one_memory_for_many_rows_is_read_as_copies_of_it_are(attached: Adapter) -> None:
    inputs = torch.tensor([ids("where is it?"), ids("what was it?")])
    read = attached.rows([memory(attached, "on the table", "under a bed")], cached=False)
    found = []
    for rows in (read.take([0, 0]), read.spread(2)):
        with attached.using(rows):
            found.append(logits(inputs))
    assert torch.allclose(found[0], found[1], atol=1e-5) and not torch.allclose(found[0], logits(inputs), atol=1e-2)


def test_untrained_it_adds_nothing_and_can_still_learn() -> None:
    """Identity comes from the output projection alone: were the gate zero too, no gradient would ever reach either."""
    made = adapter(loud=False)
    lm = model("Llama")
    made.attach(lm, study(lm))
    try:
        inputs = torch.tensor([ids("where is it?")])
        bare = logits(inputs)
        rows = made.rows([memory(made, "on the table")], cached=False)
        with made.using(rows):
            out = lm(input_ids=inputs).logits
        assert torch.equal(out, bare)
        torch.autograd.backward(F.cross_entropy(out[0], inputs[0]))
        grown = {name for name, p in made.named_parameters() if p.grad is not None and float(p.grad.abs().max()) > 0}
        assert {f"blocks.{i}.{part}" for i in (0, 1) for part in ("leave.weight", "copies")} <= grown
    finally:
        made.detach()
        lm.zero_grad(set_to_none=True)


def test_supervised_attention_learns_where_the_answer_stands() -> None:
    """The seam for training: scores of a recorded pass, cross-entropy on the token that answers. The model stays frozen."""
    lm, made = model("GPT2"), adapter(loud=False, width=32)
    made.attach(lm, study(lm))
    random = torch.Generator().manual_seed(1)
    table, frozen = lm.get_input_embeddings(), [p.clone() for p in lm.parameters()]
    learner = torch.optim.AdamW(made.parameters(), 3e-3)
    losses = []
    try:
        for _ in range(120):
            names = torch.randperm(200, generator=random)[:12].reshape(4, 3)  # four entries: name, "=", value
            names[:, 1] = 201
            read = MemoryTokens(
                table(names.flatten()).detach(),
                torch.arange(4).repeat_interleave(3),
                torch.arange(3).repeat(4),
                torch.zeros(12, 3),
                torch.zeros(12, 0),
            )
            rows = made.rows([read], cached=False, record=True).take([0] * 4)
            with made.using(rows):
                lm(input_ids=names[:, :2])
            at = torch.arange(4) * 3 + 2
            loss = torch.stack(
                [-s[:, :, -1].softmax(-1).mean(1)[torch.arange(4), at].clamp_min(1e-9).log().mean() for s in rows.scores]
            ).mean()
            learner.zero_grad()
            torch.autograd.backward(loss)
            learner.step()
            losses.append(float(loss))
    finally:
        made.detach()
        lm.zero_grad(set_to_none=True)
    assert np.mean(losses[-10:]) < 1.0 < 2.0 < losses[0]  # ln 13 = 2.6 by chance, ln 4 = 1.4 for knowing that a value is meant, not which
    assert all(torch.equal(a, b) for a, b in zip(frozen, lm.parameters(), strict=True))


def test_a_projector_takes_the_best_with_vectors_oldest_first_at_the_loudness_of_tokens() -> None:
    table = model("GPT2").get_input_embeddings()
    torch.manual_seed(0)
    made = Projector(ProjectorConfig(4, 32, tokens=3, entries=2), loudness(table))
    vectors = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    readout = MemoryReadout(
        (
            Entry(1, "a", said_at=datetime(2026, 2, 1), embedding=vectors[0]),
            Entry(2, "b", said_at=datetime(2026, 1, 1), embedding=vectors[1]),
            Entry(3, "c", strength=0.5, embedding=vectors[2]),
            Entry(4, "d"),
        )
    )
    chosen = made.chosen(readout)
    assert [e.number for e in chosen] == [2, 1]
    prefix = made.prefix(chosen)
    assert prefix.shape == (6, 32) and torch.allclose(prefix[:3], made(torch.from_numpy(vectors[1:2]))[0])
    assert float(prefix.square().mean().sqrt()) == pytest.approx(float(table.weight[:256].square().mean().sqrt()), rel=0.1)
    with pytest.raises(EmbeddingDimensionMismatch):
        made.chosen(MemoryReadout((Entry(1, "x", embedding=np.ones(5, np.float32)),)))
