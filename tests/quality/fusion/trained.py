"""Readers trained for the boxed model by `ndml train`, then asked through what serves: the llm service's generator with `chat.trained`."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random
from textwrap import fill
from typing import Any

from ndml import tiny
from ndml.fusion.readout import Entry, MemoryReadout
from ndml.training.data import Ask, Episode
from ndml.training.models import Embed, embedder, with_vectors
from services.llm import ports
from services.llm.generator import LocalGenerator
from services.llm.local_model import LocalModel
from services.llm.models import torch_threads
from services.llm.settings import ChatSection
from tests.perf.tables import Part, Row, Table
from tests.quality.fusion.facts import WIDTH, learned


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


THINGS = _words(
    "boat horse cat ship car bike dog bird tent robot goat pony parrot van train balloon guitar plant rabbit turtle canoe kite drone flute"
)
REAL = _words("Rex Bibi Mia Kai Miso Figo Anna Leo Otto Lily Nala Coco Tom Zoe Max Luna")
OTHERS = _words("Bruno Daisy Felix Gina Hugo Iris Jack Kira Loki Molly Nico Olga Pablo Rosa Sam Toby")
_HEADS = _words("Ba Bo Da De Fi Ga Jo Ka Ki La Lo Ma Mi Na No Pa Ra Ro Sa Se Ta Vi")
_TAILS = _words("bel by do dra kin la len lo mar mi na nel ra rin ro sa to vin")
NEW_NAMES = 64  # of those made up, which no training sees
STATED = ("My {thing} is called {name}.", "I named my {thing} {name}.")
QUESTIONS = ("What is my {thing} called?", "What did I name my {thing}?")
FACTS, ASKED = 4, 32  # statements of a scene, each asked for; scenes to ask about
AT_ONCE, TOKENS = 64, 24
MINILM = "all-MiniLM-L6-v2"
RUN: dict[str, Any] = {"model": tiny.NAME, "threads": 1, "evaluating": {"every": 100, "questions": 64, "patience": 0}}
KINDS = {"adapter": "adapter", "prefix": "projector"}
KNOWN, APART, NEW = "trained with", "never of that thing", "never seen"
SHARE = "{:.3f}"
MEMORIES = ("its own memory", "exchanged names", "another's memory", "none")
TITLE = "Readers trained on the boxed model, and served"
NOTE = """`ndml train` on `ndml-tiny`, then its answers from the llm service's own generator with `chat.trained`: {asked} questions a row,
greedy, right where the whole answer is the one wanted. A scene has {facts} statements ("My boat is called Rex.") and asks what each thing
is called; scenes to train on, others to choose the checkpoint by, others again here. {each} Names *trained with*: the scene is
new; each statement of it may have stood in training, in other company. *Never of that thing*: the names are of the training, but none of
these things had one of these names there. *Never seen*: no training of the reader had the names. *Exchanged*: every thing is still in
memory, with the name of another. *Another's*: the memory of another scene. *prompt*, for comparison: the same questions, the memory
quoted and nothing trained, right where the name is in the answer. `python -m tests.quality.fusion --parts trained` makes this table."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A reader, and the scenes that it is trained on: what things are called in them, and what they are called in no training.

    said: of what kind the names are; stated, questions: forms, one of which is drawn each time; scenes: to train on
    """

    way: ports.WayName
    said: str
    known: Sequence[str]
    new: Sequence[str]
    things: Sequence[str]
    stated: Sequence[str]
    questions: Sequence[str]
    scenes: int
    settings: Mapping[str, Any]

    def names(self, thing: str, which: str) -> Sequence[str]:
        """What a thing may be called: of the names of training a fifth is kept from each thing there."""
        if which == NEW:
            return self.new
        first = self.things.index(thing)
        return [name for at, name in enumerate(self.known) if ((first + 2 * at) % 5 == 0) == (which == APART)]


def made_up() -> list[str]:
    """Of two syllables each, in an order by chance that is the same each time."""
    every = [head + tail for head, tail in product(_HEADS, _TAILS)]
    Random("names").shuffle(every)
    return every


MADE_UP = made_up()
TRIALS = (
    Trial(
        way="adapter",
        said="made up",
        known=MADE_UP[NEW_NAMES:],
        new=MADE_UP[:NEW_NAMES],
        things=THINGS,
        stated=STATED,
        questions=QUESTIONS,
        scenes=1500,
        settings={"steps": 350, "adapter": {"heads": 2}},
    ),
    # What a sentence vector tells of a name has to be learned name by name: fewer of them, fewer things, one form of each sentence.
    Trial(
        way="prefix",
        said="first names",
        known=REAL,
        new=OTHERS,
        things=THINGS[:8],
        stated=STATED[:1],
        questions=QUESTIONS[:1],
        scenes=1500,
        settings={
            "steps": 1000,
            "embedder": MINILM,
            "optimising": {"rate": 0.004},
            "projector": {"width": 512},
            "evaluating": {"every": 100, "questions": ASKED * FACTS, "patience": 0},
        },
    ),
)


def table(out: Path, tell: Callable[[str], None]) -> Part:
    """Trains what is not trained in `out` yet for these weights: five minutes of one core."""
    embed = embedder(MINILM)
    part, each = Part(), []
    rows: list[tuple[str, ...]] = []
    for trial in TRIALS:
        run, report = _learned(trial, out, tell)
        each.append(_told(trial, run, report))
        found = {}
        for which in (KNOWN, APART, NEW):
            asked = with_vectors(scenes(trial, which, ASKED, f"asked, {trial.way}"), embed)
            found[which] = asyncio.run(shares(run, trial.way, asked, embed))
            rows.append((trial.way, trial.said, which, *map(SHARE.format, found[which].values())))
            if which == KNOWN:
                quoted = asyncio.run(shares(run, "prompt", asked, embed))
                rows.append(("prompt", trial.said, which, *map(SHARE.format, quoted.values())))
            tell(" | ".join(rows[-1]))
        part.targets += _targets(trial, found, report)
    note = NOTE.format(asked=ASKED * FACTS, facts=FACTS, each=" ".join(each))
    part.tables.append(Table(TITLE, fill(note, WIDTH), ("way", "names", "which", *MEMORIES), rows))
    return part


def scenes(trial: Trial, which: str, count: int, seed: str) -> list[Episode]:
    """Things and what they are called, and a question about each."""
    random, found = Random(f"{seed}, {which}"), list[Episode]()
    open_to = {thing: trial.names(thing, which) for thing in trial.things}
    while len(found) < count:
        things = random.sample(trial.things, FACTS)
        names = [random.choice(open_to[thing]) for thing in things]
        if len(set(names)) == FACTS:
            found.append(_scene(trial, things, names, random))
    return found


def _scene(trial: Trial, things: Sequence[str], names: Sequence[str], random: Random) -> Episode:
    entries, asks = [], []
    for number, (thing, name) in enumerate(zip(things, names, strict=True), 1):
        entries.append(Entry(number, random.choice(trial.stated).format(thing=thing, name=name)))
        asks.append(Ask(random.choice(trial.questions).format(thing=thing), f"Your {thing} is called {name}.", (number,)))
    return Episode(MemoryReadout(tuple(entries)), tuple(asks))


def exchanged(scene: Episode) -> Episode:
    """Every thing with the name of the next."""
    names = [_name(ask) for ask in scene.asks]
    turned = dict(zip(names, (*names[1:], names[0]), strict=True))
    entries = (
        replace(entry, text=entry.text.replace(f"{name}.", f"{turned[name]}."), embedding=None)
        for entry, name in zip(scene.readout.entries, names, strict=True)
    )
    return replace(scene, readout=MemoryReadout(tuple(entries)))


def _elsewhere(asked: Sequence[Episode], at: int) -> MemoryReadout:
    """The memory of another scene, which answers none of these questions by chance."""
    wanted = {ask.answer for ask in asked[at].asks}
    others = (asked[(at + step) % len(asked)] for step in range(1, len(asked)))
    return next(scene.readout for scene in others if not wanted & {ask.answer for ask in scene.asks})


async def shares(run: Path, way: ports.WayName, asked: Sequence[Episode], embed: Embed) -> dict[str, float]:
    """Right answers as the llm service gives them, by what stands in memory."""
    memories = {
        "its own memory": [scene.readout for scene in asked],
        "exchanged names": [scene.readout for scene in with_vectors([exchanged(scene) for scene in asked], embed)],
        "another's memory": [_elsewhere(asked, at) for at in range(len(asked))],
        "none": [MemoryReadout()] * len(asked),
    }
    settings = ChatSection(device="cpu", trained=str(run), torch_threads=1)
    generator = LocalGenerator(settings, lambda: LocalModel.load(settings), torch_threads(1))
    await generator.start()
    try:
        room = asyncio.Semaphore(AT_ONCE)

        async def right(ask: Ask, memory: MemoryReadout) -> bool:
            async with room:
                given = ports.Ask((ports.Message("user", ask.question),), ports.Sampling(TOKENS), memory, way)
                pieces = [piece async for piece in generator.generate(given, None)]
            said = "".join(piece for piece in pieces if isinstance(piece, str)).strip()
            return said == ask.answer if way != "prompt" else _name(ask) in said

        found = {}
        for name, readouts in memories.items():
            pairs = [(ask, memory) for scene, memory in zip(asked, readouts, strict=True) for ask in scene.asks]
            rights = await asyncio.gather(*(right(ask, memory) for ask, memory in pairs))
            found[name] = sum(rights) / len(rights)
        return found
    finally:
        await generator.stop()


def _learned(trial: Trial, out: Path, tell: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    """Where the run is, and its report. Other weights or other scenes are another run."""
    files = {"data": _lines(scenes(trial, KNOWN, trial.scenes, "learn")), "held_out": _lines(scenes(trial, KNOWN, ASKED, "choose"))}
    weights = (tiny.path() / "model.safetensors").read_bytes()
    digest = hashlib.sha256(b"".join((weights, *(text.encode() for text in files.values())))).hexdigest()[:12]
    directory = out / "trained" / f"{trial.way}-{digest}"
    directory.mkdir(parents=True, exist_ok=True)
    settings = RUN | {"way": trial.way} | dict(trial.settings)
    for name, text in files.items():
        path = directory / f"{name}.jsonl"
        path.write_text(text)
        settings[name] = str(path)
    return directory / "run", learned(settings, directory / "run", tell)


def _name(ask: Ask) -> str:
    return ask.answer.split()[-1].rstrip(".")


def _lines(episodes: Sequence[Episode]) -> str:
    """As `ndml train --data` reads them."""
    return "".join(
        json.dumps(
            {
                "memories": [entry.text for entry in episode.readout.entries],
                "asks": [{"question": ask.question, "answer": ask.answer, "used": list(ask.used)} for ask in episode.asks],
            }
        )
        + "\n"
        for episode in episodes
    )


def _told(trial: Trial, run: Path, report: Mapping[str, Any]) -> str:
    card = json.loads((run / f"{KINDS[trial.way]}.json").read_bytes())
    (weights,) = run.glob(f"{KINDS[trial.way]}-*.safetensors")
    forms = "one form" if len(trial.stated) == 1 else f"{len(trial.stated)} forms"
    return (
        f"The {trial.way}: {len(trial.known)} names ({trial.said}) in training, {len(trial.new)} others, {len(trial.things)} things, "
        f"{forms} of statement and question, {trial.scenes:,} scenes, {report['steps']:,} steps (the best after {card['steps']:,}), "
        f"{weights.stat().st_size / 1e6:.1f} MB."
    )


def _targets(trial: Trial, found: Mapping[str, Mapping[str, float]], report: Mapping[str, Any]) -> list[Row]:
    idle = float(report["identity"])
    worst = max(found[KNOWN][name] for name in ("exchanged names", "another's memory"))
    what = f"ndml-tiny, trained {trial.way}, served"
    # A sentence vector does not spell: what a prefix makes of names and things that it has not met together stands in the table alone.
    return [
        *(_reached(what, which, found[which]) for which in (found if trial.way == "adapter" else (KNOWN,))),
        Row(f"{what}: exchanged names or another's memory", SHARE.format(worst), "a guess: 1 in 4 in memory", "<= 0.10", worst <= 0.1),
        Row(f"{what}: no memory, largest change of a logit", f"{idle:g}", "the model alone", "0", idle == 0),
    ]


def _reached(what: str, which: str, got: Mapping[str, float]) -> Row:
    own, none = got["its own memory"], got["none"]
    return Row(f"{what}: names {which}", SHARE.format(own), f"no memory {none:.3f}", ">= 0.90", own >= 0.9)
