"""Start NDML, let it remember two people's conversations, ask it questions, look at one request's trace, see what becomes of what is said
twice, changed, graded and summed up, chat with the model in the box, stop. `make demo` runs this.

Exit code 0 when every check held, 1 otherwise. Nothing is kept unless --data names a directory.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ndml.client import (
    Added,
    ConsolidationProgress,
    Feedback,
    Hit,
    LinkType,
    NdmlClient,
    NewMemory,
    RankingWeights,
    SearchMode,
    SearchResult,
    WriteDecision,
)
from ndml.errors import TraceNotFound
from ndml.testing import Span, Suite, SuiteOptions, TraceSink, render, tree

CONVERSATIONS = Path(__file__).parent.parent / "examples" / "conversations"
# Hits a question: evidence further down does not reach a prompt of usual size.
K = 10
# Turns a message: small enough that the bar moves, large enough that the model embeds them together.
CHUNK = 34
ROUNDS = 5
# A third person: what she says, and how many days ago.
FIRST = (
    (9, "Freya's dentist appointment is on 14 May at nine."),
    (8, "Every morning before work I swim forty lengths in the harbour pool."),
    (7, "My sister Inga lives in Bergen and breeds sheep."),
    (6, "I swim in the harbour pool every morning before work."),
    (5, "I never eat celery, it makes my throat itch."),
    (4, "Swam my lengths in the harbour pool before work this morning."),
    (3, "The attic still needs insulation before winter."),
)
AGAIN = (2, "The dentist appointment of Freya is at nine on 14 May.")
CHANGED = (1, "Freya's dentist appointment is on 21 May at nine.")
ASKED = "When is Freya's dentist appointment?"
# A fourth person: session, what she says or asks, what the answer must have in it.
TALK = (
    ("monday", "My cat is called Miso.", "Miso"),
    ("monday", "I live in Oslo.", "Oslo"),
    ("tuesday", "What is my cat called?", "Miso"),
    ("tuesday", "I moved to Lisbon.", "Lisbon"),
    ("friday", "Where do I live?", "Lisbon"),
    ("friday", "Where do I work?", "don't know"),
)
# Enough to part two memories of nearly the same cosine; servers leave it at 0 unless they are told.
STRENGTH_WEIGHT = 0.2
R = TypeVar("R")


@dataclass
class Checks:
    """What the demonstration claims and whether it held."""

    failed: list[str] = field(default_factory=list)

    def expect(self, held: bool, claim: str) -> None:
        console.print(f"  [green]✓[/] {claim}" if held else f"  [bold red]✗ {claim}[/]")
        if not held:
            self.failed.append(claim)


@dataclass(frozen=True)
class Answer:
    """A question and what came back."""

    user: str
    question: str
    evidence: list[str]
    hits: tuple[Hit, ...]

    @property
    def found(self) -> list[str]:
        return [hit.memory.metadata["turn"] for hit in self.hits]

    @property
    def rank(self) -> int | None:
        """Position of the best evidence, from 1."""
        return next((rank for rank, turn in enumerate(self.found, 1) if turn in self.evidence), None)

    def recall(self, k: int) -> float:
        return len(set(self.found[:k]) & set(self.evidence)) / len(self.evidence)


console = Console(width=None if sys.stdout.isatty() else 150)


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CONVERSATIONS / name).read_text("utf-8").splitlines()]


def timed(call: Callable[[], R]) -> tuple[R, float]:
    """Result and milliseconds."""
    started = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - started) * 1000


def heading(number: int, text: str) -> None:
    console.print(f"\n[bold cyan]{number}. {text}[/]")


def progress(what: str) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn(what),
        BarColumn(30),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console)


def start(suite: Suite) -> None:
    heading(1, f"Start {len(suite.names)} processes on loopback")
    with progress("ready") as bar:
        task = bar.add_task("", total=len(suite.names))
        suite.start(on_ready=lambda name: bar.update(task, advance=1, description=name))
        bar.update(task, description="all healthy")


def remember(client: NdmlClient, checks: Checks) -> dict[str, str]:
    """Write every turn; trace id by turn id."""
    turns = read("conversations.jsonl")
    users = sorted({turn["user"] for turn in turns})
    heading(2, f"Remember {len(turns)} turns of {len(users)} people ({', '.join(users)}) through BatchAddMemories")
    stored: dict[str, str] = {}
    started = time.perf_counter()
    with progress("turns") as bar:
        task = bar.add_task("", total=len(turns))
        for chunk in (turns[first : first + CHUNK] for first in range(0, len(turns), CHUNK)):
            added = client.add_many([as_memory(turn) for turn in chunk], request_id=f"demo/{chunk[0]['id']}")
            stored.update((turn["id"], result.trace_id) for turn, result in zip(chunk, added, strict=True))
            bar.update(task, advance=len(chunk))
    seconds = time.perf_counter() - started
    console.print(
        f"  {seconds:.2f} s, {len(turns) / seconds:.0f} turns/s: embedded by the llm service, on disk and findable before each answer"
    )
    counts = {user: client.stats(user=user).traces for user in users}
    wanted = {user: sum(turn["user"] == user for turn in turns) for user in users}
    checks.expect(counts == wanted, f"every turn is stored once: {counts}")
    return stored


def as_memory(turn: dict[str, Any]) -> NewMemory:
    return NewMemory(
        turn["text"],
        speaker=turn["speaker"],
        said_at=datetime.fromisoformat(turn["said_at"]),
        metadata={"turn": turn["id"]},
        user=turn["user"],
        session=turn["session"],
    )


def ask(client: NdmlClient, checks: Checks) -> list[Answer]:
    questions = read("questions.jsonl")
    heading(3, f"Ask {len(questions)} questions through SearchMemories")
    answers = []
    for asked in questions:
        result = client.search(asked["question"], user=asked["user"], k=K, explain=True)
        answers.append(Answer(asked["user"], asked["question"], asked["evidence"], result.hits))
    console.print(answer_table(answers))
    recall = {k: statistics.fmean(answer.recall(k) for answer in answers) for k in (1, 5, K)}
    console.print("  evidence recall, mean over the questions: " + ", ".join(f"R@{k} {100 * value:.0f} %" for k, value in recall.items()))
    checks.expect(all(len(answer.hits) == K for answer in answers), f"every question got {K} hits")
    checks.expect(sum(answer.rank is not None for answer in answers) > len(answers) / 2, "most questions found their evidence")
    explained = all(abs(sum(hit.signals.values()) - hit.score) < 1e-4 for answer in answers for hit in answer.hits)
    checks.expect(explained, "every score is the sum of the signals that explain it")
    return answers


def answer_table(answers: list[Answer]) -> Table:
    table = Table(show_lines=True, caption="rank: position of the best evidence turn, reason: each signal's share of the score")
    for name, options in (
        ("user", {}),
        ("question", {"ratio": 3}),
        ("recalled first", {"ratio": 5}),
        ("said", {}),
        ("score", {}),
        ("reason", {}),
        ("rank", {}),
    ):
        table.add_column(name, overflow="fold", **options)  # type: ignore[arg-type]
    for answer in answers:
        top = answer.hits[0]
        said = f"{top.memory.speaker}\n{top.memory.said_at:%Y-%m-%d}"
        reason = "\n".join(f"{signal} {share:+.2f}" for signal, share in top.signals.items())
        rank = f"[green]{answer.rank}[/]" if answer.rank else f"[yellow]> {K}[/]"
        table.add_row(answer.user, answer.question, top.memory.text, said, f"{top.score:.3f}", reason, rank)
    return table


def keep_apart(client: NdmlClient, answers: list[Answer], stored: dict[str, str], checks: Checks) -> None:
    heading(4, "Ask each person's questions as the other one")
    users = sorted({answer.user for answer in answers})
    for asker, owner in zip(users, reversed(users), strict=True):
        theirs = {trace_id for turn, trace_id in stored.items() if turn.startswith(f"{owner}-")}
        questions = [answer.question for answer in answers if answer.user == owner]
        results = [client.search(question, user=asker, k=K) for question in questions]
        seen = [hit.memory.trace_id for result in results for hit in result]
        leaked = theirs & set(seen)
        claim = f"{asker} asks {len(questions)} questions of {owner}: {len(seen)} hits, {len(leaked)} of {owner}'s {len(theirs)} traces"
        checks.expect(bool(seen) and not leaked, claim)
        visible = sum(readable(client, trace_id, asker) for trace_id in sorted(theirs)[:20])
        checks.expect(visible == 0, f"{asker} reads 20 of {owner}'s traces by their ids: {visible} shown")


def readable(client: NdmlClient, trace_id: str, user: str) -> bool:
    try:
        client.get(trace_id, user=user)
    except TraceNotFound:
        return False
    return True


def show_trace(client: NdmlClient, sink: TraceSink, checks: Checks) -> None:
    heading(5, "One request across the services")
    trace_id = secrets.token_hex(16)
    question = "Which animals does she take care of at work?"
    client.search(question, user="nadia", k=5, headers={"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"})
    spans = sink.wait_for(trace_id, complete)
    for line in render(tree(spans)):
        console.print("  " + line, highlight=False, soft_wrap=True)
    checks.expect(complete(spans), f"trace {trace_id} spans gateway, llm and memory node")


def complete(spans: list[Span]) -> bool:
    """The trace of a search has arrived: three services, and one root."""
    return {"ndml-gateway", "ndml-llm", "ndml-memory-node"} <= {span.service for span in spans} and len(tree(spans)) == 1


def live_on(client: NdmlClient, checks: Checks) -> None:
    """What the memory makes of what it is told, beyond keeping it."""
    heading(6, "A third person repeats herself, changes a fact, grades an answer; then her memory is consolidated")
    memory = client.scoped(user="solveig", session="week")
    fact, change = tell(memory, checks)
    grade(memory, old=fact, new=change, checks=checks)
    consolidate(memory, checks)


def tell(memory: NdmlClient, checks: Checks) -> tuple[str, str]:
    """Trace ids of the fact and of its change."""
    now = datetime.now(UTC)

    def said(days: int, text: str) -> NewMemory:
        return NewMemory(text, speaker="Solveig", said_at=now - timedelta(days=days))

    first = memory.add_many([said(*one) for one in FIRST])[0]
    # One call each: a repetition strengthens what is stored already.
    again = memory.add_many([said(*AGAIN)])[0]
    dropped = memory.add_many([said(*AGAIN)], deduplicate=True)[0]
    changed = memory.add_many([said(*CHANGED)])[0]
    told = ((FIRST[0][1], first), (AGAIN[1], again), (f"{AGAIN[1]} (deduplicate)", dropped), (CHANGED[1], changed))
    console.print(gate_table(told))
    decisions = [added.gate.decision for _, added in told if added.gate is not None]
    wanted = [WriteDecision.NOVEL, WriteDecision.DUPLICATE, WriteDecision.DUPLICATE, WriteDecision.UPDATE]
    checks.expect(decisions == wanted, "the gate finds the repetition and the change")
    stored = memory.stats().traces
    kept = not again.deduplicated and dropped.deduplicated and stored == len(FIRST) + 2
    checks.expect(kept, f"what is said twice is kept twice, unless the caller asks for deduplication: {stored} traces")
    restated = [event.why for event in memory.get(first.trace_id, include_history=True).history if event.kind == "restated"]
    checks.expect(bool(restated), f"the first one's history says so: {'; '.join(restated)}")
    return first.trace_id, changed.trace_id


def gate_table(told: tuple[tuple[str, Added], ...]) -> Table:
    table = Table("said", "decision", "stored", "why", show_lines=True)
    for text, added in told:
        if added.gate is not None:
            table.add_row(text, added.gate.decision, "no" if added.deduplicated else "yes", added.gate.reason)
    return table


def grade(memory: NdmlClient, old: str, new: str, checks: Checks) -> None:
    """The new appointment was the right answer, the old one was wrong."""
    before = strengths(memory, old, new)
    done = memory.reinforce([Feedback(new, 1.0), Feedback(old, -1.0)])
    after = strengths(memory, old, new)
    table = Table("graded", "grade", "strength before", "after", "credit after", "stability after, days")
    for trace_id, mark in ((new, "+1, right"), (old, "-1, out of date")):
        strength = memory.get(trace_id, include_strength=True).strength
        assert strength is not None
        text, shown = memory.get(trace_id).text, (f"{before[trace_id]:.3f}", f"{after[trace_id]:.3f}")
        table.add_row(text, mark, *shown, f"{strength.credit:.2f}", f"{strength.stability_days:.2f}")
    console.print(table)
    checks.expect(after[new] > before[new] and after[old] < before[old], "praise makes stronger, blame weaker")
    checks.expect(done.credited > 0, f"{done.credited} shares of credit went to what was said around the two")
    hits = memory.search(ASKED, k=1, mode=SearchMode.DENSE, weights=RankingWeights(strength=STRENGTH_WEIGHT), explain=True)
    explained = ", ".join(f"{signal} {share:+.3f}" for signal, share in hits[0].signals.items())
    checks.expect(hits[0].memory.trace_id == new, f'"{ASKED}", by similarity, strength counted: {hits[0].memory.text} ({explained})')


def strengths(memory: NdmlClient, *trace_ids: str) -> dict[str, float]:
    found = {trace_id: memory.get(trace_id, include_strength=True).strength for trace_id in trace_ids}
    return {trace_id: strength.strength for trace_id, strength in found.items() if strength is not None}


def consolidate(memory: NdmlClient, checks: Checks) -> None:
    stored = memory.stats().traces
    last, made = ConsolidationProgress(), list[str]()
    with progress("clusters") as bar, memory.consolidate() as steps:
        task = bar.add_task("", total=None)
        for last in steps:
            made += last.semantic_trace_ids
            bar.update(task, completed=last.clusters_done, total=last.clusters_total, description=f"{last.merged} merged")
    checks.expect(
        (last.merged, last.rejected) == (1, 1), "one cluster became a semantic trace; the appointments contradict each other: refused"
    )
    for trace_id in made:
        semantic = memory.get(trace_id)
        sources = [link.trace_id for link in semantic.links if link.type == LinkType.DERIVED_FROM]
        console.print(f"  [bold]{semantic.kind}[/] {trace_id}: " + " / ".join(semantic.text.splitlines()), highlight=False, soft_wrap=True)
        for source in sources:
            console.print(f"    from {source}: {memory.get(source).text}", highlight=False)
    checks.expect(memory.stats().traces == stored + len(made), "its sources are still there, and deleting it would take the merge back")


def talk(client: NdmlClient, checks: Checks) -> None:
    """Nothing is written by hand here: what she says becomes memory, and later sessions know it."""
    heading(7, "A fourth person chats, over three days, with the model in the box")
    table = Table("day", "she", "the model", "from", show_lines=True)
    missed = 0
    for day, words, expected in TALK:
        stream = client.chat(words, user="ola", session=day, learning="wait")
        answer = "".join(stream)
        missed += expected not in answer
        table.add_row(day, words, answer, "\n".join(f"[{cited.number}] {cited.text}" for cited in stream.citations if cited.mentioned))
    console.print(table)
    checks.expect(not missed, "what was said on one day is known on another, and what changed is known as it is now")
    checks.expect(client.stats(user="ola").traces == 3, "three statements became memories; questions did not")


def measure(client: NdmlClient) -> None:
    heading(8, "Times, client included")
    vector = [1.0] + [0.0] * (client.stats(user="nadia").dimension - 1)
    table = Table("call", "calls", "median", "slowest")
    for name, calls in timings(client, vector):
        table.add_row(name, str(len(calls)), f"{statistics.median(calls):.2f} ms", f"{max(calls):.2f} ms")
    console.print(table)


def timings(client: NdmlClient, vector: list[float]) -> Iterator[tuple[str, list[float]]]:
    """Milliseconds by kind of call. Adds go to a third user."""
    questions = [asked["question"] for asked in read("questions.jsonl")]

    def search(**query: Any) -> SearchResult:
        return client.search(user="nadia", k=K, **query)

    fresh = [f"{question} Please." for question in questions]
    yield "add, text embedded", [timed(lambda text=text: client.add(text, user="visitor"))[1] for text in fresh]  # type: ignore[misc]
    yield "add, vector given", [timed(lambda: client.add("A note.", embedding=vector, user="visitor"))[1] for _ in range(20)]
    unseen = [f"{question} Do you know?" for question in questions]
    yield "search, text embedded", [timed(lambda text=text: search(text=text))[1] for text in unseen]  # type: ignore[misc]
    yield "search, text seen before", [timed(lambda text=text: search(text=text))[1] for text in unseen * ROUNDS]  # type: ignore[misc]
    yield "search, vector given", [timed(lambda: search(embedding=vector))[1] for _ in range(100)]


def tell_all(client: NdmlClient, checks: Checks, sink: TraceSink | None) -> None:
    """Everything between start and stop; without `sink` nobody gathers the spans, and no trace is shown."""
    stored = remember(client, checks)
    answers = ask(client, checks)
    keep_apart(client, answers, stored, checks)
    if sink is not None:
        show_trace(client, sink, checks)
    live_on(client, checks)
    talk(client, checks)
    measure(client)


def demonstrate(data_dir: Path, checks: Checks) -> None:
    with TraceSink() as sink:
        suite = Suite(SuiteOptions(data_dir=data_dir, otlp_endpoint=sink.endpoint))
        try:
            start(suite)
            with NdmlClient(suite.grpc_address, timeout_s=30.0) as client:
                tell_all(client, checks, sink)
            heading(9, "Stop everything")
        finally:
            codes, milliseconds = timed(suite.stop)
        drained = all(code == 0 for code in codes.values())
        checks.expect(drained, f"{len(codes)} processes drained in {milliseconds / 1000:.1f} s" if drained else f"exit codes {codes}")


def demonstrate_at(address: str, tenant: str, checks: Checks) -> None:
    """The same with a suite that runs already, wherever it runs."""
    heading(1, f"A gateway at {address}, tenant {tenant}")
    with NdmlClient(address, tenant=tenant, timeout_s=30.0) as client:
        tell_all(client, checks, None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo", description=(__doc__ or "").splitlines()[0])
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--data", type=Path, help="directory to keep the memories in; default: a temporary one")
    where.add_argument("--address", metavar="HOST:PORT", help="gateway of a suite that runs already: nothing is started, no trace is shown")
    parser.add_argument("--tenant", help="with --address: a tenant that has no memories yet; default: one of this run's own")
    options = parser.parse_args()
    checks = Checks()
    started = time.perf_counter()
    if options.address:
        demonstrate_at(options.address, options.tenant or f"demo-{secrets.token_hex(4)}", checks)
    else:
        with tempfile.TemporaryDirectory(prefix="ndml-demo-") as temporary:
            demonstrate(options.data or Path(temporary), checks)
    console.print(f"\n{time.perf_counter() - started:.0f} s in all.")
    for claim in checks.failed:
        console.print(f"[bold red]failed: {claim}[/]")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
