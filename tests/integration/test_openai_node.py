"""OpenAI's own client for Node against a running suite."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from ndml.testing import Suite
from tests.doors.model import NAME
from tests.doors.toolchain import node_project

PROJECT = Path(__file__).parents[1] / "doors" / "node"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return node_project(PROJECT, tmp_path_factory.mktemp("doors") / "node")


@pytest.mark.timeout(600)
def test_npm_test_passes_against_the_suite(project: Path, doors: Suite) -> None:
    environment = {**os.environ, "NDML_REST": doors.rest_url, "NDML_MODEL": NAME, "no_proxy": "127.0.0.1"}
    done = subprocess.run(["npm", "test"], cwd=project, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 7" in done.stdout and "# fail 0" in done.stdout and "# skipped 0" in done.stdout


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((PROJECT / "package-lock.json").read_text())
    assert lock["packages"]["node_modules/openai"]["integrity"].startswith("sha512-")
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]
