"""The Python examples run as they stand, against the server over a dict; tests/integration runs the quickstart against the suite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "clients" / "python"


def test_the_feedback_example(server: Any) -> None:
    environment = {**os.environ, "NDML_ADDRESS": server.address}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "feedback.py")], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    for line in ("said again: duplicate - stored once", "2 graded", "reinforced: graded 1", "clusters 3 of 3, 1 would be merged"):
        assert line in done.stdout
    assert [trace.protected for trace in server.world.traces["default", "bea"].values()] == [True, False]
