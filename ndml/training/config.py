"""What a training run is: settings with their reasons, from YAML or a mapping. No torch here."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from ndml.errors import FieldInvalid, FieldUnknown, NdmlError

T = TypeVar("T")
Trains = Literal["adapter", "prefix", "prompt"]
ENTITIES = "builtin:entities"
_WANTED = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_CONFIG_BYTES = 1 << 20  # settings are a page of text
# Fields that may differ when a run goes on: they bound or show it, they do not change what a step does.
FREE = ("out", "max_seconds", "tensorboard", "log_every", "checkpoints", "threads")


@dataclass(frozen=True, slots=True)
class Optimising:
    """AdamW and its schedule: a linear rise over `warm` of all steps, then half a cosine down to `least` of `rate`.

    clip  norm that a step's gradient is cut to: one strange batch moves no more than a usual one
    """

    rate: float = 2e-3
    least: float = 0.05
    warm: float = 0.03
    decay: float = 0.01
    clip: float = 1.0

    def __post_init__(self) -> None:
        _within("optimising", rate=(self.rate, 1e-8, 1.0), least=(self.least, 0.0, 1.0), warm=(self.warm, 0.0, 0.9))
        _within("optimising", decay=(self.decay, 0.0, 1.0), clip=(self.clip, 1e-6, 1e6))


@dataclass(frozen=True, slots=True)
class Evaluating:
    """How often the held-out questions are asked and when a run has nothing more to gain.

    every      steps between evaluations
    questions  asked each time, at most: an evaluation should cost a small part of the steps between two
    patience   evaluations without a gain of `gain` after which the run ends; 0: never
    """

    every: int = 250
    questions: int = 256
    patience: int = 8
    gain: float = 0.002

    def __post_init__(self) -> None:
        _within("evaluating", every=(self.every, 1, 1 << 30), questions=(self.questions, 1, 1 << 20))
        _within("evaluating", patience=(self.patience, 0, 1 << 20), gain=(self.gain, 0.0, 1.0))


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """every: steps between two states on disk, what a kill costs; keep: newest ones kept, more than one in case one is damaged."""

    every: int = 250
    keep: int = 2

    def __post_init__(self) -> None:
        _within("checkpoints", every=(self.every, 1, 1 << 30), keep=(self.keep, 1, 100))


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """As ndml.fusion.adapter.AdapterConfig, without what the model decides. blocks: empty takes three spread over the depth; a reader
    in the last one can still put a name on the model's lips."""

    blocks: tuple[int, ...] = ()
    width: int = 64
    heads: int = 4
    window: int = 6
    entry_tokens: int = 64
    tokens: int = 2048


@dataclass(frozen=True, slots=True)
class ProjectorShape:
    """As ndml.fusion.prefix.ProjectorConfig, without what the model decides."""

    tokens: int = 4
    width: int = 256
    entries: int = 16


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank changes of the model's own linear layers, beside the reader or, with way prompt, alone. rank 0: none, the base is frozen.

    targets  names of layers; empty: every linear layer but the output
    """

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _within("lora", rank=(self.rank, 0, 4096), alpha=(self.alpha, 1e-3, 1e4), dropout=(self.dropout, 0.0, 0.9))


@dataclass(frozen=True, slots=True)
class EntityTask:
    """The built-in data: facts about made-up entities, asked for in two forms, another fifth of the entities held out.

    facts      in memory at once; training begins with `first` of them, doubled again and again over `easy` of all steps: looking is learned
               before choosing among many
    asks       questions of each memory
    """

    facts: int = 64
    first: int = 16
    easy: float = 0.3
    asks: int = 48

    def __post_init__(self) -> None:
        _within("entities", facts=(self.facts, 1, 1024), first=(self.first, 1, self.facts), easy=(self.easy, 0.0, 1.0))
        _within("entities", asks=(self.asks, 1, 4096))


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One run.

    model        ndml-tiny, a directory, a hub id, or builtin:entities (a small model that knows syntax and no facts)
    data         JSONL of {memories, question, answer, used}, or builtin:entities
    out          where the run keeps its state, what it says and what comes out of it
    way          what is trained: an adapter, a projector for the soft prefix; prompt: the model itself by LoRA, reading quoted memory
    held_out     JSONL to evaluate on; "" takes `held_share` of the data, chosen by its content
    embedder     of the memories that bring no vector: all-MiniLM-L6-v2, a directory, a hub id; "" none
    steps        at most; max_seconds: of all runs of it together, 0: no limit
    batch        questions of a step
    answer_tokens, prompt_tokens   longer examples are refused, with their line: a cut answer teaches cut answers
    memory_tokens  of the block that way prompt quotes, which is part of the prompt
    supervision  weight of telling the adapter where an answer stands; without it the same training takes several times as long
    examples     of a file at most, all are held in memory
    threads      of torch on the CPU, 0: as many as torch takes
    """

    model: str = "ndml-tiny"
    data: str = ENTITIES
    out: str = "runs/train"
    way: Trains = "adapter"
    held_out: str = ""
    held_share: float = 0.1
    embedder: str = ""
    steps: int = 2500
    max_seconds: float = 0.0
    batch: int = 16
    answer_tokens: int = 256
    prompt_tokens: int = 1024
    memory_tokens: int = 768
    supervision: float = 0.5
    examples: int = 200_000
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    tensorboard: bool = False
    log_every: int = 25
    optimising: Optimising = field(default_factory=Optimising)
    evaluating: Evaluating = field(default_factory=Evaluating)
    checkpoints: Checkpointing = field(default_factory=Checkpointing)
    adapter: AdapterShape = field(default_factory=AdapterShape)
    projector: ProjectorShape = field(default_factory=ProjectorShape)
    lora: Lora = field(default_factory=Lora)
    entities: EntityTask = field(default_factory=EntityTask)

    def __post_init__(self) -> None:
        _within("", held_share=(self.held_share, 0.001, 0.9), steps=(self.steps, 1, 1 << 30), max_seconds=(self.max_seconds, 0.0, 1e9))
        _within("", batch=(self.batch, 1, 1 << 16), supervision=(self.supervision, 0.0, 100.0), examples=(self.examples, 2, 1 << 30))
        _within("", answer_tokens=(self.answer_tokens, 1, 1 << 16), prompt_tokens=(self.prompt_tokens, 1, 1 << 24))
        _within("", memory_tokens=(self.memory_tokens, 0, self.prompt_tokens))
        _within("", seed=(self.seed, 0, 1 << 31), threads=(self.threads, 0, 1024), log_every=(self.log_every, 1, 1 << 30))
        for name in ("model", "data", "out"):
            if not getattr(self, name):
                raise FieldInvalid(f"{name} is empty: name one", field=name)
        if self.way == "prompt" and not self.lora.rank:
            raise FieldInvalid("way prompt has nothing to train but the model itself: set lora.rank, or way adapter or prefix", field="way")

    @property
    def directory(self) -> Path:
        return Path(self.out).expanduser()

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Settings in which a run that was begun with `other` (`as_mapping`) did something else in its steps."""
        mine = as_mapping(self)
        return sorted(name for name in mine if name not in FREE and mine[name] != other.get(name))


def as_mapping(config: Any) -> dict[str, Any]:
    """As JSON and YAML write it: lists for tuples."""
    plain = {}
    for name, value in dataclasses.asdict(config).items():
        plain[name] = {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()} if isinstance(value, dict) else value
    return plain


def load(path: Path | None, changes: Mapping[str, Any]) -> TrainConfig:
    """A YAML file, or none, with `changes` on top, names of nested ones with a dot. Raises FieldInvalid, FieldUnknown."""
    given = _yaml(path) if path else {}
    for name, value in changes.items():
        where = given
        *sections, last = name.split(".")
        for section in sections:
            where = where.setdefault(section, {})
            if not isinstance(where, dict):
                raise FieldInvalid(f"{section} is {where!r} in {path}: it is a group of settings", field=section)
        where[last] = value
    return parse(TrainConfig, given)


def begun(directory: Path) -> dict[str, Any] | None:
    """Settings of the run that is in a directory, None where there is none.

    Raises FieldInvalid (out) where its config.json is something else's, such as a model's.
    """
    path = directory / "config.json"
    if not path.exists():
        return None
    try:
        given: dict[str, Any] = json.loads(path.read_bytes())
        if "way" not in given:
            raise ValueError("it names no way")
        parse(TrainConfig, given)
    except (ValueError, TypeError, NdmlError) as error:
        raise FieldInvalid(f"{path} is of no training run of this release ({error}): take another --out", field="out") from error
    return given


def _yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            given = yaml.safe_load(file.read(_CONFIG_BYTES)) or {}
    except (OSError, yaml.YAMLError) as error:
        raise FieldInvalid(f"{path} cannot be read as YAML: {error}", field="config") from error
    if not isinstance(given, dict):
        raise FieldInvalid(f"{path} is no mapping of settings to values", field="config")
    return given


def parse(kind: type[T], given: Mapping[str, Any], path: str = "") -> T:
    """A dataclass from a mapping, nested ones too. Raises FieldUnknown for a name it has not, FieldInvalid for a value of another type."""
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(map(str, given)) - set(hints))
    if unknown:
        raise FieldUnknown(f"{path}{unknown[0]} is no setting here; there are {', '.join(hints)}", field=path + unknown[0])
    return kind(**{name: _value(hints[name], value, path + name) for name, value in given.items()})


def _value(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise FieldInvalid(f"{path} is a group of settings, got {value!r}", field=path)
        return parse(typing.cast(type[Any], hint), value, path + ".")
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _checked(value in options, value, path, f"one of {', '.join(map(str, options))}")
    if origin is tuple:
        _checked(isinstance(value, list | tuple), value, path, "a list")
        return tuple(_value(options[0], item, f"{path}[{at}]") for at, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _checked(type(value) is hint, value, path, _WANTED[hint])


def _checked(fine: bool, value: Any, path: str, wanted: str) -> Any:
    if not fine:
        raise FieldInvalid(f"{path} is {value!r}: give {wanted}", field=path)
    return value


def _within(section: str, **values: tuple[float, float, float]) -> None:
    for name, (value, least, most) in values.items():
        path = f"{section}.{name}" if section else name
        if not least <= value <= most:  # false for nan too
            raise FieldInvalid(f"{path} is {value}: give {least:g} to {most:g}", field=path)
