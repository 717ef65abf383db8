"""A training run as a process: settings come in as arguments, what happens goes out as lines of JSON.

`python -m ndml.training --config train.yaml --settings '{"steps": 500}'`. SIGINT and SIGTERM save the state and end it with 130; the same
command goes on from there. Who reads the lines may go away: that ends it in the same way.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ndml.errors import FieldInvalid, NdmlError
from ndml.training import config as settings

STOPPED = 130
_PARTS = ("states", "tensorboard", "model", "model.part")
_FILES = ("metrics.jsonl", "report.json", "lora.safetensors", "adapter.json", "projector.json")
_WEIGHTS = ("adapter-*.safetensors", "projector-*.safetensors")


class Door:
    """What goes out, and whether to stop."""

    def __init__(self) -> None:
        self.stop = False

    def tell(self, kind: str, values: Mapping[str, Any]) -> None:
        """One line of JSON."""
        try:
            sys.stdout.write(json.dumps({"event": kind, **values}) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            self.stop = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # later lines, and the flush at exit, go nowhere

    def stopped(self) -> bool:
        return self.stop

    def on_signal(self, *_: object) -> None:
        self.stop = True


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 130 stopped, 1 refused (an `error` line says why)."""
    parser = argparse.ArgumentParser(prog="python -m ndml.training", description=__doc__)
    parser.add_argument("--config", type=Path, help="YAML file")
    parser.add_argument("--settings", type=json.loads, default={}, help='JSON on top of it; nested names with a dot: {"lora.rank": 8}')
    parser.add_argument("--fresh", action="store_true", help="discard the run that is in `out`")
    given = parser.parse_args(arguments)
    door = Door()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, door.on_signal)
    try:
        return _run(given.config, given.settings, given.fresh, door)
    except NdmlError as error:
        fields = [violation.field for violation in error.violations]
        door.tell("error", {"reason": error.reason, "message": error.message, "field": fields[0] if fields else ""})
        return 1


def _run(path: Path | None, changes: Mapping[str, Any], fresh: bool, door: Door) -> int:
    if not isinstance(changes, dict):
        raise FieldInvalid("settings are a JSON object of names to values", field="settings")
    config = settings.load(path, changes)
    if fresh:
        discard(config.directory)
    from ndml.training.trainer import train  # torch takes seconds: settings that are wrong are refused before

    return STOPPED if train(config, door.tell, door.stopped) is None else 0


def discard(directory: Path) -> None:
    """Remove what the run in a directory wrote, and nothing else; where there is none, nothing. Raises FieldInvalid (out)."""
    if settings.begun(directory) is None:
        return
    for name in _PARTS:
        shutil.rmtree(directory / name, ignore_errors=True)
    for pattern in (*_FILES, *_WEIGHTS):
        for file in directory.glob(pattern):
            file.unlink()
    (directory / "config.json").unlink()  # last: until then it is a run, which can be discarded again
