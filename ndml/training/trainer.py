"""The loop: steps, evaluations, states. What a step does follows from the settings, its number and the state before it, nothing else."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from ndml.errors import FieldInvalid
from ndml.fusion import checkpoints
from ndml.fusion.prompt import PromptLimits
from ndml.training import evaluation, models
from ndml.training.board import Board
from ndml.training.config import ENTITIES, Optimising, TrainConfig, as_mapping, begun
from ndml.training.data import Listed, Source, read, split
from ndml.training.entities import VECTOR, Entities
from ndml.training.examples import Writer
from ndml.training.lora import Changes
from ndml.training.models import Subject
from ndml.training.readers import PromptReader, Reader, reader
from ndml.training.states import State, States, write

Tell = Callable[[str, Mapping[str, Any]], None]
Ended = Literal["", "steps", "time", "patience"]
METRIC = "exact match on held-out questions"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Progress:
    """seconds: of all runs so far; best: score, reached after `best_steps`; stale: evaluations since; ended: why it is over, "" if not."""

    seconds: float = 0.0
    best: float = -1.0
    best_steps: int = 0
    stale: int = 0
    ended: Ended = ""


def train(
    config: TrainConfig, tell: Tell, stopped: Callable[[], bool], clock: Callable[[], float] = time.monotonic
) -> dict[str, Any] | None:
    """A run from where it stands to its end; gives its report, None where `stopped` cut it short, which the next call goes on from.

    tell: hears what happens (kind, values). Raises FieldInvalid where `out` holds a run with other settings.
    """
    directory = config.directory
    directory.mkdir(parents=True, exist_ok=True)
    before = begun(directory)
    _same_run(config, before)
    if config.threads:
        torch.set_num_threads(config.threads)
    subject = models.load(config)
    source, vector = sources(config)
    torch.manual_seed(config.seed)  # what is drawn to begin with: LoRA's weights, then the reader's
    changes = Changes(subject.model, config.lora) if config.lora.rank else None
    run = Run(config, subject, reader(subject, config, vector), source, changes, tell)
    if before is None:  # only now: a mistaken setting that was refused above is no run to go on with
        write(directory / "config.json", json.dumps(as_mapping(config), indent=1).encode())
    steps, progress = run.restore()
    started = clock() - progress.seconds
    while not progress.ended:
        if stopped():
            run.save(steps, replace(progress, seconds=clock() - started))
            return None
        run.step(steps)
        steps += 1
        progress = run.after(steps, replace(progress, seconds=clock() - started))
    return run.finish(steps, progress)


class Run:
    """A reader that learns, and all that must be kept for it."""

    def __init__(
        self, config: TrainConfig, subject: Subject, learning: Reader, source: Source, changes: Changes | None, tell: Tell
    ) -> None:
        self._config, self._subject, self._reader, self._source = config, subject, learning, source
        self._changes, self._tell = changes, tell
        self._learned = self._named()
        self._optimizer = torch.optim.AdamW(_groups(self._learned, config.optimising), config.optimising.rate)
        self._states = States(config.directory / "states", config.checkpoints.keep)
        self._board: Board | None = None
        self._batch = config.entities.asks if config.data == ENTITIES else config.batch

    def restore(self) -> tuple[int, Progress]:
        """Steps done and how it stood, from the newest state; 0 where there is none."""
        state = self._states.newest(lambda text: self._tell("damaged", {"message": text}))
        progress = Progress(**state.facts) if state else Progress()
        if state:
            self._put(state.tensors)
        steps = state.steps if state else 0
        self._board = Board(self._config.directory, steps, self._config.tensorboard)
        learned = sum(p.numel() for p in self._learned.values())
        self._tell("begin", {"step": steps, "steps": self._config.steps, "parameters": learned, "device": str(self._subject.device)})
        return steps, progress

    def step(self, number: int) -> None:
        """One step of the optimizer."""
        config = self._config
        torch.manual_seed(config.seed * 1_000_003 + number)  # dropout is the only chance in a step: it goes on where it was
        rate = config.optimising.rate * factor(number, config.steps, config.optimising)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        if self._changes:
            self._changes.learning(True)
        look = config.supervision > 0 and config.way == "adapter"
        seen = self._reader.read(self._source.batch(number, config.steps), look=look)
        spoken = seen.spoken_loss()
        self._optimizer.zero_grad(set_to_none=True)
        (spoken + config.supervision * seen.look if look else spoken).backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._learned.values(), config.optimising.clip, error_if_nonfinite=True)
        self._optimizer.step()
        if self._changes:
            self._changes.learning(False)
        if (number + 1) % config.log_every == 0:
            self._note(number + 1, {"loss": float(spoken.detach()), "look": float(seen.look.detach()), "rate": rate, "norm": float(norm)})

    def after(self, steps: int, progress: Progress) -> Progress:
        """What is due after so many steps: evaluation, state, the end."""
        config = self._config
        last = steps >= config.steps
        late = bool(config.max_seconds) and progress.seconds >= config.max_seconds
        if last or late or steps % config.evaluating.every == 0:
            progress = self._evaluated(steps, progress)
        bored = 0 < config.evaluating.patience <= progress.stale
        ended: Ended = "steps" if last else "time" if late else "patience" if bored else ""
        progress = replace(progress, ended=ended)
        if ended or steps % config.checkpoints.every == 0:
            self.save(steps, progress)
        return progress

    def save(self, steps: int, progress: Progress) -> None:
        """The state after so many steps, on disk."""
        tensors: dict[str, Tensor] = {f"learned.{name}": parameter for name, parameter in self._learned.items()}
        for name, parameter in self._learned.items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in self._optimizer.state.get(parameter, {}).items()}
        self._states.save(State(steps, tensors, asdict(progress)))
        self._tell("saved", {"step": steps})

    def finish(self, steps: int, progress: Progress) -> dict[str, Any]:
        """The best, weighed against its controls, in `out`."""
        path = self._config.directory / "report.json"
        if path.exists():
            said: dict[str, Any] = json.loads(path.read_bytes())
        else:
            self._take_best()
            found = evaluation.report(self._reader, self._plain(), self._source, self._config.evaluating.questions, self._batch)
            if self._changes:
                self._changes.merge(self._config.directory / "model", self._subject.tokenizer)
            said = {"way": self._config.way, "model": self._config.model, "steps": steps, **asdict(progress), **asdict(found)}
            write(path, json.dumps(said, indent=1).encode())
        self._reader.close()
        if self._board:
            self._board.close()
        self._tell("report", said)
        return said

    def _evaluated(self, steps: int, progress: Progress) -> Progress:
        found = evaluation.score(self._reader, self._source.held_out(self._config.evaluating.questions), self._batch)
        self._note(steps, {"exact": found.exact, "held_out_loss": found.loss, **{f"exact {k}": v for k, v in found.kinds.items()}})
        better = found.exact >= progress.best  # of equals the later: it has learned longer
        gained = found.exact >= progress.best + self._config.evaluating.gain
        if better:
            self._keep_best(steps, found.exact)
            progress = replace(progress, best=found.exact, best_steps=steps)
        return replace(progress, stale=0 if gained else progress.stale + 1)

    def _keep_best(self, steps: int, score: float) -> None:
        directory, module = self._config.directory, self._reader.module
        if module is not None:
            model = str(directory / "model") if self._changes else self._config.model
            card = checkpoints.card_for(module, self._subject.family, steps=steps, score=score, metric=METRIC, model=model)
            checkpoints.save(directory, checkpoints.Trained(module, card))
        if self._changes:
            write(
                directory / "lora.safetensors",
                save_tensors({n: p.detach().cpu().contiguous() for n, p in self._changes.parameters().items()}),
            )

    def _take_best(self) -> None:
        directory, module, family = self._config.directory, self._reader.module, self._subject.family
        if module is not None:
            load = checkpoints.load_adapter if self._config.way == "adapter" else checkpoints.load_projector
            module.load_state_dict(load(directory, family).module.state_dict())
        if self._changes:
            self._changes.put(load_tensors((directory / "lora.safetensors").read_bytes()))

    def _plain(self) -> PromptReader:
        config = self._config
        return PromptReader(self._subject, PromptLimits(0), Writer(self._subject.tokenizer, config.prompt_tokens, config.answer_tokens))

    def _named(self) -> dict[str, nn.Parameter]:
        module = self._reader.module
        named = {} if module is None else {f"reader.{name}": p for name, p in module.named_parameters()}
        return named | ({f"model.{name}": p for name, p in self._changes.parameters().items()} if self._changes else {})

    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._learned.items():
                parameter.copy_(tensors[f"learned.{name}"])
                moments = {key: tensors[path] for key in _MOMENTS if (path := f"optimizer.{name}.{key}") in tensors}
                if moments:
                    place = parameter.device
                    self._optimizer.state[parameter] = {k: v.clone() if k == "step" else v.clone().to(place) for k, v in moments.items()}

    def _note(self, step: int, values: dict[str, float]) -> None:
        if self._board:
            self._board.note(step, values)
        self._tell("measured", {"step": step, "steps": self._config.steps, **values})


def sources(config: TrainConfig) -> tuple[Source, int]:
    """Where the episodes come from, and how many components their vectors have, 0: none. Raises FieldInvalid."""
    if config.data == ENTITIES:
        vectors = config.way == "prefix"
        return Entities(config.entities, config.seed, vectors), VECTOR if vectors else 0
    every = read(Path(config.data).expanduser(), config.examples)
    if config.held_out:
        learned, held_out = every, read(Path(config.held_out).expanduser(), config.examples)
    else:
        learned, held_out = split(every, config.held_share)
    if config.embedder:
        embed = models.embedder(config.embedder)
        learned, held_out = models.with_vectors(learned, embed), models.with_vectors(held_out, embed)
    sizes = sorted({size for e in (*learned, *held_out) if (size := e.readout.dimension) is not None})
    if len(sizes) > 1:
        raise FieldInvalid(f"the examples bring vectors of {sizes} components: take them from one model", field="data")
    return Listed(learned, held_out, config.batch, config.seed), sizes[0] if sizes else 0


def factor(step: int, steps: int, schedule: Optimising) -> float:
    """Of the peak rate at a step: up in a line, down in half a cosine to `least`."""
    warm = schedule.warm * steps
    if step < warm:
        return (step + 1) / (warm + 1)
    fallen = (step - warm) / max(steps - warm, 1)
    return schedule.least + (1 - schedule.least) * 0.5 * (1 + math.cos(math.pi * fallen))


def _groups(learned: Mapping[str, nn.Parameter], optimising: Optimising) -> list[dict[str, Any]]:
    """Norms, gates and biases are not decayed: their size says something."""
    kinds: dict[bool, Sequence[nn.Parameter]] = {flat: [p for p in learned.values() if (p.dim() < 2) == flat] for flat in (False, True)}
    return [{"params": list(each), "weight_decay": 0.0 if flat else optimising.decay} for flat, each in kinds.items() if each]


def _same_run(config: TrainConfig, before: Mapping[str, Any] | None) -> None:
    if before is None:
        if (config.directory / "model").exists():  # a run would write it anew, and --fresh remove it
            raise FieldInvalid(f"{config.directory} holds a model that no run there wrote: take another --out", field="out")
        return
    changed = config.differences(before)
    if changed:
        raise FieldInvalid(
            f"{config.directory} holds a run with other settings ({', '.join(changed)}): take another --out, or --fresh to discard it",
            field=changed[0],
        )
