"""A local model behind the generator: what it says, what it refuses, and what becomes of those who wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ndml.errors import (
    DeadlinePassed,
    Draining,
    FieldInvalid,
    FusionUnsupported,
    ModelNotConfigured,
    ModelUnavailable,
    ModelUnknown,
    Overloaded,
    ScoresUnsupported,
)
from ndml.fusion.prompt import write_block
from ndml.fusion.readout import Entry, MemoryReadout
from services.llm.generator import LocalGenerator
from services.llm.local_model import LocalModel
from services.llm.ports import WAYS, Ask, Finish, Message, Sampling, Tool, ToolCall
from services.llm.settings import ChatSection
from services.llm.unconfigured import Unconfigured
from tests.unit.fusion import tiny
from tests.unit.llm.tiny_models import CHATML, save_causal

ASK = (Message("system", "be brief"), Message("user", "where is the notebook?"))
CAT = MemoryReadout((Entry(1, "my cat is called Miso", "Ana", datetime(2026, 1, 2, tzinfo=UTC)), Entry(2, "the notebook is red")))


@pytest.fixture(scope="module")
def gpt2(models_dir: Path) -> Path:
    return save_causal(models_dir / "gpt2", "gpt2")


@pytest.fixture(scope="module")
def llama(models_dir: Path) -> Path:
    return save_causal(models_dir / "llama", "llama", CHATML)


def _network(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path).train(False)


def local(name: str, **options: object) -> LocalModel:
    """One of the families' tiny models, without ends, so that lengths are what was asked for."""
    settings = ChatSection.model_validate({"model": name} | options)
    made = LocalModel(name, tiny.tokenizer(), tiny.model(name), settings)
    made.ends = frozenset()
    return made


@asynccontextmanager
async def serving(path: Path | LocalModel, **options: object) -> AsyncIterator[LocalGenerator]:
    settings = ChatSection.model_validate({"model": str(path) if isinstance(path, Path) else path.name} | options)
    load = (lambda: LocalModel.load(settings)) if isinstance(path, Path) else (lambda: path)
    generator = LocalGenerator(settings, load, lambda: torch.set_num_threads(1))
    await generator.start()
    try:
        yield generator
    finally:
        await generator.stop()


async def collect(generator: LocalGenerator, ask: Ask, remaining_s: float | None = None) -> tuple[str, Finish]:
    *pieces, last = [piece async for piece in generator.generate(ask, remaining_s)]
    assert isinstance(last, Finish)
    return "".join(str(piece) for piece in pieces), last


def asked(sampling: Sampling | None = None, **given: Any) -> Ask:
    return Ask(**{"messages": ASK, "sampling": sampling or Sampling()} | given)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mamba"])
async def test_greedy_text_is_what_transformers_generates(models_dir: Path, family: str) -> None:
    path = save_causal(models_dir / f"greedy-{family}", family, CHATML)  # type: ignore[arg-type]
    tokenizer, model = AutoTokenizer.from_pretrained(path), _network(path)
    turns = [{"role": m.role, "content": m.content} for m in ASK]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    async with serving(path) as generator:
        text, finish = await collect(generator, asked(Sampling(40)))
        assert text == tokenizer.decode(out, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    reason = "stop" if out[-1] == tokenizer.eos_token_id else "length"
    assert finish == Finish(reason, prompt["input_ids"].shape[1], len(out), fusion="prompt")


async def test_an_end_token_stops(llama: Path) -> None:
    model, tokenizer = _network(llama), AutoTokenizer.from_pretrained(llama)
    model.lm_head.weight.data.zero_()
    model.lm_head.bias = torch.nn.Parameter(torch.nn.functional.one_hot(torch.tensor(tokenizer.eos_token_id), len(tokenizer)).float())
    async with serving(LocalModel("ends", tokenizer, model.train(False), ChatSection(model="ends"))) as generator:
        text, finish = await collect(generator, asked())
    assert (text, finish.reason, finish.completion_tokens) == ("", "stop", 1)


async def test_a_seed_fixes_the_text_beside_other_generations(llama: Path) -> None:
    async with serving(llama) as generator:
        sampled = [Sampling(30, 1.0, 0.9, (), seed) for seed in (1, 1, 2, None)]
        first, again, other, _ = await asyncio.gather(*(collect(generator, asked(s)) for s in sampled))
        assert first == again
        assert first != other
        greedy = await collect(generator, asked(Sampling(30)))
        narrow = await collect(generator, asked(Sampling(30, 2.0, 1e-6, (), 5)))
        assert greedy == narrow, "a nucleus of one token is greedy"


async def test_text_ends_before_a_stop_string(llama: Path) -> None:
    async with serving(llama) as generator:
        whole, _ = await collect(generator, asked(Sampling(40)))
        stop = whole[6:9]
        cut, finish = await collect(generator, asked(Sampling(40, stop=(stop, "never comes"))))
    assert cut == whole[: whole.index(stop)]
    assert finish.reason == "stop"
    assert finish.completion_tokens < 40


async def test_a_model_without_a_template_begins_with_a_word(gpt2: Path) -> None:
    async with serving(gpt2) as generator:
        text, finish = await collect(generator, asked(Sampling(12)))
    assert finish.completion_tokens <= 12
    assert text == text.lstrip()


async def test_what_cannot_fit_the_context_is_refused_with_the_numbers(llama: Path) -> None:
    async with serving(llama) as generator:
        with pytest.raises(FieldInvalid, match="256") as caught:
            await collect(generator, asked(Sampling(max_new_tokens=256)))
        assert caught.value.violations[0].field == "sampling.max_new_tokens"
        with pytest.raises(FieldInvalid, match="room for 200") as caught:
            await collect(generator, asked(Sampling(max_new_tokens=56), messages=(Message("user", "word " * 400),)))
        assert caught.value.violations[0].field == "messages"


# ---- many at once


def various(new_tokens: int = 9) -> list[Ask]:
    """Different lengths, memories, ways; some alike, some sampled, some with a stop."""
    asks = [asked(Sampling(new_tokens + n % 4), messages=(Message("user", "x" * (1 + 37 * n % 90)),)) for n in range(6)]
    asks += [asked(Sampling(new_tokens, 0.9, 0.8, (), 7)), asked(Sampling(new_tokens), memory=CAT), asked(Sampling(new_tokens), memory=CAT)]
    return [*asks, replace(asks[0], sampling=Sampling(new_tokens, stop=("e",)))]


@pytest.mark.parametrize("name", ["Llama", "GPT2", "Gemma2", "Bloom", "Mamba", "Rwkv", "Jamba", "RecurrentGemma"])
async def test_a_batch_says_what_each_says_alone(name: str) -> None:
    """Slots, joined caches, rows that step one by one, one after the other; small turns make rows come and go all the time."""
    asks = various()
    ways = [way for way in WAYS if not local(name).refusal(way)]
    asks += [asked(Sampling(6), memory=CAT, fusion=way) for way in ways]
    async with serving(local(name), batch_tokens=4096, prefill_tokens=600) as generator:
        together = await asyncio.gather(*(collect(generator, ask) for ask in asks))
        alone = [await collect(generator, ask) for ask in asks]
    assert together == alone
    assert [finish.fusion for _, finish in alone[-len(ways) :]] == ways
    assert all(set(finish.read) == {1, 2} for _, finish in alone[-len(ways) :])


async def test_more_than_there_is_room_for_takes_turns() -> None:
    async with serving(local("Llama"), batch_tokens=500, max_concurrent=3, max_waiting=20) as generator:
        found = await asyncio.gather(*(collect(generator, ask) for ask in various()))
        assert found == [await collect(generator, ask) for ask in various()]


# ---- memory


async def test_without_memory_the_prompt_is_the_callers_and_with_it_the_end_says_what_was_read() -> None:
    made = local("Llama", memory_tokens=write_block(CAT.only([1]), len).tokens)
    bare = made.prepare(asked()).plan
    assert tiny.tokenizer().decode(list(bare.tokens)).startswith("<|im_start|>system\nbe brief<|im_end|>") and bare.used == ()
    for way in ("prompt", "state", "knn"):
        assert made.prepare(asked(fusion=way)).plan.tokens == bare.tokens
    async with serving(made) as generator:
        _, none = await collect(generator, asked(Sampling(2)))
        _, some = await collect(generator, asked(Sampling(2), memory=CAT))
    assert (none.read, none.prompt_tokens) == ((), len(bare.tokens))
    assert some.read == (1,) and some.prompt_tokens > none.prompt_tokens, "a token a byte: the budget leaves room for one"


async def test_a_way_that_the_model_has_not_is_refused_with_the_reason() -> None:
    async with serving(local("Llama")) as generator:
        with pytest.raises(FusionUnsupported, match="trained adapter") as caught:
            await collect(generator, asked(memory=CAT, fusion="adapter"))
        assert caught.value.violations[0].field == "fusion"
        refusals = generator.abilities.refusals
        assert [way for way in WAYS if not refusals[way]] == ["prompt", "state", "knn"]
        assert "trained projector" in refusals["prefix"]
    with pytest.raises(ModelUnavailable, match=r"chat\.fusion=prefix is not possible"):
        local("Llama", fusion="prefix")
    with pytest.raises(ModelUnavailable, match=r"neither adapter\.json"):
        local("Llama", trained="/nowhere")


async def test_another_model_is_unknown() -> None:
    async with serving(local("Llama")) as generator:
        assert (await collect(generator, asked(Sampling(1), model="Llama")))[1].completion_tokens == 1
        with pytest.raises(ModelUnknown, match="'Llama'"):
            await collect(generator, asked(model="gpt-x"))


# ---- tools


async def test_tools_need_a_template_that_knows_them() -> None:
    tool = Tool("weather", "of a city")
    async with serving(local("Llama")) as generator:
        with pytest.raises(FieldInvalid, match="knows no tools") as caught:
            await collect(generator, asked(tools=(tool,)))
        assert caught.value.violations[0].field == "tools"
        assert (await collect(generator, asked(Sampling(1), tools=(tool,), tool_choice="none")))[1].reason == "length"


async def test_what_the_model_writes_as_a_call_comes_back_as_one() -> None:
    made = local("Llama")
    made.prompts.knows_tools = True
    said = 'Let me look.<tool_call>\n{"name": "weather", "arguments": {"city": "Porto"}}\n</tool_call>'
    script = iter(made.ids(said + "<tool_call>"))
    made.network = None  # nothing below may run it: what it says is given
    made.prepare(asked(tools=(Tool("weather"),)))
    from services.llm.generation import Generation, Stream

    job = made.prepare(asked(Sampling(len(made.ids(said))), tools=(Tool("weather"),)))
    generation = Generation(made, job, Sampling(), Stream(asyncio.get_running_loop()))
    parts, end = [], None
    while end is None:
        text, end = generation.take(next(script))
        parts.append(text)
    assert "".join(parts) == "Let me look."
    assert (end.reason, end.tool_calls) == ("tool_calls", (ToolCall("call_1", "weather", '{"city": "Porto"}'),))


# ---- callers that leave, wait, or come too late


class Paced:
    """A real model whose passes wait for the test's leave."""

    def __init__(self, name: str = "Llama") -> None:
        self.local = local(name)
        self.leave, self.begun, self.passes = threading.Semaphore(0), 0, 0
        self._handle = self.local.network.register_forward_pre_hook(self._wait)

    def _wait(self, *_: object) -> None:
        self.begun += 1
        assert self.leave.acquire(timeout=60)
        self.passes += 1

    async def until(self, begun: int) -> None:
        """So many passes ran or wait for leave."""
        while self.begun < begun:
            await asyncio.sleep(0.001)

    def free(self) -> None:
        self._handle.remove()
        self.leave.release(10_000)


@pytest.fixture
def paced() -> Any:
    made = Paced()
    yield made
    made.free()


async def test_closing_the_stream_ends_the_work_within_a_token(paced: Paced) -> None:
    async with serving(paced.local, max_concurrent=1) as generator:
        stream = generator.generate(asked(Sampling(200)), None)
        paced.leave.release(16)
        assert isinstance(await anext(stream), str)
        await paced.until(17)
        await stream.aclose()
        paced.leave.release(1)
        other = asyncio.create_task(collect(generator, asked(Sampling(5))))
        paced.leave.release(5)
        assert (await other)[1].completion_tokens == 5
        assert paced.passes == 17 + 5, "the step under way, and then nothing but the next one's prompt and four steps"


async def test_the_line_is_bounded_and_waits_no_longer_than_the_deadline(paced: Paced) -> None:
    async with serving(paced.local, max_concurrent=1, max_waiting=1) as generator:
        running = asyncio.create_task(collect(generator, asked(Sampling(5))))
        waiting = asyncio.create_task(collect(generator, asked(Sampling(5))))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="1 generations run and 1 wait") as caught:
            await collect(generator, asked(Sampling(5)))
        assert caught.value.retry_after_s
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        late = asyncio.create_task(collect(generator, asked(Sampling(5)), 0.2))
        await asyncio.wait([late])
        paced.leave.release(100)
        with pytest.raises(DeadlinePassed):
            await late
        assert (await running)[1].completion_tokens == 5


async def test_the_deadline_ends_a_generation_under_way(paced: Paced) -> None:
    async with serving(paced.local) as generator:
        paced.leave.release(8)
        with pytest.raises(DeadlinePassed, match="allow more time"):
            [piece async for piece in generator.generate(asked(Sampling(200)), 3.0)]
        paced.leave.release(100)
        assert (await collect(generator, asked(Sampling(5))))[1].completion_tokens == 5
        assert paced.passes <= 9 + 5, "the first one's at most, and the prompt and four steps of the second"


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loop's time, which stands still unless a test moves it."""
    now = [0.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    return now


async def test_pieces_come_no_faster_than_asked_for_and_nothing_of_them_is_lost(llama: Path, clock: list[float]) -> None:
    texts = []
    for interval, most in ((0, 40), (5, 2)):  # the first piece, and all others with the end, which waits for nothing
        async with serving(llama, stream_interval_s=interval) as generator:
            *pieces, _ = [piece async for piece in generator.generate(asked(Sampling(40)), None)]
            assert 0 < len(pieces) <= most
            texts.append("".join(map(str, pieces)))
    assert texts[0] == texts[1]


async def test_a_deadline_does_not_wait_for_the_next_piece(paced: Paced, clock: list[float]) -> None:
    async with serving(paced.local, stream_interval_s=5) as generator:
        paced.leave.release(8)
        stream = generator.generate(asked(Sampling(200)), 2.0)
        assert isinstance(await anext(stream), str)
        clock[0] = 2.0
        with pytest.raises(DeadlinePassed):
            await anext(stream)
        paced.leave.release(100)


async def test_a_failing_model_fails_those_under_way_and_serves_the_next(paced: Paced) -> None:
    async with serving(paced.local) as generator:
        failing = [True]

        def fail(*_: object) -> None:
            if failing[0]:
                raise RuntimeError("device lost")

        handle = paced.local.network.register_forward_pre_hook(fail)
        paced.leave.release(1000)
        outcomes = await asyncio.gather(*(collect(generator, asked(Sampling(5))) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(outcome, ModelUnavailable) and "device lost" in outcome.message for outcome in outcomes)
        failing[0] = False
        assert (await collect(generator, asked(Sampling(5))))[1].completion_tokens == 5
        handle.remove()


async def test_stopping_answers_who_still_waits(paced: Paced) -> None:
    async with serving(paced.local, max_concurrent=1) as generator:
        tasks = [asyncio.create_task(collect(generator, asked(Sampling(50)))) for _ in range(2)]
        await paced.until(1)
        stopping = asyncio.create_task(generator.stop())
        assert generator._decoding is not None
        while not generator._decoding._closed:
            await asyncio.sleep(0.001)
        paced.leave.release(1000)
        await stopping
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, Draining) for outcome in outcomes)
        with pytest.raises(Draining):
            await collect(generator, asked(Sampling(5)))
        with pytest.raises(Draining):
            await generator.score(["text"], "", None)


async def test_stopping_answers_who_waits_for_a_thread() -> None:
    """Plans and scores that no thread began are not made; who asked for them was not cancelled and hears why."""
    made, entered, leave = local("Llama"), threading.Semaphore(0), threading.Event()
    prepare, ids = made.prepare, made.ids

    def slow(ask: Ask) -> Any:
        entered.release()
        assert leave.wait(60)
        return prepare(ask)

    def slow_ids(text: str) -> list[int]:
        entered.release()
        assert leave.wait(60)
        return ids(text)

    made.prepare, made.ids = slow, slow_ids  # type: ignore[method-assign]
    async with serving(made) as generator:
        scores = [asyncio.create_task(generator.score(["text"], "", None)) for _ in range(2)]
        answers = [asyncio.create_task(collect(generator, asked(Sampling(5)))) for _ in range(3)]
        for _ in range(3):
            assert await asyncio.to_thread(entered.acquire, timeout=60)
        left = asyncio.create_task(collect(generator, asked(Sampling(5))))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        stopping = asyncio.create_task(generator.stop())
        for waiting in (answers[2], scores[1]):
            with pytest.raises(Draining):
                await waiting
        leave.set()
        await stopping
        outcomes = await asyncio.gather(*answers, *scores, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Draining, Draining, Draining, list, Draining]


# ---- scores


def by_hand(name: str, head: Sequence[int], own: Sequence[int]) -> float:
    ids = torch.tensor([[*head, *own]])
    with torch.inference_mode():
        said = tiny.model(name)(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    return -sum(float(said[len(head) + i - 1, token]) for i, token in enumerate(own)) / len(own)


@pytest.mark.parametrize("name", ["Llama", "Mamba", "Jamba"])
async def test_scores_are_mean_surprise_after_the_context(name: str) -> None:
    made = local(name)
    texts = ["my cat is called Miso", "x", "a much longer text than the others, about nothing at all" * 2]
    async with serving(made, score_tokens=64) as generator:
        bare = await generator.score(texts, "", None)
        after = await generator.score(texts, "we spoke of cats", None)
        [one] = await generator.score(texts[:1], "", None)
    end = tiny.tokenizer().eos_token_id
    for place, text in enumerate(texts):
        own = made.ids(text)[:63]
        head = [end, *made.ids("we spoke of cats")[: 63 - len(own)]]  # nothing of it beside the longest text
        assert bare[place].surprise == pytest.approx(by_hand(name, [end], own), abs=1e-4)
        assert after[place].surprise == pytest.approx(by_hand(name, head, own), abs=1e-4)
        assert bare[place].tokens == after[place].tokens == len(own)
    assert one.surprise == pytest.approx(bare[0].surprise, abs=1e-5)
    assert bare[0].surprise != pytest.approx(after[0].surprise, abs=1e-3)


async def test_what_scoring_raises_is_the_model_s() -> None:
    async with serving(local("Llama")) as generator:
        handle = tiny.model("Llama").register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
        with pytest.raises(ModelUnavailable, match="out of memory"):
            await generator.score(["text"], "", None)
        handle.remove()
        assert len(await generator.score(["text"], "", None)) == 1


async def test_scores_have_a_bound_and_a_model_that_cannot() -> None:
    async with serving(local("Llama"), score_queue=64) as generator:
        outcomes = await asyncio.gather(*(generator.score(["text"] * 40, "", None) for _ in range(2)), return_exceptions=True)
        assert [isinstance(outcome, Overloaded) for outcome in outcomes] == [False, True]
        assert len(await generator.score(["text"] * 40, "", None)) == 40
    async with serving(local("RecurrentGemma")) as generator:
        assert not generator.abilities.scores
        with pytest.raises(ScoresUnsupported):
            await generator.score(["text"], "", None)


# ---- no model, or none that can be had


async def test_no_model_says_what_to_set() -> None:
    with pytest.raises(ModelNotConfigured, match=r"NDML_LLM__CHAT__MODEL=.*NDML_LLM__CHAT__UPSTREAM_URL="):
        [piece async for piece in Unconfigured().generate(asked(), None)]
    with pytest.raises(ModelNotConfigured):
        await Unconfigured().score(["a"], "", None)
    assert all(Unconfigured().abilities.refusals.values())


def test_a_model_that_cannot_be_had_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"chat\.model=.*hub id"):
        LocalModel.load(ChatSection(model="nobody/no-such-model-here"))
    with pytest.raises(ModelUnavailable, match="does not exist"):
        LocalModel.load(ChatSection(model=str(tmp_path / "none")))
    with pytest.raises(ModelUnavailable, match=r"chat\.spread=true is for GPUs"):
        LocalModel.load(ChatSection(model=str(tmp_path), spread=True, device="cpu"))
