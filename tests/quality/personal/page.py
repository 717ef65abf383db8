"""The page, the picture and the list of the model's errors, from what a run found."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.perf.tables import Part, Row, Table
from tests.quality.personal.scoring import STAGES, WAYS, Outcome, Share, Way, losses, lost_at, right, share
from tests.quality.science.plots import BLUE, GREEN, GREY, ORANGE, save

NAMES: dict[Way, str] = {
    "memory": "with memory",
    "none": "no memory",
    "full": "the whole conversation in the prompt",
    "notes": "all messages in the prompt, as notes",
}
BINS = 10
_LISTED = 6  # examples of one kind of error
ABOVE = """# Personal memory

Written by `make eval-personal ARGS="--messages {messages}"`. {users} simulated users talk to one suite (`ndml.testing.Suite`: gateway,
memory nodes and llm service are processes) with the boxed model, {messages} messages each, in sessions of four to eight that take turns.
They tell facts in many phrasings, among small talk, orders and facts about others, correct some later, and ask in later sessions; every
message is a chat with learning on. All that the model knows of a user in a later session it has from memory.
{chats:,} chats, baselines among them, in {seconds:.0f} s.

![Share of questions answered right as a user's messages grow in number, with 95 % intervals](img/personal.png)

One phrasing of a correction is left out, "I switched to …": it does not say what it corrects, and a made-up value does not either.

**Right** means that the answer says the value that was told last, word for word, and no earlier one. Names and values are of the side that
the model's training never saw, and each belongs to one user, so that another's value shows, in an answer or in a trace that the model read.
Intervals are Wilson's, 95 %; questions of one user are related, so the true ones are somewhat wider.

The baselines are the same model asked the same question at the same moment. *No memory*: the session so far. *The whole
conversation*: all earlier turns before it, the oldest dropped where the model's 2,048 tokens do not hold them. *As notes*: all earlier
messages printed as memory is printed, for the model was trained to read notes and not long conversations. It never saw more than some
twenty at once: that both fall to nothing is this model's doing, and one with a long context would hold on for longer."""
BELOW = """## What is not claimed

The users are simulated: their statements and questions are made from the templates that the boxed model's text is made from, held-out ones
apart, and real people speak more freely. Days do not pass: all that is said in a run is said within minutes, so nothing is forgotten by
age. The small model is the weakest part; another model changes the numbers."""


def part(outcomes: Sequence[Outcome], leaks: Sequence[object]) -> Part:
    """Targets and tables."""
    told = [o for o in outcomes if o.question.told is not None]
    corrected = [o for o in told if o.question.kind == "corrected"]
    marked = [o for o in corrected if o.question.told and o.question.told.marked]
    untold = [o for o in outcomes if o.question.told is None]
    memory, none = right(told), right(told, "none")
    stale = [sum(o.verdict() == "out of date" for o in found) for found in (marked, corrected)]
    new, unknowing = right(marked), right(untold)
    targets = [
        Row("questions about what was told", str(memory), f"no memory {none}", "above no memory", memory.interval[0] > none.interval[1]),
        Row("corrections in words of change: the new value", str(new), "-", "95 %", new.value >= 0.95),
        Row("corrections in words of change: the old value", str(stale[0]), f"{len(marked)} questions", "0", stale[0] == 0),
        Row("all corrections: the old value", str(stale[1]), f"{len(corrected)} questions", "0", stale[1] == 0),
        Row("values of another user, answered or read", str(len(leaks)), f"{len(outcomes)} questions, all chats", "0", not leaks),
        Row("what was not told: says that it does not know", str(unknowing), "-", "90 %", unknowing.value >= 0.9),
    ]
    return Part(targets, [_by_way(outcomes), _by_phrasing(told), _corrections(corrected), _by_stage(told), _by_relation(told)])


def _by_way(outcomes: Sequence[Outcome]) -> Table:
    kinds = {
        "told, never corrected": [o for o in outcomes if o.question.kind == "fact"],
        "corrected": [o for o in outcomes if o.question.kind == "corrected"],
        "nobody told it": [o for o in outcomes if o.question.kind == "unknown"],
        "only another user told it": [o for o in outcomes if o.question.kind == "another's"],
    }
    ways = [way for way in WAYS if outcomes and way in outcomes[0].answers]
    rows = [(name, *(str(right(found, way)) for way in ways)) for name, found in kinds.items()]
    cited = share((o for o in outcomes if o.question.told and o.verdict() == "right"), lambda o: o.cited)
    note = f"""Right answers; for what the user has not told, "I don't know that yet". Of the right answers about what was told, {cited}
name the trace that says the value, and no other."""
    return Table("Baselines", note, ("questions about what was", *(NAMES[way] for way in ways)), rows)


def _by_phrasing(told: Sequence[Outcome]) -> Table:
    def cell(said: bool, asked: bool) -> str:
        return str(right(o for o in told if o.question.told and o.question.told.held_out is said and o.question.held_out is asked))

    rows = [(name, cell(said, False), cell(said, True)) for name, said in (("known statement", False), ("held-out statement", True))]
    note = "Right answers with memory, by whether the model's training saw the phrasing of the statement and of the question."
    return Table("Phrasings", note, ("", "known question", "held-out question"), rows)


def _corrections(corrected: Sequence[Outcome]) -> Table:
    rows = []
    for name, marked in (('with words of change ("I moved to …")', True), ("the new value alone, said anew", False)):
        found = [o for o in corrected if o.question.told and o.question.told.marked is marked]
        old = share(found, lambda o: o.verdict() == "out of date")
        both = share(found, lambda o: any(o.question.is_old(read.text) for read in o.read))
        rows.append((name, str(right(found)), str(old), str(both)))
    note = "Questions about facts that were corrected, by how the last correction was said."
    return Table("Corrections", note, ("correction", "new value", "old value", "an old value was among what the model read"), rows)


def _by_stage(told: Sequence[Outcome]) -> Table:
    lost = losses(told)
    rows = [(stage, str(count), f"{100 * count / max(1, len(told)):.1f} %") for stage, count in lost.items()]
    note = f"""Where the {sum(lost.values())} of {len(told)} answers that were not right lost what was told: the first stage past which it
did not come."""
    return Table("Losses by stage", note, ("stage", "questions", "share of all"), rows)


def _by_relation(told: Sequence[Outcome]) -> Table:
    found: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in told:
        found[outcome.question.fact.relation.name].append(outcome)
    rows = [(name, str(right(these))) for name, these in sorted(found.items(), key=lambda item: right(item[1]).value)]
    return Table("By kind of fact", "Right answers with memory.", ("kind", "right"), rows)


def curve(outcomes: Sequence[Outcome], messages: int) -> list[dict[str, Any]]:
    """For each way and tenth of the messages: how many a user had said before the question, on average, hits and questions."""
    points: list[dict[str, Any]] = []
    told = [o for o in outcomes if o.question.told is not None]
    for way in WAYS:
        for at in range(BINS):
            these = [o for o in told if way in o.answers and o.message.number * BINS // messages == at]
            if these:
                counted = right(these, way)
                seen = sum(o.message.number for o in these) / len(these)
                points.append({"way": way, "seen": seen, "hits": counted.hits, "of": counted.of})
    return points


def draw(points: Sequence[dict[str, Any]], path: Path) -> None:
    """The picture of a `curve`."""
    colours: dict[Way, str] = {"memory": BLUE, "none": GREY, "full": ORANGE, "notes": GREEN}

    def figure(pyplot: Any) -> Any:
        made, axes = pyplot.subplots(figsize=(8.4, 3.8), layout="constrained")
        for way in WAYS:
            shares = [(p["seen"], Share(p["hits"], p["of"])) for p in points if p["way"] == way]
            if shares:
                seen, values = [s for s, _ in shares], [v.value for _, v in shares]
                axes.plot(seen, values, color=colours[way], marker="o", markersize=3, label=NAMES[way])
                axes.fill_between(
                    seen, [v.interval[0] for _, v in shares], [v.interval[1] for _, v in shares], color=colours[way], alpha=0.15
                )
        axes.set(xlabel="messages that the user has said", ylabel="answered right", ylim=(-0.02, 1.02))
        made.legend(loc="outside lower center", ncols=4)
        return made

    importlib.import_module("matplotlib").use("Agg")
    save(figure, path)


def errors(outcomes: Sequence[Outcome]) -> str:
    """What was not answered right, by kind of fact and stage, the commonest first, each with examples of memory, question and answer."""
    kinds: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in (o for o in outcomes if o.verdict() != "right"):
        what = lost_at(outcome) if outcome.question.told else f"model: answers what was not told ({outcome.question.kind})"
        kinds[what, outcome.question.fact.relation.name].append(outcome)
    lines = [f"# Answers that were not right: {sum(map(len, kinds.values()))} of {len(outcomes)}", ""]
    for (what, relation), found in sorted(kinds.items(), key=lambda item: -len(item[1])):
        lines += [f"## {what}; {relation}: {len(found)}", ""]
        for outcome in found[:_LISTED]:
            lines += [*_example(outcome), ""]
    return "\n".join(lines)


def _example(outcome: Outcome) -> list[str]:
    question, told = outcome.question, outcome.question.told
    wanted = question.fact.answer().text if told else "says that it does not know"
    held = [name for name, is_so in (("statement", told is not None and told.held_out), ("question", question.held_out)) if is_so]
    lines = [f"    [{r.number}] {r.text}" for r in sorted(outcome.read, key=lambda r: (r.said, -r.number))]
    if told and outcome.traces and lost_at(outcome) not in STAGES[5:]:
        lines += [f"    told: {told.text}", *(f"    candidate: {text}" for text in outcome.traces.candidates)]
    lines.append(f"    user: {outcome.message.text}" + (f"   (held out: {', '.join(held)})" if held else ""))
    return [*lines, f"    answer: {outcome.answers['memory']}", f"    wanted: {wanted}"]
