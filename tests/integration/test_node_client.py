"""The Node package, with its own tests, against the running suite; test_clients.py runs its program out of the packed package."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.doors.clients import CLIENTS, node_package


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with its dependencies, generated and compiled."""
    return node_package(tmp_path_factory.mktemp("node"))


@pytest.mark.timeout(600)
def test_npm_test_passes_against_the_suite(project: Path, suite: Any) -> None:
    environment = {**os.environ, "NDML_ADDRESS": suite.grpc_address, "no_proxy": "127.0.0.1"}
    done = subprocess.run(["npm", "test"], cwd=project, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 5" in done.stdout and "# fail 0" in done.stdout and "# skipped 0" in done.stdout


def test_the_package_ships_types_and_code_and_nothing_else(project: Path) -> None:
    command = ["npm", "pack", "--dry-run", "--json", "--ignore-scripts"]
    packed = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, check=True)
    files = {entry["path"] for entry in json.loads(packed.stdout)[0]["files"]}
    assert {"dist/index.js", "dist/index.d.ts", "dist/gen/ndml/v1/admin.js", "dist/gen/ndml/v1/admin.d.ts", "README.md"} <= files
    assert not [name for name in files if not name.startswith("dist/") and name not in {"README.md", "package.json"}]


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((CLIENTS / "node" / "package-lock.json").read_text())
    assert lock["packages"]["node_modules/@grpc/grpc-js"]["integrity"].startswith("sha512-")
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]
