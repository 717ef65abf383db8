"""What a run says of itself while it goes on: a line of JSON for each measurement, and TensorBoard where it is wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ndml.errors import NotAvailable
from ndml.training.states import write


class Board:
    """`metrics.jsonl` and, if `tensorboard`, its event files beside it; what a killed run said past its state is taken back."""

    def __init__(self, directory: Path, begun: int, tensorboard: bool) -> None:
        """begun: steps done when this run goes on. Raises NotAvailable where TensorBoard is wanted and not installed."""
        self._path = directory / "metrics.jsonl"
        self._events = _writer(directory / "tensorboard", begun) if tensorboard else None
        if self._path.exists():
            lines = [line for line in self._path.read_bytes().splitlines() if _step(line) <= begun]
            write(self._path, b"".join(line + b"\n" for line in lines))
        self._file = self._path.open("a", encoding="utf-8")

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name, at a step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


def _step(line: bytes) -> float:
    """Of a line; one that was cut off belongs to no step that is kept."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _writer(directory: Path, begun: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise NotAvailable(
            f"tensorboard needs {error.name}, which is not installed: pip install 'ndml[train]', or leave it off: "
            "metrics.jsonl is written always"
        ) from error
    return SummaryWriter(str(directory), purge_step=begun + 1)
