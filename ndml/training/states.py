"""Where a run stands, on disk: each state a directory that appears whole or not at all, checked when it is read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ndml.disk import sync_directory
from ndml.errors import ModelUnavailable

FORMAT = 1
_TENSORS, _FACTS = "tensors.safetensors", "state.json"


@dataclass(frozen=True, slots=True)
class State:
    """steps: done; tensors: whatever the run needs, by name; facts: the rest of it, as JSON can say it."""

    steps: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class States:
    """The newest states of a run."""

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory, self._keep = directory, keep

    def save(self, state: State) -> None:
        """On disk when this returns; older ones past `keep` go."""
        data = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()})
        facts = {"format": FORMAT, "steps": state.steps, "sha256": hashlib.sha256(data).hexdigest(), "facts": state.facts}
        self._directory.mkdir(parents=True, exist_ok=True)
        target = self._directory / f"step-{state.steps:09d}"
        draft = target.with_name(target.name + ".part")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        write(draft / _TENSORS, data)
        write(draft / _FACTS, json.dumps(facts).encode())
        sync_directory(draft)
        shutil.rmtree(target, ignore_errors=True)  # a state of this step that could not be read
        draft.rename(target)
        sync_directory(self._directory)
        for old in self.steps()[: -self._keep]:
            shutil.rmtree(self._directory / f"step-{old:09d}")

    def steps(self) -> list[int]:
        """Of the states there are, oldest first."""
        names = (path.name for path in self._directory.glob("step-*") if not path.name.endswith(".part"))
        return sorted(int(name.removeprefix("step-")) for name in names)

    def newest(self, on_damage: Callable[[str], None]) -> State | None:
        """The newest that is whole; `on_damage` hears of each that is not. None where the run has none yet.

        Raises ModelUnavailable where there are states and none can be read: what they held should not be trained over unseen.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._read(step)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                on_damage(f"{self._directory / f'step-{step:09d}'} cannot be read: {error}")
        if steps:
            raise ModelUnavailable(f"none of the states in {self._directory} can be read: begin anew with --fresh, or mend them")
        return None

    def _read(self, step: int) -> State:
        directory = self._directory / f"step-{step:09d}"
        facts = json.loads((directory / _FACTS).read_bytes())
        data = (directory / _TENSORS).read_bytes()
        if facts["format"] != FORMAT or facts["steps"] != step or facts["sha256"] != hashlib.sha256(data).hexdigest():
            raise ValueError("its parts do not belong together, or are of another release")
        return State(step, load_tensors(data), dict(facts["facts"]))


def write(path: Path, data: bytes) -> None:
    """All of it or nothing, on disk."""
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
