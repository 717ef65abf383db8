from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ndml.errors import DeadlinePassed, FieldInvalid, ModelNotConfigured, ModelUnavailable, Overloaded
from services.llm.generator import HuggingFaceGenerator
from services.llm.local_model import LocalModel
from services.llm.ports import Finish, Message, Sampling
from services.llm.prompt import PromptWriter
from services.llm.settings import ChatSection
from services.llm.unconfigured import Unconfigured
from tests.unit.llm.tiny_models import CHATML, STRICT, byte_tokenizer, save_causal

ASK = [Message("system", "be brief"), Message("user", "where is the notebook?")]


@pytest.fixture(scope="module")
def gpt2(models_dir: Path) -> Path:
    return save_causal(models_dir / "gpt2", "gpt2")


@pytest.fixture(scope="module")
def llama(models_dir: Path) -> Path:
    return save_causal(models_dir / "llama", "llama", CHATML)


def _network(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path).train(False)


@asynccontextmanager
async def serving(path: Path, **options: object) -> AsyncIterator[HuggingFaceGenerator]:
    settings = ChatSection.model_validate({"model": str(path)} | options)
    generator = HuggingFaceGenerator(settings, lambda: LocalModel.load(settings), lambda: torch.set_num_threads(1))
    await generator.start()
    try:
        yield generator
    finally:
        await generator.stop()


async def collect(generator: HuggingFaceGenerator, messages: Sequence[Message], sampling: Sampling) -> tuple[str, Finish]:
    *pieces, last = [piece async for piece in generator.generate(messages, sampling, None)]
    assert isinstance(last, Finish)
    return "".join(str(piece) for piece in pieces), last


@pytest.mark.parametrize("family", ["gpt2", "llama", "mamba"])
async def test_greedy_text_is_what_transformers_generates(models_dir: Path, family: str) -> None:
    path = save_causal(models_dir / f"greedy-{family}", family, CHATML)  # type: ignore[arg-type]
    tokenizer, model = AutoTokenizer.from_pretrained(path), _network(path)
    prompt = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in ASK], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    expected = model.generate(ids, do_sample=False, max_new_tokens=40)[0, ids.shape[1] :]
    async with serving(path) as generator:
        text, finish = await collect(generator, ASK, Sampling(max_new_tokens=40))
    assert text == tokenizer.decode(expected, skip_special_tokens=True)
    assert finish == Finish("stop" if len(expected) < 40 else "length", ids.shape[1], len(expected))


async def test_end_token_finishes_with_stop(llama: Path, tmp_path: Path) -> None:
    model = _network(llama)
    tokenizer = AutoTokenizer.from_pretrained(llama)
    model.lm_head.weight.data.zero_()
    model.lm_head.bias = torch.nn.Parameter(torch.nn.functional.one_hot(torch.tensor(tokenizer.eos_token_id), len(tokenizer)).float())
    local = LocalModel("ends", tokenizer, model.train(False), 256)
    generator = HuggingFaceGenerator(ChatSection(model="ends"), lambda: local)
    await generator.start()
    assert (await collect(generator, ASK, Sampling()))[1].reason == "stop"
    await generator.stop()


async def test_a_seed_fixes_the_text_beside_other_generations(llama: Path) -> None:
    async with serving(llama, max_concurrent=4) as generator:
        sampled = [Sampling(30, 1.0, 0.9, (), seed) for seed in (1, 1, 2, None)]
        first, again, other, _ = await asyncio.gather(*(collect(generator, ASK, s) for s in sampled))
        assert first == again
        assert first != other
        greedy = await collect(generator, ASK, Sampling(30))
        narrow = await collect(generator, ASK, Sampling(30, 2.0, 1e-6, (), 5))
        assert greedy == narrow, "a nucleus of one token is greedy"


async def test_text_ends_before_a_stop_string(llama: Path) -> None:
    async with serving(llama) as generator:
        whole, _ = await collect(generator, ASK, Sampling(40))
        stop = whole[6:9]
        cut, finish = await collect(generator, ASK, Sampling(40, stop=(stop, "never comes")))
    assert cut == whole[: whole.index(stop)]
    assert finish.reason == "stop"
    assert finish.completion_tokens < 40


async def test_plain_template_for_a_model_without_one(gpt2: Path) -> None:
    tokenizer = byte_tokenizer()
    writer = PromptWriter(tokenizer)
    assert tokenizer.decode(writer.encode(ASK)) == "system: be brief\nuser: where is the notebook?\nassistant:"
    async with serving(gpt2) as generator:
        text, finish = await collect(generator, ASK, Sampling(12))
    assert finish.completion_tokens <= 12
    assert text == text.lstrip()


def test_a_template_that_wants_alternating_turns_gets_them() -> None:
    tokenizer = byte_tokenizer(STRICT)
    turns = [Message("system", "S"), Message("user", "a"), Message("user", "b"), Message("assistant", "c"), Message("user", "d")]
    assert tokenizer.decode(PromptWriter(tokenizer).encode(turns)) == "[user]S\n\na\n\nb[assistant]c[user]d"
    assert tokenizer.decode(PromptWriter(tokenizer).encode([Message("system", "S"), *turns[3:]])) == "[user]S[assistant]c[user]d"
    with pytest.raises(FieldInvalid, match="roles must alternate") as caught:
        PromptWriter(tokenizer).encode([Message("assistant", "c")])
    assert caught.value.violations[0].field == "messages"


@pytest.mark.parametrize("template", [CHATML, None])
def test_overflow_drops_the_oldest_turns_only(template: str | None) -> None:
    tokenizer = byte_tokenizer(template)
    writer = PromptWriter(tokenizer)
    talk = [Message("system", "SYS")]
    for n in range(60):
        talk += [Message("user", f"question {n}"), Message("assistant", f"answer {n}")]
    talk += [Message("system", "MEM"), Message("user", "the last one")]
    everything = writer.encode(talk)
    assert writer.fit(talk, len(everything)) == everything
    for budget in (400, 150, 90):
        ids = writer.fit(talk, budget)
        text = tokenizer.decode(ids)
        assert len(ids) <= budget
        assert "SYS" in text and "MEM" in text and "the last one" in text
        kept = [n for n in range(60) if f"question {n}\n" in text or f"question {n}<" in text]
        assert kept == list(range(60 - len(kept), 60)), "only the oldest go"
        assert text.count("question") == text.count("answer"), "an answer goes with its question"
    with pytest.raises(FieldInvalid, match=r"take \d+ tokens, the model has room for 20") as caught:
        writer.fit(talk, 20)
    assert caught.value.violations[0].field == "messages"


async def test_what_cannot_fit_the_context_is_refused_with_the_numbers(llama: Path) -> None:
    async with serving(llama) as generator:
        with pytest.raises(FieldInvalid, match="256") as caught:
            await collect(generator, ASK, Sampling(max_new_tokens=256))
        assert caught.value.violations[0].field == "sampling.max_new_tokens"
        with pytest.raises(FieldInvalid, match="room for 200") as caught:
            await collect(generator, [Message("user", "word " * 400)], Sampling(max_new_tokens=56))
        assert caught.value.violations[0].field == "messages"


class Paced(LocalModel):
    """The real model, but each token waits for the test's leave."""

    def __init__(self, inner: LocalModel) -> None:
        self.__dict__.update(inner.__dict__)
        self.leave, self.tokens = threading.Semaphore(0), 0

    def run(self, prompt, new_tokens, sampling, on_token):  # type: ignore[no-untyped-def]
        def paced(token: int) -> bool:
            assert self.leave.acquire(timeout=60)
            self.tokens += 1
            return bool(on_token(token))

        return super().run(prompt, new_tokens, sampling, paced)


async def _paced(llama: Path, **limits: int) -> tuple[HuggingFaceGenerator, Paced]:
    settings = ChatSection.model_validate({"model": str(llama)} | limits)
    paced = Paced(LocalModel.load(settings))
    generator = HuggingFaceGenerator(settings, lambda: paced)
    await generator.start()
    return generator, paced


async def test_closing_the_stream_ends_the_work_within_a_token(llama: Path) -> None:
    generator, paced = await _paced(llama, max_concurrent=1)
    stream = generator.generate(ASK, Sampling(200), None)
    paced.leave.release(16)
    assert isinstance(await anext(stream), str)
    while paced.tokens < 16:
        await asyncio.sleep(0.001)
    closing = asyncio.ensure_future(stream.aclose())
    await asyncio.sleep(0)
    paced.leave.release(100)
    await closing
    assert paced.tokens == 17
    paced.leave.release(500)
    assert (await collect(generator, ASK, Sampling(5)))[1].completion_tokens == 5, "the slot is free again"
    await generator.stop()


async def test_the_line_is_bounded_and_waits_no_longer_than_the_deadline(llama: Path) -> None:
    generator, paced = await _paced(llama, max_concurrent=1, max_waiting=1)
    running = asyncio.create_task(collect(generator, ASK, Sampling(5)))
    waiting = asyncio.create_task(collect(generator, ASK, Sampling(5)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="1 generations run and 1 wait") as caught:
        await collect(generator, ASK, Sampling(5))
    assert caught.value.retry_after_s
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(DeadlinePassed):
        [piece async for piece in generator.generate(ASK, Sampling(5), 0.01)]
    paced.leave.release(100)
    assert (await running)[1].completion_tokens == 5
    await generator.stop()


async def test_a_failing_model_is_model_unavailable(llama: Path) -> None:
    generator, paced = await _paced(llama)

    def fail(*_: object) -> None:
        raise RuntimeError("device lost")

    paced.run = fail  # type: ignore[method-assign]
    with pytest.raises(ModelUnavailable, match="device lost"):
        await collect(generator, ASK, Sampling(5))
    await generator.stop()


async def test_no_model_says_what_to_set() -> None:
    with pytest.raises(ModelNotConfigured, match=r"NDML_LLM__CHAT__MODEL=.*NDML_LLM__CHAT__UPSTREAM_URL="):
        [piece async for piece in Unconfigured().generate(ASK, Sampling(), None)]


def test_a_model_that_cannot_be_had_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"chat\.model=.*hub id"):
        LocalModel.load(ChatSection(model="nobody/no-such-model-here"))
    with pytest.raises(ModelUnavailable, match="does not exist"):
        LocalModel.load(ChatSection(model=str(tmp_path / "none")))
