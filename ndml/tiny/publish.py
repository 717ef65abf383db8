"""From a training run, finished or not, to the files that are shipped. `python -m ndml.tiny.publish --work DIR`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from ndml import tiny
from ndml.tiny.tokens import END, PAD, START, save_tokenizer, special
from ndml.tiny.train import Options, Run, open_run

ANSWER_TOKENS = 64
"""What generation allows where nobody says: the longest answers have about 40."""


def average(run: Run, earlier: Sequence[Path]) -> None:
    """The mean of a run's weights and those of earlier checkpoints takes their place: less of the noise of single steps is in it."""
    states = [run.model.state_dict(), *(torch.load(path, weights_only=True)["model"] for path in earlier)]
    run.model.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})


def publish(run: Run, folder: Path) -> None:
    """Weights in half precision that load as float32 (CPUs are slow in half), tokenizer, template, and how they were made."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(run.tokenizer, folder)
    model: Any = deepcopy(run.model)
    model.half()
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        max_new_tokens=ANSWER_TOKENS,
        **{f"{name}_token_id": special(run.tokenizer, token) for name, token in (("bos", START), ("eos", END), ("pad", PAD))},
    )
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written for its owner alone, and a package is for everybody
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n")
    made = {"options": asdict(run.options), "progress": asdict(run.progress)}
    (folder / "training.json").write_text(json.dumps(made, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ndml.tiny.publish", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--out", type=Path, default=tiny.path(), help="folder of the model")
    parser.add_argument("--average", type=Path, nargs="*", default=[], help="earlier checkpoints of the run: publish the mean of all")
    given = parser.parse_args()
    state = given.work / "state.pt"
    options = Options(**torch.load(state, weights_only=True)["options"]) if state.exists() else Options()
    run = open_run(options, given.work)
    average(run, given.average)
    publish(run, given.out)


if __name__ == "__main__":
    main()
