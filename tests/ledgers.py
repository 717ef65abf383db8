"""Runs that add up over days: one record a run in a file under docs/, the sums of it in a table."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

_MOST = 500


class Run(Protocol):
    """A dataclass. `commit`: what was tested; empty for a sum of several runs, whose `date` is the last one's. `mended`: the commit that
    mended what it found, written by hand; such a run is told of and is in no sum, for it tested other code."""

    @property
    def mended(self) -> str: ...

    @property
    def identity(self) -> tuple[str | int, ...]:
        """Of two runs with the same one is counted."""
        ...

    def plus(self, other: Any) -> Any:
        """Both, as one that names no commit."""
        ...


R = TypeVar("R", bound=Run)


class Ledger(Generic[R]):
    """Runs of one kind. nothing: what sums begin with. most: runs listed one by one; what is older goes on in one sum, so that files stay
    small."""

    def __init__(self, kind: type[R], nothing: R, most: int = _MOST) -> None:
        self._kind = kind
        self._nothing = nothing
        self.most = most

    def read(self, path: Path) -> list[R]:
        """Oldest first; none where there is no file."""
        return [self._kind(**each) for each in json.loads(path.read_text())["runs"]] if path.exists() else []

    def append(self, path: Path, run: R) -> list[R]:
        """The runs with this one, written."""
        runs = self.read(path)
        if not any(each.identity == run.identity for each in runs):
            runs.append(run)
        while len(runs) > self.most:
            old = [each for each in runs[:2] if not each.mended]  # one that was mended has been told of long enough
            runs[:2] = [old[0].plus(old[1])] if len(old) == 2 else old
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps({"runs": [asdict(each) for each in runs]}, indent=1) + "\n")  # type: ignore[call-overload]
        beside.replace(path)
        return runs

    def total(self, runs: Iterable[R]) -> R:
        """The sum of all but those whose finding was mended."""
        summed = self._nothing
        for run in runs:
            summed = summed if run.mended else summed.plus(run)
        return summed


def today() -> str:
    """This second, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def commit_of(directory: Path = Path()) -> str:
    """The commit that is checked out there, with a plus where files other than pages differ from it; empty where git does not know."""
    head = _git(directory, "rev-parse", "--short=12", "HEAD")
    return head + "+" * bool(head and _git(directory, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"))


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
