"""`ndml export nir`: from what `ndml export --embedding` writes to a NIR file, without a service; refusals name what to do."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
simulated = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("nir", "nirtorch", "snntorch", "torch"))), reason="needs ndml[neuromorphic]"
)


@pytest.fixture
def exported(ndml: Command, tmp_path: Path) -> Path:
    """Twelve memories with vectors, as the command writes them."""
    talk, file = tmp_path / "talk.jsonl", tmp_path / "memories.jsonl"
    rows = [{"text": f"m{i}", "embedding": [float((i >> bit) % 2 * 2 - 1) for bit in range(4)]} for i in range(12)]
    talk.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert ndml("add", "--file", str(talk)).code == 0
    assert ndml("export", str(file), "--embedding").code == 0
    return file


@simulated
def test_memories_become_a_verified_network(ndml: Command, exported: Path, tmp_path: Path) -> None:
    file = tmp_path / "recall.nir"
    shown = ndml("export", "nir", str(exported), str(file), "--plateaus", "2", "--cues", "5")
    assert shown.code == 0, shown.err
    assert "12 memories in" in shown.out
    assert "exportable, simulator-verified; not run on silicon" in shown.out
    assert "does not fit on one" in shown.out
    found = ndml("export", "nir", str(exported), str(file), "--no-feedback", "--neuron", "threshold", "-o", "json").json
    assert (found["traces"], found["user"], found["completed"], found["parity"]["differing"]) == (12, "ann", None, 0)
    assert found["nbytes"] == file.stat().st_size
    ids = {json.loads(line)["trace_id"] for line in exported.read_text().splitlines()}
    assert set(json.loads((tmp_path / "recall.nir.json").read_text())["traces"]) == ids


def test_a_file_named_like_a_form_is_written_with_its_folder(ndml: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ndml("export", "./nir").code == 0
    assert ndml("export", "memories", "plain").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nir", "plain"]
    shown = ndml("export", "--help").out
    assert "memories" in shown
    assert "nir" in shown


def _changed(line: str, **values: object) -> str:
    return json.dumps(json.loads(line) | values)


@simulated
@pytest.mark.parametrize(
    ("values", "field", "fix"),
    [
        ({"scope": {"user": "bob"}}, "scope.user", "--user"),
        ({"embedding": None}, "embedding", "--embedding"),
        ({"trace_id": "x"}, "trace_id", "32 hexadecimal"),
        ({"embedding": {"vector": "AACAPw==", "model": ""}}, "embedding", "one dimension"),
        ({"embedding": {"vector": "AACAPw==", "model": "other"}}, "embedding.model", "one model"),
    ],
)
def test_what_is_no_network_is_refused(ndml: Command, exported: Path, tmp_path: Path, values: dict[str, Any], field: str, fix: str) -> None:
    first, *rest = exported.read_text().splitlines()
    exported.write_text("\n".join([_changed(first, **values), *rest]))
    done = ndml("export", "nir", str(exported), str(tmp_path / "x.nir"), "-o", "json")
    error = json.loads(done.err)["error"]
    assert (done.code, error["fields"][0]["field"]) == (2, field)
    assert fix in error["message"]
    assert not list(tmp_path.glob("x.nir*"))


def test_without_the_packages_it_says_what_to_install(exported: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "for name in ('nir', 'numpy'): sys.modules[name] = None\n"
        "from ndml.cli.app import run\n"
        f"sys.exit(run(['export', 'nir', {str(exported)!r}, {str(tmp_path / 'x.nir')!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "NOT_AVAILABLE" in done.stderr
    assert "pip install 'ndml[neuromorphic]'" in done.stderr
