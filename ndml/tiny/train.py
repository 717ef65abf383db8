"""Training on the CPU, from nothing but `scenes`. `python -m ndml.tiny.train --work DIR` starts or goes on after a kill.

What makes an hour of one core enough: a scene asks several questions of one memory, only answers are predicted, the last block begins as a
copier, and heads are told where to look (retrieval supervision, science notes 6.2).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaForCausalLM

from ndml.tiny.examples import STYLES, Batch, Encoder, pack, texts
from ndml.tiny.network import Look, Size, build, forward
from ndml.tiny.optimizer import Muon
from ndml.tiny.scenes import Plan, Writer
from ndml.tiny.tokens import END, PAD, START, special, train_tokenizer, word_pieces


@dataclass(frozen=True, slots=True)
class Options:
    """One training run.

    tokens       to train on, padding included; the learning rate falls over the last `fall` of them
    batch        tokens of a step; pool: scenes that are written at once and packed by length
    rate         peak learning rate; warm: steps that it rises over
    copy, source, near     weights of telling heads where to look (`guidance`)
    probe                  of the first block's heads, one position in this many is looked at
    easy         pools of short scenes first
    save_s       seconds between checkpoints: what a kill costs
    """

    seed: int = 1
    tokens: int = 28_000_000
    batch: int = 2048
    pool: int = 256
    rate: float = 4e-3
    warm: int = 60
    fall: float = 0.5
    decay: float = 0.02
    copy: float = 0.3
    source: float = 0.6
    near: float = 0.1
    probe: int = 3
    easy: int = 24
    save_s: float = 120.0
    vocabulary_scenes: int = 12_000
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    inner: int = 384
    vocabulary: int = 2048


EASY = Plan(lines=(1, 3), turns=(2, 5), unknown=0.1, talk=0.04, changes=0.1, noise=0.05, people=0.3, plain=0.8)
USUAL = Plan(lines=(0, 9), turns=(3, 8), unknown=0.28, wide=0.35, varied=0.2, scattered=0.4)
LONG = Plan(lines=(8, 30), turns=(4, 10), unknown=0.28, wide=0.35, varied=0.2, scattered=0.5)
LONG_EACH = 5
"""One pool in this many has long scenes, so that positions far apart are known too."""


@dataclass(slots=True)
class Progress:
    """Where a run is: pools begun, batches of the current one done, steps and tokens."""

    pool: int = 0
    offset: int = 0
    steps: int = 0
    tokens: int = 0


class Run:
    """A network in training and all that is needed to go on bitwise."""

    def __init__(self, options: Options, tokenizer: Tokenizer) -> None:
        self.options, self.tokenizer = options, tokenizer
        self.size = Size(tokenizer.get_vocab_size(), options.hidden, options.layers, options.heads, options.inner)
        torch.manual_seed(options.seed)
        self.model = build(self.size, *(special(tokenizer, t) for t in (START, END, PAD)))
        self.progress = Progress()
        self._encoder, self._pieces = Encoder(tokenizer), word_pieces(tokenizer)
        matrices = [p for p in self.model.model.layers.parameters() if p.ndim == 2]
        norms = [p for p in self.model.parameters() if p.ndim < 2]
        muon = Muon(matrices, options.rate, decay=options.decay)
        groups = [{"params": [self.model.model.embed_tokens.weight]}, {"params": norms}]
        self._optimizers: tuple[torch.optim.Optimizer, ...] = (
            muon,
            torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        )

    def batches(self) -> Iterator[Batch]:
        """From where the run is; a pool depends on the seed and its number alone."""
        while True:
            made = self._pool(self.progress.pool)
            for batch in made[self.progress.offset :]:
                self.progress.offset += 1
                yield batch
            self.progress.pool, self.progress.offset = self.progress.pool + 1, 0

    def _pool(self, number: int) -> list[Batch]:
        options = self.options
        random = Random(f"{options.seed}:{number}")
        plan = EASY if number < options.easy else LONG if number % LONG_EACH == LONG_EACH - 1 else USUAL
        writer = Writer(random, plan, pieces=self._pieces)
        scenes = [writer.scene() for _ in range(options.pool if plan is not LONG else options.pool // 3)]
        return pack(self._encoder.encode(scenes, [random.choice(STYLES) for _ in scenes]), random, options.batch)

    def step(self, batch: Batch) -> dict[str, float]:
        """One step; what it measured."""
        share = self.progress.tokens / self.options.tokens
        rate = self.options.rate * min(1.0, (self.progress.steps + 1) / self.options.warm, max(0.02, (1 - share) / self.options.fall))
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        targets = torch.from_numpy(batch.targets)
        probes = torch.arange(1 + self.progress.steps % self.options.probe, batch.ids.shape[1], self.options.probe)
        logits, look = forward(self.model, self.size, torch.from_numpy(batch.ids), torch.from_numpy(batch.rows), probes)
        answer = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        told = guidance(look, batch, probes)
        weights = {"copy": self.options.copy, "source": self.options.source, "before": self.options.near, "number": self.options.near}
        loss = answer + sum(weights[name] * value for name, value in told.items())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.progress.steps += 1
        self.progress.tokens += batch.ids.size
        return {
            "loss": answer.item(),
            **{name: value.item() for name, value in told.items()},
            "exact": exact(logits, targets),
            "rate": rate,
        }

    def start_from(self, folder: Path) -> None:
        """Published weights as a beginning, in place of random ones. Raises ValueError where the network is of another size."""
        found: dict[str, Tensor] = LlamaForCausalLM.from_pretrained(folder).state_dict()
        for name, value in self.model.state_dict().items():
            if found[name].shape != value.shape:
                raise ValueError(
                    f"{folder} has {name} of {tuple(found[name].shape)}, the options say {tuple(value.shape)}: start from nothing"
                )
        self.model.load_state_dict(found)

    def save(self, path: Path) -> None:
        """Everything, or nothing: a kill while saving leaves the file before."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self._optimizers],
            "progress": asdict(self.progress),
            "options": asdict(self.options),
        }
        whole = path.with_suffix(".new")
        torch.save(state, whole)
        whole.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a saved state. Raises ValueError where the network is of another size."""
        state = torch.load(path, weights_only=True)
        for name in ("hidden", "layers", "heads", "inner", "vocabulary"):
            if state["options"][name] != getattr(self.options, name):
                raise ValueError(
                    f"{path} has {name} {state['options'][name]}, the options say {getattr(self.options, name)}: use another --work"
                )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])


def guidance(look: Look, batch: Batch, probes: Tensor) -> dict[str, Tensor]:
    """How far heads look from where they should: minus log of the attention on the right places, averaged over rows that have some.

    before: the token before; number: the number of the token's line; source: the line that answers; copy: the token to be said.
    """
    here = torch.arange(batch.ids.shape[1])
    pointers, number = torch.from_numpy(batch.pointers), torch.from_numpy(batch.number)[:, probes]
    return {
        "copy": _missed(look.copy, pointers[:, None].expand_as(look.copy)),
        "source": _missed(look.source, torch.from_numpy(batch.source)),
        "before": _missed(look.before, (here == probes[:, None] - 1).expand_as(look.before)),
        "number": _missed(look.number, number[..., None] == here),
    }


def _missed(looks: Tensor, places: Tensor) -> Tensor:
    rows = places.any(-1)
    if not rows.any():
        return looks.new_zeros(())
    return -looks[rows].masked_fill(~places[rows], -1e9).logsumexp(-1).mean()


def exact(logits: Tensor, targets: Tensor) -> float:
    """Share of answer tokens predicted."""
    return (logits.argmax(-1) == targets)[targets >= 0].float().mean().item()


def open_run(options: Options, work: Path, start: Path | None = None) -> Run:
    """The run of a folder: its tokenizer and last checkpoint where there are some. A new one begins with the weights of `start`."""
    work.mkdir(parents=True, exist_ok=True)
    file = work / "tokenizer.json"
    if start and not file.exists():
        shutil.copyfile(start / "tokenizer.json", file)
    if not file.exists():
        writer = Writer(Random(f"{options.seed}:words"), Plan())
        train_tokenizer(texts([writer.scene() for _ in range(options.vocabulary_scenes)]), options.vocabulary).save(str(file))
    run = Run(options, Tokenizer.from_file(str(file)))
    if (work / "state.pt").exists():
        run.load(work / "state.pt")
    elif start:
        run.start_from(start)
    return run


def train(run: Run, work: Path, every: int = 50) -> None:
    """Until the tokens are spent. A line of log each `every` steps, a checkpoint each `save_s`."""
    began = saved = time.monotonic()
    first = run.progress.tokens
    sums: dict[str, float] = {}
    summed = 0  # fewer than `every` in the first line of a run that is gone on with
    for batch in run.batches():
        for name, value in run.step(batch).items():
            sums[name] = sums.get(name, 0.0) + value
        summed += 1
        if run.progress.steps % every == 0:
            rate = (run.progress.tokens - first) / (time.monotonic() - began)
            row = {**asdict(run.progress), "tokens_per_s": round(rate), **{k: round(v / summed, 5) for k, v in sums.items()}}
            with (work / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
            sums, summed = {}, 0
        done = run.progress.tokens >= run.options.tokens
        if done or time.monotonic() - saved > run.options.save_s:
            run.save(work / "state.pt")
            saved = time.monotonic()
        if done:
            return


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ndml.tiny.train", description=__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for tokenizer, checkpoint and log; one that is there is gone on with"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument(
        "--from", dest="start", type=Path, help="folder of published weights that a new run begins with, and their tokenizer"
    )
    for name in ("tokens", "batch", "seed", "easy"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Options(), name))
    for name in ("rate", "fall"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Options(), name))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    names = ("tokens", "batch", "seed", "easy", "rate", "fall")
    options = replace(Options(), **{name: getattr(given, name) for name in names})
    train(open_run(options, given.work, given.start), given.work)


if __name__ == "__main__":
    main()
