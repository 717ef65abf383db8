"""Chats through the whole suite with the boxed model, beside the bare model in the same run: `make bench-chat`, or

    python -m tests.perf.bench_chat [--parts overhead load naive shared floor] [--seconds 5] [--rounds 3] [--markdown FILE] [--json FILE]

overhead: one caller asks four doors in turn. load: 1, 16 and 64 callers. naive: the llm service's batches and transformers' own generate,
in this process. shared: a system text that all users share, kept and not kept. floor: the models' passes alone. Four minutes.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read once, when numpy is imported; the services have settings
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import asyncio
import itertools
import json
import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import torch

from ndml import tiny
from ndml.internal.v1 import llm_pb2
from ndml.testing import Suite, SuiteOptions
from ndml.testing.layout import Role
from ndml.v1 import chat_pb2
from services.llm.generator import LocalGenerator
from services.llm.local_model import LocalModel
from services.llm.models import torch_threads
from services.llm.settings import ChatSection
from tests.perf import bench_generate
from tests.perf.chat_floor import floor
from tests.perf.chat_load import (
    CHAT,
    GENERATE,
    NEW_TOKENS,
    Door,
    People,
    Talked,
    by_turns,
    chat_request,
    generate_request,
    p50,
    p99,
    together,
)
from tests.perf.tables import Part, Row, Table, as_json, as_markdown
from tests.unit.llm.tiny_models import CHATML, save_endless

PARTS = ("overhead", "load", "naive", "shared", "floor")
CALLERS = (1, 16, 64)
_PROMPT_TOKENS = 150
_WARM_S = 2.0
_FACTS = 6  # of each user's own, in the shared part
_SYSTEM = "You are the assistant of a public library. Answer in two sentences, name the shelf, and never promise a book that is lent. " * 24


class Bench:
    """A running suite whose users have told something, and the four doors that are compared."""

    def __init__(self, suite: Suite, people: People, seconds: float, rounds: int) -> None:
        self.suite, self.people, self.seconds, self.rounds = suite, people, seconds, rounds
        self._numbers = itertools.count(0, 1_000_000)  # of the first question of each run: none comes twice
        people.tell(suite.grpc_address)
        self.k = self._k()
        recalled = people.recalled(suite.grpc_address, self.k)
        gateway, llm = suite.grpc_address, next(spec.address for spec in suite.layout.processes if spec.role == "llm")
        answer, part = chat_pb2.ChatResponse, llm_pb2.GenerateResponse
        ask, user = people.question, people.user
        self.chat = Door("chat", gateway, CHAT, lambda n: chat_request(user(n), ask(n), self.k), answer)
        self.without = Door("chat, recall_k 0", gateway, CHAT, lambda n: chat_request(user(n), ask(n), 0), answer)
        told = [people.entries(n, places) for n, places in enumerate(recalled)]
        self.same = Door("model, same memory", llm, GENERATE, lambda n: generate_request(ask(n), told[n % people.count]), part)
        self.bare = Door("model, no memory", llm, GENERATE, lambda n: generate_request(ask(n), ()), part)
        asyncio.run(together(self.chat, 16, _WARM_S, next(self._numbers)))

    def _k(self) -> int:
        """Traces that make a prompt of about 150 tokens."""
        sizes = {}
        for k in range(4, 11):
            door = Door(
                "k",
                self.suite.grpc_address,
                CHAT,
                lambda n, k=k: chat_request(self.people.user(n), self.people.question(n), k),
                chat_pb2.ChatResponse,
            )
            [talked] = asyncio.run(by_turns([door], 8, next(self._numbers)))
            sizes[k] = statistics.mean(talked.prompt_tokens)
        return min(sizes, key=lambda k: abs(sizes[k] - _PROMPT_TOKENS))

    def overhead(self) -> Part:
        """One caller, each door in turn."""
        doors = [self.chat, self.same, self.without, self.bare]
        turns = round(self.seconds * self.rounds * 4)
        asyncio.run(by_turns(doors, 10, next(self._numbers)))
        chat, same, *_ = found = asyncio.run(by_turns(doors, turns, next(self._numbers)))
        over = p50(chat.whole_ms) / p50(same.whole_ms) - 1
        target = Row(
            "chat over the bare model, same prompt, 1 caller, whole answer",
            f"p50 {p50(chat.whole_ms):.1f} ms",
            f"Generate on llm p50 {p50(same.whole_ms):.1f} ms, {over:+.0%}",
            "<= 15 % more",
            over <= 0.15,
        )
        rows = [
            (
                door.name,
                f"{statistics.mean(talked.prompt_tokens):.0f}",
                f"{p50(talked.first_ms):.1f}",
                f"{p50(talked.whole_ms):.1f}",
                f"{p50(chat.first_ms) / p50(talked.first_ms) - 1:+.0%}",
                f"{p50(chat.whole_ms) / p50(talked.whole_ms) - 1:+.0%}",
            )
            for door, talked in zip(doors, found, strict=True)
        ]
        head = ("who answers", "prompt tokens", "first token p50, ms", "whole answer p50, ms", "chat over it: first", "whole")
        return Part([target], [Table("What memory costs one caller", _OVERHEAD.format(turns=turns, k=self.k), head, rows)])

    def load(self) -> Part:
        """More and more callers; the doors alternate."""
        doors = [self.chat, self.same, self.bare]
        rows: list[tuple[str, ...]] = []
        found: dict[tuple[int, str], Talked] = {}
        shares = {}
        for callers in CALLERS:
            runs: dict[str, list[Talked]] = {door.name: [] for door in doors}
            for _ in range(self.rounds):
                for door in doors:
                    before = self._cpu()
                    talked = asyncio.run(together(door, callers, self.seconds, next(self._numbers)))
                    runs[door.name].append(talked)
                    if door is self.chat:
                        shares[callers] = {who: (spent - before[who]) * 1e3 / len(talked.whole_ms) for who, spent in self._cpu().items()}
            for door in doors:
                talked = found[callers, door.name] = sorted(runs[door.name], key=lambda run: run.per_second)[self.rounds // 2]
                rows.append((str(callers), door.name, *_figures(talked)))
        best, same = found[64, "chat"], found[64, "model, same memory"]
        target = Row(
            f"chats of {NEW_TOKENS} tokens, 64 callers",
            f"{best.per_second:.0f}/s, first token p50 {p50(best.first_ms):.0f} ms, p99 {p99(best.first_ms):.0f} ms",
            f"Generate on llm, same prompt: {same.per_second:.0f}/s",
            ">= 100/s",
            best.per_second >= 100,
        )
        head = ("callers", "who answers", "answers/s", "first token p50, ms", "p99", "whole answer p50, ms", "p99", "prompt tokens")
        spent = [(str(callers), *(f"{ms:.1f}" for ms in share.values())) for callers, share in shares.items()]
        names = ("callers", *(f"{who}, ms" for who in shares[64]))
        return Part([target], [Table("Callers", _LOAD.format(k=self.k), head, rows), Table("Where the time goes", _SPENT, names, spent)])

    def _cpu(self) -> dict[str, float]:
        """CPU seconds of each process so far."""
        times = {name: psutil.Process(self.suite.process(name).pid).cpu_times() for name in self.suite.names}
        mine = psutil.Process().cpu_times()
        return {name: spent.user + spent.system for name, spent in times.items()} | {"load client": mine.user + mine.system}


def _figures(talked: Talked) -> tuple[str, ...]:
    times = (p50(talked.first_ms), p99(talked.first_ms), p50(talked.whole_ms), p99(talked.whole_ms))
    return (f"{talked.per_second:.0f}", *(f"{ms:.1f}" for ms in times), f"{statistics.mean(talked.prompt_tokens):.0f}")


def naive(model: Path, seconds: float, rounds: int) -> Part:
    """The generator of the llm service at 64 callers, and transformers' generate one by one and 64 at once, by turns."""
    torch.set_num_threads(1)
    settings = ChatSection(model=str(model), prefix_bytes=0)
    local = LocalModel.load(settings)
    entries = bench_generate.entries_for(local)

    async def served() -> float:
        generator = LocalGenerator(settings, lambda: local, torch_threads(1))
        await generator.start()
        await bench_generate.serve(generator, 64, 1.0, entries)
        found = await bench_generate.serve(generator, 64, seconds, entries)
        await generator.stop()
        return found["chats_per_s"]

    runs: dict[str, list[float]] = {"ours": [], "one": [], "many": []}
    for _ in range(rounds):
        runs["ours"].append(asyncio.run(served()))
        runs["one"].append(bench_generate.naive(local, seconds, entries, 1)["chats_per_s"])
        runs["many"].append(bench_generate.naive(local, seconds, entries, 64)["chats_per_s"])
    ours, one, many = (statistics.median(runs[name]) for name in ("ours", "one", "many"))
    target = Row(
        "batches of the llm service, 64 callers, in one process",
        f"{ours:.0f}/s",
        f"generate one by one {one:.0f}/s, ratio {ours / one:.1f}; of 64 that begin and end together {many:.0f}/s, ratio {ours / many:.2f}",
        ">= 2 x one by one",
        ours >= 2 * one,
    )
    return Part([target])


def shared(folder: Path, seconds: float, rounds: int) -> Part:
    """First token of one caller whose users share a system text and not a memory: its beginning kept, and read each time; by turns."""
    torch.set_num_threads(1)
    model = save_endless(folder)  # the boxed model, with a template that shows it system texts, which its own leaves out
    config = model / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": CHATML}))
    runs: dict[int, list[float]] = {0: [], ChatSection().prefix_bytes: []}
    tokens: list[int] = []

    async def first_ms(kept: int) -> float:
        nonlocal tokens
        settings = ChatSection(model=str(model), prefix_bytes=kept)
        local = LocalModel.load(settings)
        tokens = [len(local.prepare(bench_generate.ask(7, _FACTS, text)).plan.tokens) for text in (_SYSTEM, "")]
        generator = LocalGenerator(settings, lambda: local, torch_threads(1))
        await generator.start()
        await bench_generate.serve(generator, 1, 1.0, _FACTS, _SYSTEM)
        found = await bench_generate.serve(generator, 1, seconds, _FACTS, _SYSTEM)
        await generator.stop()
        return found["first_token_p50_ms"]

    for _ in range(rounds):
        for kept, found in runs.items():
            found.append(asyncio.run(first_ms(kept)))
    anew, ours = (statistics.median(found) for found in runs.values())
    target = Row(
        f"first token, prompt of {tokens[0]} tokens, {tokens[0] - tokens[1]} of them a system text that all users share",
        f"{ours:.1f} ms",
        f"read each time (`chat.prefix_bytes` 0) {anew:.1f} ms, ratio {ours / anew:.2f}",
        "<= 0.7 x read each time",
        ours <= 0.7 * anew,
    )
    return Part([target])


def run(options: argparse.Namespace) -> list[Part]:
    """The parts asked for, in order; prints what has a target as it comes."""
    parts: list[Part] = []
    with tempfile.TemporaryDirectory() as folder:
        model = save_endless(Path(folder) / tiny.NAME)
        settings: dict[Role, dict[str, str]] = {"llm": {"CHAT__MODEL": str(model), "CHAT__PREFIX_BYTES": "0"}}
        suite_options = SuiteOptions(data_dir=Path(folder) / "data", memory_nodes=1, consensus_nodes=1, settings=settings)
        if {"overhead", "load"} & set(options.parts):
            with Suite(suite_options) as suite:
                bench = Bench(suite, People(options.users), options.seconds, options.rounds)
                work: Sequence[tuple[str, Callable[[], Part]]] = (("overhead", bench.overhead), ("load", bench.load))
                parts += [_told(part()) for name, part in work if name in options.parts]
        if "naive" in options.parts:
            parts.append(_told(naive(model, options.seconds, options.rounds)))
        if "shared" in options.parts:
            parts.append(_told(shared(Path(folder) / "stand-in", options.seconds, options.rounds)))
        if "floor" in options.parts:
            parts.append(floor(model, _PROMPT_TOKENS, psutil.cpu_count() or 1, 4 * options.rounds + 1))
    return parts


def _told(part: Part) -> Part:
    for row in part.targets:
        print(f"{'met   ' if row.met else 'MISSED'} {row.path}: {row.ours}   [{row.reference}]   target {row.target}", flush=True)
    return part


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one load run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, alternating")
    parser.add_argument("--users", type=int, default=128, help="who told 12 facts each")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    parts = run(options)
    if options.json:
        machine = {"cores": psutil.cpu_count(), "python": platform.python_version(), "rounds": options.rounds, "seconds": options.seconds}
        options.json.write_text(json.dumps(as_json(parts, machine), indent=1) + "\n")
    page = as_markdown(parts, _ABOVE.format(cores=psutil.cpu_count(), rounds=options.rounds, seconds=options.seconds, new=NEW_TOKENS))
    if options.markdown:
        options.markdown.write_text(page)
    else:
        print(page)


_ABOVE = """# Chats

Written by `make bench-chat` ({cores} cores for gateway, memory node, consensus node, llm service and the load client, shared with
whatever else runs; medians of {rounds} runs of {seconds:g} s that alternate). Model: ndml-tiny, float32, one thread. Every answer has
{new} tokens: the token that ends answers is switched off, and nothing else. No two questions are alike and nothing of a prompt was
read before (`chat.prefix_bytes` 0), so each chat embeds its question, searches, and reads its whole prompt. Learning is on, as always; a
question teaches nothing. In the row of the shared system text alone beginnings are kept: what is remembered stands behind the
caller's own system text, so users share that text's keys and values (with memory in front of it, as it was before, the ratio was 1.11)."""

_OVERHEAD = """One caller asks all four in turn, {turns} times. *chat*: ChatService with recall_k {k}. *model, same memory*: Generate on
the llm service with {k} recalled entries in the request: a prompt of the same length, nobody recalls, no gateway; what is left is what
the memory layer costs. *chat, recall_k 0* and *model, no memory*: a prompt of the question alone, so that the difference to *chat*
holds what the model takes for reading the longer prompt too."""

_LOAD = """As many callers as the row says, each asking again as soon as it is answered. *chat* recalls {k} traces. The two others ask
the llm service itself, whose embedding is idle then."""

_SPENT = """CPU milliseconds of each process for a chat."""


if __name__ == "__main__":
    main()
