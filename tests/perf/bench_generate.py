"""Chats a second of a local model: the llm service's generator beside transformers' own generate, in one run.

    python tests/perf/bench_generate.py [--model DIR] [--seconds 5] [--json FILE]

Answers of 16 tokens to prompts of some 150, memory included. Without --model: ndml-tiny, or a network of its size with random weights
where its weights are not installed (speed does not know the difference).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from ndml import tiny
from ndml.fusion.readout import Entry, MemoryReadout
from services.llm.generator import LocalGenerator
from services.llm.local_model import LocalModel
from services.llm.models import torch_threads
from services.llm.ports import Ask, Finish, Message, Sampling
from services.llm.settings import ChatSection

NEW_TOKENS, CALLERS = 16, (1, 16, 64)
FACTS = ("I live in {}.", "My cat is called {}.", "My brother is {}.", "{} is allergic to nuts.", "I work with {} on Mondays.")
SYLLABLES = "ba ri to mel an sul ko fi ne dor lu vi sa pe ti gor".split()  # noqa: SIM905
_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def memory(size: int, number: int) -> MemoryReadout:
    """Some facts, each with its day and speaker; no two numbers share one, so that nothing of a prompt was read before."""
    source = random.Random(number)
    names = ["".join(source.choices(SYLLABLES, k=3)).capitalize() for _ in range(size)]
    facts = [FACTS[i % len(FACTS)].format(name) for i, name in enumerate(names)]
    return MemoryReadout(tuple(Entry(i, fact, "Ana", _DAY + timedelta(days=i)) for i, fact in enumerate(facts, 1)))


def ask(number: int, entries: int, system: str = "") -> Ask:
    """Prompts differ, as those of different users do, but for a system text where one is given."""
    own = (Message("system", system),) if system else ()
    question = Message("user", f"Hello, it is me, caller {number}. What is the name of my cat?")
    return Ask((*own, question), Sampling(NEW_TOKENS), memory(entries, number))


def stand_in(path: Path) -> Path:
    """A network of the boxed model's size."""
    from ndml.tiny.network import Size, build
    from tests.unit.llm.tiny_models import CHATML, byte_tokenizer

    tokenizer = byte_tokenizer(CHATML)
    torch.manual_seed(1)
    build(Size(2048), 0, tokenizer.eos_token_id, tokenizer.pad_token_id).eval().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def entries_for(local: LocalModel, tokens: int = 150) -> int:
    """So many facts that a prompt has about `tokens`."""
    sizes = [len(local.prepare(ask(7, n)).plan.tokens) for n in range(1, 40)]
    return 1 + min(range(len(sizes)), key=lambda n: abs(sizes[n] - tokens))


async def serve(generator: LocalGenerator, callers: int, seconds: float, entries: int, system: str = "") -> dict[str, float]:
    """Callers that ask again as soon as they are answered."""
    first: list[float] = []
    done, stop = 0, time.perf_counter() + seconds

    async def caller(number: int) -> None:
        nonlocal done
        turn = number
        while time.perf_counter() < stop:
            began, said = time.perf_counter(), False
            turn += callers
            async for piece in generator.generate(ask(turn, entries, system), None):
                if not said and not isinstance(piece, Finish):
                    said = True
                    first.append(time.perf_counter() - began)
            done += 1

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller(n) for n in range(callers)))
    took = time.perf_counter() - began
    ranked = sorted(first)
    return {
        "chats_per_s": done / took,
        "cpu_ms_per_chat": (time.process_time() - cpu) * 1e3 / done,
        "first_token_p50_ms": statistics.median(ranked) * 1e3,
        "first_token_p99_ms": ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))] * 1e3,
    }


def naive(local: LocalModel, seconds: float, entries: int, batch: int) -> dict[str, float]:
    """transformers' generate: one by one, or in batches padded on the left that begin and end together."""
    done, began, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        plans = [local.prepare(ask(done + n, entries)).plan for n in range(batch)]
        with local.fusion.for_generate(plans) as given, torch.inference_mode():
            out = local.network.generate(**given, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0, eos_token_id=None)
        [local.decode(row[-NEW_TOKENS:].tolist()) for row in out]
        done += batch
    took = time.perf_counter() - began
    return {"chats_per_s": done / took, "cpu_ms_per_chat": (time.process_time() - cpu) * 1e3 / done}


async def measure(path: str, seconds: float, threads: int) -> dict[str, dict[str, float]]:
    settings = ChatSection(model=path, torch_threads=threads)
    torch.set_num_threads(threads)
    local = LocalModel.load(settings)
    local.ends = frozenset()  # every answer has its 16 tokens
    generator = LocalGenerator(settings, lambda: local, torch_threads(threads))
    await generator.start()
    entries = entries_for(local)
    print(f"{local.name}: {sum(p.numel() for p in local.network.parameters()):,} parameters, {threads} threads, ", end="")
    print(f"prompt {len(local.prepare(ask(7, entries)).plan.tokens)} tokens with {entries} entries, answer {NEW_TOKENS}")
    await serve(generator, 16, 1.0, entries)
    found = {f"service, {callers} callers": await serve(generator, callers, seconds, entries) for callers in CALLERS}
    found["service, 1 caller, no memory"] = await serve(generator, 1, seconds, 0)
    await generator.stop()
    return found | {f"generate, {batch} at once": naive(local, seconds, entries, batch) for batch in (1, 16, 64)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        boxed = (tiny.path() / "config.json").is_file()
        path = options.model or (tiny.NAME if boxed else str(stand_in(Path(folder) / "stand-in")))
        found = asyncio.run(measure(path, options.seconds, options.threads))
    for name, values in found.items():
        print(f"{name:32}" + "  ".join(f"{key} {value:.1f}" for key, value in values.items()))
    best, single = found["service, 64 callers"]["chats_per_s"], found["generate, 1 at once"]["chats_per_s"]
    print(f"64 callers against naive generate one by one: {best / single:.1f} times")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
