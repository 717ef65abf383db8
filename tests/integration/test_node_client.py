"""The Node example, with its own tests, against the running suite."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.doors.toolchain import node_project

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "node"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with its dependencies, where it finds the protos as in the tree."""
    root = tmp_path_factory.mktemp("node")
    copied = node_project(EXAMPLE, root / "examples" / "node")
    (root / "protos").symlink_to(ROOT / "protos", target_is_directory=True)
    return copied


def test_npm_test_passes_against_the_suite(project: Path, suite: Any) -> None:
    environment = {**os.environ, "NDML_ADDRESS": suite.grpc_address, "no_proxy": "127.0.0.1"}
    done = subprocess.run(["npm", "test"], cwd=project, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 5" in done.stdout and "# fail 0" in done.stdout and "# skipped 0" in done.stdout


def test_the_quick_start_runs(project: Path, suite: Any) -> None:
    environment = {**os.environ, "NDML_ADDRESS": suite.grpc_address, "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        ["npm", "start", "--silent"], cwd=project, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert "I moved to Lisbon in May." in done.stdout


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((EXAMPLE / "package-lock.json").read_text())
    assert lock["packages"]["node_modules/@grpc/grpc-js"]["integrity"].startswith("sha512-")
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]
