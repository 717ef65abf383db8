"""What needs no suite: settings, projections, what is read of what was found, what a forward pass and an answer are made of."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.client import Added, Hit, Link, LinkType, Memory, NdmlClient, NewMemory, Scope
from ndml.errors import EmbeddingDimensionMismatch, FieldInvalid, FieldUnknown, FusionUnsupported, LearningBacklog, NotAvailable
from ndml.fusion.prompt import Message
from ndml.fusion.readout import Entry, MemoryReadout
from ndml.fusion.ways import Fusion
from ndml.integrated.config import MemoryConfig, labels
from ndml.integrated.forward import Forward
from ndml.integrated.generation import Generation
from ndml.integrated.learning import Learner, new_words, statements
from ndml.integrated.model import turns
from ndml.integrated.projection import Projection
from ndml.integrated.recall import readout
from tests.unit.fusion.test_families import fusion as with_all
from tests.unit.fusion.tiny import model, tokenizer

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gateway": {"num_clusters": 4}}, "memory_config.gateway is no setting here; there are address"),
        ({"retrieval_k": 0}, "retrieval_k is 0"),
        ({"fusion": "magic"}, "one of auto, prompt"),
        ({"timeout_s": 0}, "seconds above 0"),
        ({"address": "a:1", "data_dir": "d"}, "data_dir is of a suite of our own"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused_by_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises((FieldInvalid, FieldUnknown), match=said):
        MemoryConfig.of(given)


def test_a_context_says_whose_memory_and_what_else() -> None:
    config = MemoryConfig.of({"user": "ann", "agent": "a"})
    context = {"user_id": "bob", "session_id": "s", "task_type": "learning", "turn": 3}
    assert config.scope(context) == {"tenant": "", "user": "bob", "agent": "a", "session": "s"}
    assert config.scope(None)["user"] == "ann" and labels(context) == {"task_type": "learning", "turn": "3"}
    with pytest.raises(FieldInvalid, match=r"context\.user_id"):
        config.scope({"user_id": 7})
    with pytest.raises(FieldInvalid, match=r"context\.x is a list"):
        labels({"x": []})


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 64), st.data())
def test_what_is_taken_up_keeps_its_angles_and_comes_down_again(full: int, data: st.DataObject) -> None:
    dimension = data.draw(st.integers(1, full))
    made = Projection(full, dimension)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    one, other = random.normal(size=(2, dimension)).astype(np.float32)
    assert made.up(one).shape == (full,)
    assert float(made.up(one) @ made.up(other)) == pytest.approx(float(one @ other), abs=1e-3)
    unit = one / np.linalg.norm(one)
    assert made.down(made.up(torch.tensor(unit))) == pytest.approx(unit, abs=1e-4)
    again = Projection(full, dimension)
    assert np.array_equal(again.up(one), made.up(one))


@given(st.integers(2, 64), st.data())
def test_with_more_components_what_is_shown_is_all_there(full: int, data: st.DataObject) -> None:
    made = Projection(full, data.draw(st.integers(full + 1, 160)))
    one, other = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(2, full)).astype(np.float32)
    assert made.down(one).shape == (made.dimension,)
    assert float(made.down(one) @ made.down(other)) == pytest.approx(float(one @ other), abs=1e-3)
    assert made.up(torch.tensor(made.down(one))) == pytest.approx(one, abs=1e-4)
    assert np.array_equal(Projection(full, made.dimension).down(one), made.down(one))


def test_of_a_longer_vector_from_elsewhere_is_lost_what_is_said() -> None:
    """The seed's 512 over MiniLM's 384."""
    full, dimension = 384, 512
    made = Projection(full, dimension)
    vectors = np.random.default_rng(0).normal(size=(400, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kept = np.stack([made.up(vector) for vector in vectors])
    lengths = np.linalg.norm(kept, axis=1)
    assert float((lengths**2).mean()) == pytest.approx(full / dimension, rel=0.02)
    cosines = (kept / lengths[:, None]) @ (kept / lengths[:, None]).T
    errors = (cosines - vectors @ vectors.T)[np.triu_indices(400, 1)]
    assert float(errors.std()) == pytest.approx(((1 - full / dimension) / full) ** 0.5, rel=0.1)
    inside = np.stack([made.down(vector) for vector in kept])
    assert np.stack([made.up(vector) for vector in inside]) == pytest.approx(kept, abs=1e-5)


def test_the_loss_of_fewer_components_is_as_said_and_far_too_many_are_refused() -> None:
    full, dimension = 384, 192
    made = Projection(full, dimension)
    vectors = np.random.default_rng(0).normal(size=(400, full)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    shown = np.stack([made.down(vector) for vector in vectors])
    errors = ((shown @ shown.T) - (vectors @ vectors.T))[np.triu_indices(400, 1)]
    assert float(errors.std()) == pytest.approx(((1 - dimension / full) / dimension) ** 0.5, rel=0.1)
    assert np.array_equal(Projection(full, None).up(vectors[0]), vectors[0])
    for wrong in (0, -1, 4097):
        with pytest.raises(FieldInvalid, match=f"memory_dimension is {wrong}, and the suite's embedder gives 384") as refused:
            Projection(full, wrong)
        assert refused.value.violations[0].field == "memory_dimension"
    assert Projection(5000, 5000).dimension == 5000, "an embedder's own size is no matter of ours"
    with pytest.raises(EmbeddingDimensionMismatch, match=r"give \(192,\)"):
        made.up([1.0] * 384)


def hit(number: int, text: str, day: int, score: float, speaker: str = "ann", links: tuple[Link, ...] = ()) -> Hit:
    return Hit(Memory(str(number), Scope("ann"), text, speaker=speaker, said_at=NOW + timedelta(days=day), links=links), score)


def test_what_a_later_memory_replaces_is_not_read_unless_the_past_is_asked_for() -> None:
    hits = [
        hit(1, "I live in Oslo.", 0, 0.9),
        hit(2, "I live in Lisbon now.", 5, 0.8),
        hit(3, "I live  in Oslo.", 1, 0.7),
        hit(4, "My cat is called Miso.", 2, 0.6),
        hit(5, "I live in Porto.", 9, 0.5, speaker="bob"),
    ]
    read, found = readout(hits, 3, "Where do I live?")
    assert [e.text for e in read.entries] == ["I live in Lisbon now.", "My cat is called Miso.", "I live in Porto."]
    assert [e.number for e in read.entries] == [1, 2, 3] and found[2] is hits[3]
    assert read.entries[0].strength == 1.0 and 0.05 <= read.entries[2].strength < 1.0
    past, _ = readout(hits, 3, "Where did I live before?")
    assert [(e.text, e.superseded) for e in past.entries][-1] == ("I live  in Oslo.", True)
    linked = [hit(1, "the plan is A", 0, 0.9), hit(2, "everything has another shape", 1, 0.8, links=(Link(LinkType.SUPERSEDES, "1"),))]
    assert [e.trace_id for e in readout(linked, 5, "what?")[0].entries] == ["2"]


def test_what_the_user_said_since_the_last_answer_is_learned_and_questions_are_not() -> None:
    talk = [
        Message("user", "old"),
        Message("assistant", "hm"),
        Message("user", "I moved to Porto. Nice?"),
        Message("system", "x"),
        Message("user", "Hi!"),
    ]
    assert new_words(talk) == ["I moved to Porto. Nice?", "Hi!"]
    learned = statements(["I moved to Porto. What is new? My cat is called Miso.", "hello"], {"user_id": "a", "mood": "good"}, NOW)
    assert [memory.text for memory in learned] == ["I moved to Porto.", "My cat is called Miso."]
    assert learned[1].metadata["mood"] == "good" and "Miso" in learned[1].metadata["entities"] and learned[1].said_at > learned[0].said_at  # type: ignore[operator]
    dated = statements(["On 2026-03-05  I fly  to Rome with Ann Lee."], None, NOW)[0]
    assert dated.text == "On 2026-03-05 I fly to Rome with Ann Lee." and dated.metadata == {
        "dates": "2026-03-05",
        "entities": "Rome; Ann Lee",
    }
    many = statements([f"I own book number {i}." for i in range(200)], None, NOW)
    assert len(many) == 64 and " ".join(memory.text for memory in many) == " ".join(f"I own book number {i}." for i in range(200))
    long = statements([" ".join(f"My friend Name{i}x lives near Town{i}y." for i in range(60))], None, NOW)
    assert all(len(memory.metadata.get("entities", "").encode()) <= 1024 for memory in long)


class Store:
    """Takes what is added once `go` is set, unless it has an error to raise."""

    def __init__(self) -> None:
        self.go, self.errors, self.texts = threading.Event(), list[Exception](), list[str]()

    def add_many(self, memories: list[NewMemory], **_: Any) -> list[Added]:
        assert self.go.wait(60)
        if self.errors:
            raise self.errors.pop()
        self.texts += [memory.text for memory in memories]
        return [Added(memory.text) for memory in memories]


@pytest.mark.timeout(120)
def test_a_turn_of_any_size_is_taken_where_nothing_waits_and_the_next_is_refused() -> None:
    store, scope = Store(), MemoryConfig(user="ann").scope(None)
    learner = Learner(cast(NdmlClient, store), backlog=2)
    turn = statements(["I live in Oslo. I like tea. My cat is Miso."], None, NOW)
    learner.reserve(len(turn))
    learner.put(turn, scope)
    learner.reserve(0)
    with pytest.raises(LearningBacklog, match="still wait"):
        learner.reserve(1)
    store.go.set()
    learner.flush()
    learner.reserve(2)
    learner.release(2)
    learner.close()
    assert store.texts == [memory.text for memory in turn]


@pytest.mark.timeout(120)
def test_a_fault_ends_one_writing_and_what_comes_after_the_end_is_said_to_be_lost() -> None:
    store, scope = Store(), MemoryConfig(user="ann").scope(None)
    store.go.set()
    store.errors = [ZeroDivisionError("a fault of ours"), FieldInvalid("no", field="text")]
    learner = Learner(cast(NdmlClient, store), backlog=8)
    for text in ("I live in Oslo.", "I like tea.", "My cat is Miso."):
        learner.reserve(1)
        learner.put(statements([text], None, NOW), scope)
    learner.flush()
    assert (store.texts, learner.failed) == (["My cat is Miso."], 2)
    learner.close()
    learner.reserve(1)
    learner.put(statements(["I like rain."], None, NOW), scope)
    learner.flush()
    learner.close()
    assert (store.texts, learner.failed) == (["My cat is Miso."], 3)


@pytest.mark.parametrize("given", [[], [{"role": "robot", "content": "x"}], [{"role": "user"}], [{"role": "user", "content": ""}]])
def test_messages_that_say_nothing_are_refused(given: list[dict[str, str]]) -> None:
    with pytest.raises(FieldInvalid):
        turns(given)


CAT = MemoryReadout((Entry(1, "my cat is called Miso"), Entry(2, "she sleeps on the chair")))


@pytest.mark.parametrize("name", ["Llama", "GPT2", "Mamba", "RecurrentGemma"])
def test_rows_without_memory_are_the_model_s_own_bit_for_bit(name: str) -> None:
    made = Fusion(model(name), tokenizer())
    forward = Forward(made, model(name), tokenizer(), None, None, 500)
    ids = torch.tensor([tokenizer()(text)["input_ids"] for text in ("where is my cat?", "what is the time")])
    with torch.inference_mode():
        bare = model(name)(input_ids=ids, use_cache=False).logits
        assert torch.equal(forward.logits(ids, None, [MemoryReadout()] * 2, "auto")[0], bare)
        found, way = forward.logits(ids, None, [MemoryReadout(), CAT], "auto")
    assert way == "prompt" and torch.equal(found[0], bare[0])
    assert float((found[1].log_softmax(-1) - bare[1].log_softmax(-1)).abs().max()) > 1e-3
    assert forward.texts(ids, None) == ["where is my cat?", "what is the time"]
    made.close()


def test_padding_does_not_reach_a_row_and_gradients_pass() -> None:
    made = Fusion(model("Llama"), tokenizer())
    forward = Forward(made, model("Llama"), tokenizer(), None, None, 500)
    row = tokenizer()("where is it?")["input_ids"]
    ids, mask = torch.tensor([[259] * 3 + row]), torch.tensor([[0] * 3 + [1] * len(row)])
    padded, _ = forward.logits(ids, mask, [CAT], "prompt")
    alone, _ = forward.logits(torch.tensor([row]), None, [CAT], "prompt")
    assert torch.allclose(padded[0, 3:], alone[0], atol=1e-4) and padded.requires_grad
    assert forward.texts(ids, mask) == ["where is it?"]
    for wrong in (torch.ones(3), torch.ones(0, 4)):
        with pytest.raises(FieldInvalid, match="input_ids"):
            forward.texts(wrong, None)
    with pytest.raises(FieldInvalid, match="attention_mask"):
        forward.texts(ids, mask[:, 1:])
    with pytest.raises((NotAvailable, FusionUnsupported), match="chat_completion"):
        forward.logits(ids, mask, [CAT], "knn")
    made.close()


@pytest.mark.parametrize("way", ["adapter", "prefix", "prompt"])
def test_a_forward_pass_says_of_the_next_token_what_chat_says(way: str) -> None:
    made = with_all("Llama")
    forward = Forward(made, model("Llama"), tokenizer(), made._adapter, made._projector, 500)
    random = np.random.default_rng(1)
    read = MemoryReadout(tuple(Entry(e.number, e.text, embedding=random.normal(size=12).astype(np.float32)) for e in CAT.entries))
    ids = torch.tensor([made.plan([Message("user", "where?")], MemoryReadout()).tokens])
    with torch.inference_mode():
        logits, _ = forward.logits(ids, None, [read], way)
    if way == "prompt":  # the block stands in front of the row instead of in a message of its own
        assert float((logits[0, -1] - made.start(made.plan([Message("user", "where?")], MemoryReadout())).logits[0]).abs().max()) > 1e-3
        return
    plan = made.plan([Message("user", "where?")], read, way)  # type: ignore[arg-type]
    assert torch.allclose(logits[0, -1], made.start(plan).logits[0], atol=1e-3)


def test_answers_end_fit_and_repeat_with_a_seed() -> None:
    made = Fusion(model("Llama"), tokenizer())
    generation = Generation(made, model("Llama"), tokenizer())
    ask = [Message("user", "where is my cat?")]
    one = generation.answer(ask, CAT, "prompt", 6, 0.0, None)
    assert one.used == (2, 1) and one.completion_tokens <= 6 and one.way == "prompt"
    warm = [generation.answer(ask, CAT, "prompt", 8, 1.5, seed).text for seed in (1, 1, 2, 3)]
    assert warm[0] == warm[1] and len(set(warm)) > 1
    old = [Message("user", "x" * 900), Message("assistant", "y" * 900)]
    assert generation.answer([*old, *ask], MemoryReadout(), "prompt", 300, 0.0, None).prompt_tokens <= 2048 - 300
    with pytest.raises(FieldInvalid, match="context of 2048"):
        generation.answer([Message("user", "x" * 3000)], MemoryReadout(), "prompt", 5, 0.0, None)
    for wrong in ((0, 0.0), (5, 3.0)):
        with pytest.raises(FieldInvalid):
            generation.answer(ask, CAT, "prompt", wrong[0], wrong[1], None)
    made.close()


def test_a_model_that_keeps_its_state_inside_answers_too() -> None:
    made = Fusion(model("RecurrentGemma"), tokenizer())
    generation = Generation(made, model("RecurrentGemma"), tokenizer())
    answers = {generation.answer([Message("user", "hi")], CAT, "prompt", 5, 1.0, seed).text for seed in (1, 1)}
    assert len(answers) == 1
    made.close()
