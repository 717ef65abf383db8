"""The ledger of seeds: what adds up, what is not counted twice, that it stays small, and that a run is written into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.sim import __main__ as command
from tests.sim import ledger
from tests.sim.ledger import Run

RUN = Run("2026-11-22T18:00:00Z", "abc", 1000, 500, 0, 90)


def test_runs_add_up_and_one_is_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "seeds.json"
    ledger.append(path, RUN)
    ledger.append(path, RUN)
    runs = ledger.append(path, replace(RUN, first=1500, seeds=250, bad=1))
    assert ledger.read(path) == runs and len(runs) == 2
    every = ledger.total([*runs, replace(RUN, bad=3, mended="def")])
    assert (every.seeds, every.bad, every.seconds) == (750, 1, 180)


def test_old_runs_become_one_sum_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger._SEEDS, "most", 3)
    path = tmp_path / "seeds.json"
    for first in range(8):
        runs = ledger.append(path, replace(RUN, first=first))
    assert [each.first for each in runs] == [-1, 6, 7] and ledger.total(runs).seeds == 8 * RUN.seeds


def test_a_run_is_written_into_it(tmp_path: Path) -> None:
    path = tmp_path / "seeds.json"
    assert command.main(["--seeds", "2", "--from", "7", "--records", "--processes", "1"]) == 0
    assert not path.exists()
    assert command.main(["--seeds", "1", "--from", "7", "--ledger", str(path)]) == 0
    [run] = ledger.read(path)
    assert (run.first, run.seeds, run.bad) == (7, 1, 0)
    with pytest.raises(SystemExit):
        command.main(["--seeds", "1", "--records", "--ledger", str(path)])
