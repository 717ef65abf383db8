"""docs/reference/configuration.md is what the settings classes give."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_generated_from_the_settings(tmp_path: Path) -> None:
    fresh = tmp_path / "configuration.md"
    # Settings of the machine that runs the tests must not get into the page.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NDML_")}
    script = [sys.executable, str(ROOT / "scripts/generate_config_docs.py"), str(fresh)]
    subprocess.run(script, cwd=ROOT, env=environment, check=True, timeout=120)
    committed = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    assert fresh.read_text(encoding="utf-8") == committed, "run .venv/bin/python scripts/generate_config_docs.py"
