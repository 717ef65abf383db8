"""The ledger of kills: what adds up, what is not counted twice, and that it stays small."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash import ledger
from tests.crash.ledger import COUNTS, Run
from tests.ledgers import commit_of

REPORT = {
    "seed": 4,
    "kills": 25,
    "acked": 6173,
    "lost": 0,
    "returned": 0,
    "sessions_broken": 1,
    "reads": 20255,
    "failed_rpcs": 2,
    "more": [],
}


def test_runs_add_up_and_one_is_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "kills.json"
    first = ledger.run_of(REPORT, "2026-11-21T20:00:00Z", "abc")
    assert (first.kills, first.failed, first.sessions_broken) == (25, 2, 1)
    ledger.append(path, first)
    ledger.append(path, first)
    runs = ledger.append(path, replace(first, seed=5, kills=75))
    assert ledger.read(path) == runs and len(runs) == 2
    every = ledger.total(runs)
    assert (every.kills, every.acked, every.reads) == (100, 12346, 40510)


def test_old_runs_become_one_sum_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger._KILLS, "most", 4)
    path = tmp_path / "kills.json"
    made = [Run(f"2026-11-{day:02}", "abc", day, *(day + i for i in range(len(COUNTS)))) for day in range(1, 11)]
    for run in made:
        runs = ledger.append(path, run)
    assert len(runs) == 4 and runs[-3:] == made[-3:]
    assert ledger.total(runs) == ledger.total(made)


def test_a_run_whose_finding_was_mended_is_in_no_sum_and_goes_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger._KILLS, "most", 3)
    path = tmp_path / "kills.json"
    made = [Run(f"2026-11-{day:02}", "abc", day, *(day + i for i in range(len(COUNTS))), mended="def" * (day == 2)) for day in range(1, 6)]
    assert ledger.append(path, made[0]) and ledger.total(ledger.append(path, made[1])) == ledger.total(made[:1])
    for run in made[2:]:
        runs = ledger.append(path, run)
    assert len(runs) <= 3 and not any(run.mended for run in runs)
    assert ledger.total(runs) == ledger.total([made[0], *made[2:]])


def test_a_report_file_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    report, path = tmp_path / "report.json", tmp_path / "kills.json"
    report.write_text(json.dumps(REPORT))
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["ledger", "--ledger", str(path), "--import", str(report), "--commit", "abc"])
        ledger.main()
    [run] = ledger.read(path)
    assert (run.commit, run.seed, run.kills) == ("abc", 4, 25)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["kills"] == 25
    with pytest.raises(KeyError):
        ledger.run_of({"seed": 1}, "", "")


def test_a_commit_is_named_with_a_plus_where_code_differs_from_it_and_not_for_a_page(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *arguments], check=True, capture_output=True)

    assert commit_of(tmp_path) == ""
    git("init")
    for name in ("docs/kills.json", "code.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1\n")
    git("add", ".")
    git("commit", "-m", "first")
    clean = commit_of(tmp_path)
    (tmp_path / "docs/kills.json").write_text("2\n")
    assert len(clean) == 12 and commit_of(tmp_path) == clean
    (tmp_path / "code.py").write_text("2\n")
    assert commit_of(tmp_path) == clean + "+"
