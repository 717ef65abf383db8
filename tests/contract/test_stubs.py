"""What is committed under ndml/v1, ndml/internal/v1 and protos/third_party/python is what protos/ gives."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("ndml/v1", "ndml/internal/v1", "protos/third_party/python")
PINNED = "1.85.1"
pytestmark = pytest.mark.skipif(os.name != "posix", reason="scripts/generate_stubs.sh is a bash script")


def stubs(root: Path) -> dict[str, str]:
    found = (path for folder in FOLDERS for path in (root / folder).rglob("*_pb2*.py*") if "__pycache__" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_text() for path in found}


def test_the_committed_stubs_are_what_the_protos_give(tmp_path: Path) -> None:
    installed = importlib.metadata.version("grpcio-tools")
    assert installed == PINNED, f"stubs are generated with grpcio-tools {PINNED}; {installed} is installed: pip install -c constraints.txt"
    environment = {**os.environ, "PYTHON": sys.executable, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "scripts/generate_stubs.sh"), str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True)
    fresh, committed = stubs(tmp_path), stubs(ROOT)
    assert set(fresh) == set(committed), "run `make proto`"
    stale = [name for name in fresh if fresh[name] != committed[name]]
    assert not stale, f"run `make proto`: {', '.join(stale)}"
