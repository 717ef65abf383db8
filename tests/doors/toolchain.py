"""What tests of other people's clients need from the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """On CI the toolchain is promised, elsewhere it may be missing."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def node_project(source: Path, target: Path, timeout_s: float = 150) -> Path:
    """A copy of a Node project with its dependencies as the lock file says, so that nothing is written into the working tree."""
    if not (shutil.which("node") and shutil.which("npm")):
        unavailable("node and npm are not on the PATH: install Node 20 or later")
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=target, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        unavailable(f"npm ci failed: {done.stderr[-500:]}")
    return target
