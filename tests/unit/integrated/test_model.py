"""The seed's API against a real suite: started by the object itself, or by address."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

import ndml
from ndml import tiny
from ndml.errors import FieldInvalid, FieldUnknown, LearningBacklog, ModelNotConfigured, ModelUnavailable, NotAvailable
from ndml.integrated import NDMLIntegratedLLM
from ndml.integrated.learning import Learner

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
CAT = [{"role": "user", "content": "My cat is called Miso. How are you?"}]
WHERE = [{"role": "user", "content": "What is my cat called?"}]


async def test_what_is_said_is_recalled_by_whom_it_belongs_to(own: NDMLIntegratedLLM) -> None:
    said = await own.chat_completion(CAT, {"user_id": "ann", "session_id": "s1", "mood": "good"}, max_new_tokens=4)
    assert isinstance(said, str) and said.used == {} and said.completion_tokens <= 4
    asked = await own.chat_completion(WHERE, {"user_id": "ann", "session_id": "s2"}, max_new_tokens=4)
    assert [memory.text for memory in asked.used.values()] == ["My cat is called Miso."] and asked.way == "prompt"
    assert asked.citations[0].metadata["mood"] == "good" and asked.prompt_tokens > said.prompt_tokens
    assert (await own.chat_completion(WHERE, {"user_id": "eve"}, max_new_tokens=4)).used == {}
    nobody = await own.chat_completion(CAT, max_new_tokens=4)
    assert nobody.used == {} and own.get_memory_stats({"user_id": ""})["traces"] == own.get_memory_stats({"user_id": "ann"})["traces"] == 1
    again = own.get_memory_stats()["learned"]
    await own.chat_completion(CAT, {"user_id": "ann"}, max_new_tokens=1)
    assert own.get_memory_stats()["learned"] == again | {"known": again["known"] + 1}
    fusion = await own.chat_completion(WHERE, {"user_id": "ann"}, max_new_tokens=2, fusion="state")
    assert fusion.way == "state"
    with pytest.raises((NotAvailable, ModelNotConfigured)):
        await own.chat_completion(WHERE, {"user_id": "ann"}, fusion="adapter")


async def test_memories_by_hand_in_vectors_of_the_size_that_was_asked_for(folder: Path, address: str) -> None:
    async with NDMLIntegratedLLM(str(folder), memory_dimension=64, memory_config={"address": address, "user": "bea"}) as model:
        gateway = model.memory_gateway
        added = await gateway.add_memory_async("The harbour pool opens at six.", {"topic": "swimming"}, salience=0.8)
        vector = np.random.default_rng(0).normal(size=64).astype(np.float32)
        vector /= np.linalg.norm(vector)
        other = await gateway.add_memory_async("Something in a direction of its own.", embedding=torch.tensor(vector))
        found = await gateway.retrieve_memories_async("When can I swim?", k=1)
        assert [memory.trace_id for memory, _ in found] == [added.trace_id] and found[0][0].metadata == {"topic": "swimming"}
        nearest, score = (await gateway.retrieve_memories_async(vector, k=1))[0]
        assert nearest.trace_id == other.trace_id and nearest.embedding is not None and nearest.embedding.dimension == 64
        assert np.allclose(np.frombuffer(nearest.embedding.vector, "<f4"), vector, atol=1e-3) and score > 0.9
        await gateway.feedback_async(added.trace_id, 1.0)
        done = await gateway.periodic_maintenance()
        assert done["done"] and model.get_memory_stats()["memory_dimension"] == 64
        assert await gateway.delete_memory_async(other.trace_id) and not await gateway.delete_memory_async(other.trace_id)
        for wrong in (lambda: gateway.add_memory_async(vector), lambda: gateway.retrieve_memories_async("x", {"user_id": ""})):  # type: ignore[arg-type]
            with pytest.raises(FieldInvalid):
                await wrong()


async def test_the_seeds_512_components_over_an_embedder_of_fewer(folder: Path, address: str) -> None:
    async with NDMLIntegratedLLM(str(folder), memory_dimension=512, memory_config={"address": address, "user": "kim"}) as model:
        gateway = model.memory_gateway
        added = await gateway.add_memory_async("The harbour pool opens at six.")
        await gateway.add_memory_async("My cat is called Miso.")
        [(shown, _)] = await gateway.retrieve_memories_async("When can I swim?", k=1)
        assert shown.trace_id == added.trace_id and shown.embedding is not None and shown.embedding.dimension == 512
        vector = np.frombuffer(shown.embedding.vector, "<f4")
        [stored] = [m.embedding for m in gateway.client.list(user="kim", include_embedding=True) if m.trace_id == added.trace_id]
        assert stored is not None and stored.dimension == 384
        assert np.allclose(gateway.projection.up(vector), np.frombuffer(stored.vector, "<f4"), atol=1e-5)
        [(again, score)] = await gateway.retrieve_memories_async(vector, k=1)
        assert again.trace_id == added.trace_id and score > 0.99
        foreign = np.random.default_rng(0).normal(size=512).astype(np.float32)
        other = await gateway.add_memory_async("Something in a direction of its own.", embedding=foreign)
        assert (await gateway.retrieve_memories_async(foreign, k=1))[0][0].trace_id == other.trace_id


def test_a_forward_pass_reads_what_its_own_text_recalls(own: NDMLIntegratedLLM) -> None:
    asyncio.run(own.memory_gateway.add_memory_async("Freya plays the cello on Sundays.", {"user_id": "cat"}))
    ids = torch.tensor([own.tokenizer("when does Freya play the cello?")["input_ids"]])
    with torch.inference_mode():
        bare = own.base_model(input_ids=ids, use_cache=False).logits
        mine, nobody = own(ids, context={"user_id": "cat"}), own(ids, context={"user_id": ""})
    assert [memory.text for memory, _ in mine.retrieved_memories[0]] == ["Freya plays the cello on Sundays."]
    assert mine["logits"].shape == bare.shape and not torch.allclose(mine.logits, bare, atol=1e-3)
    assert torch.equal(nobody.logits, bare) and nobody.retrieved_memories == ((),)
    told = torch.tensor([own.tokenizer("Freya sold her cello in March.")["input_ids"]])
    own(told, context={"user_id": "cat"}, update_memory=False)
    assert own.get_memory_stats({"user_id": "cat"})["traces"] == 1
    own(told, context={"user_id": "cat"})
    assert own.get_memory_stats({"user_id": "cat"})["traces"] == 2


def test_a_checkpoint_brings_memories_back_with_their_ids(own: NDMLIntegratedLLM, tmp_path: Path) -> None:
    context, path = {"user_id": "dan"}, tmp_path / "dan.jsonl"
    added = asyncio.run(own.memory_gateway.add_memory_async("The attic needs insulation.", context))
    assert own.save_memory_checkpoint(path, context | {"session_id": "later", "agent_id": "other"}) == 1, "of every session and agent"
    assert json.loads(path.read_text())["trace_id"] == added.trace_id and not list(tmp_path.glob("*.part"))
    assert own.load_memory_checkpoint(path) == 0
    asyncio.run(own.memory_gateway.delete_memory_async(added.trace_id, context))
    assert own.load_memory_checkpoint(path, {"user_id": "elk"}) == 1
    found = asyncio.run(own.memory_gateway.retrieve_memories_async("attic", {"user_id": "elk"}))
    assert found[0][0].text == "The attic needs insulation."
    path.write_text("nothing\n")
    with pytest.raises(FieldInvalid, match="line 1"):
        own.load_memory_checkpoint(path)
    with pytest.raises(FieldInvalid, match="no checkpoint"):
        own.load_memory_checkpoint(tmp_path / "none")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Nothing is written by what is made from now on until it is set."""
    go, write = threading.Event(), Learner.write

    def once_set(self: Learner, *given: Any) -> Any:
        assert go.wait(300)
        return write(self, *given)

    monkeypatch.setattr(Learner, "write", once_set)
    return go


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def test_behind_the_answer_everything_is_written_before_close_and_a_full_queue_refuses(
    folder: Path, address: str, held: threading.Event
) -> None:
    model = NDMLIntegratedLLM(str(folder), memory_config={"address": address, "user": "fay", "backlog": 3})
    three = said("I live in Oslo. My dog is called Rex. I work as a baker.")
    with pytest.raises(FieldInvalid):
        await model.chat_completion(three, max_new_tokens=0)
    await model.chat_completion(three, max_new_tokens=1)  # what failed gave its room back
    with pytest.raises(LearningBacklog, match="still wait"):
        await model.chat_completion(said("My sister Inga lives in Bergen."), max_new_tokens=1)
    ids = torch.tensor([model.tokenizer("My sister Inga lives in Bergen.")["input_ids"]])
    with pytest.raises(LearningBacklog, match="still wait"), torch.inference_mode():
        model(ids)
    assert len(model(ids, update_memory=False).retrieved_memories) == 1
    held.set()
    await model.aclose()
    model.close()
    with NDMLIntegratedLLM(str(folder), memory_config={"address": address, "user": "fay"}) as other:
        assert other.get_memory_stats()["traces"] == 3


async def test_closing_waits_for_the_chats_that_run_and_keeps_what_they_say(
    folder: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = NDMLIntegratedLLM(str(folder), memory_config={"address": address, "user": "ivy"})
    begun, go, answer = threading.Event(), threading.Event(), model._generation.answer

    def once_set(*given: Any) -> Any:
        begun.set()
        assert go.wait(300)
        return answer(*given)

    monkeypatch.setattr(model._generation, "answer", once_set)
    chat = asyncio.create_task(model.chat_completion(CAT, max_new_tokens=1))
    assert await asyncio.to_thread(begun.wait, 300)
    closing = asyncio.create_task(model.aclose())
    while not model._executor._shutdown:
        assert model._learner._thread.is_alive() and not closing.done()
        await asyncio.sleep(0.01)
    go.set()
    await chat
    await closing
    model.flush()
    with NDMLIntegratedLLM(str(folder), memory_config={"address": address, "user": "ivy"}) as other:
        assert other.get_memory_stats()["traces"] == 1


def test_refusals_that_name_what_is_wrong(folder: Path, address: str, tmp_path: Path) -> None:
    with pytest.raises(FieldUnknown, match=r"memory_config\.num_clusters"):
        NDMLIntegratedLLM(str(folder), memory_config={"num_clusters": 4})
    with pytest.raises(FieldInvalid, match="memory_dimension is 5000"):
        NDMLIntegratedLLM(str(folder), memory_dimension=5000, memory_config={"address": address})
    with pytest.raises(ModelUnavailable):
        NDMLIntegratedLLM(str(tmp_path / "none"), memory_config={"address": address})
    with pytest.raises(FieldInvalid, match=r"neither adapter\.json nor projector\.json"):
        NDMLIntegratedLLM(str(folder), memory_config={"address": address, "trained": str(tmp_path)})
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = ndml.Nothing


def test_importing_ndml_alone_loads_no_torch() -> None:
    script = "import sys, ndml; print('torch' in sys.modules, 'grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split() == ["False", "False"]


def test_who_forgets_to_close_leaves_no_process_and_loses_nothing(folder: Path, tmp_path: Path) -> None:
    script = f"""
import asyncio, psutil
from ndml import NDMLIntegratedLLM
model = NDMLIntegratedLLM({str(folder)!r}, memory_config={{"data_dir": {str(tmp_path)!r}, "user": "gus", "ready_timeout_s": 600}})
asyncio.run(model.chat_completion([{{"role": "user", "content": "My boat is called Anna."}}], max_new_tokens=1))
print(*(child.pid for child in psutil.Process().children(recursive=True)))
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) >= 4
    until = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.2)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    kept = {"data_dir": str(tmp_path), "user": "gus", "ready_timeout_s": 600.0}
    with NDMLIntegratedLLM(str(folder), memory_config=kept) as model:
        assert model.get_memory_stats()["traces"] == 1


@pytest.mark.skipif(not (tiny.path() / "config.json").exists(), reason="the boxed model's weights are not in this tree: make train-tiny")
async def test_the_boxed_model_answers_from_memory(address: str) -> None:
    async with NDMLIntegratedLLM(memory_config={"address": address, "user": "hal", "learning": "wait"}) as model:
        await model.chat_completion([{"role": "user", "content": "My cat is called Miso."}], max_new_tokens=24)
        answer = await model.chat_completion(WHERE, max_new_tokens=24)
        assert "Miso" in answer and [memory.text for memory in answer.citations] == ["My cat is called Miso."]


def test_the_example_runs(folder: Path, address: str) -> None:
    example = Path(ndml.__file__).parents[1] / "examples" / "integrated.py"
    command = [sys.executable, str(example), "--model", str(folder), "--address", address]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, timeout=800, check=False)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert "My cat is called Miso." in said and "The harbour pool opens at six." in said and "memories of ann saved" in said
