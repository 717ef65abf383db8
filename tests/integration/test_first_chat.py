"""A user's first chat as the README has it: every snippet is run as it stands, with the suite's addresses for the usual ones."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"
SAYS = ("Your sister is called Maja", "Your cat is called Miso", "You live in Porto", "My sister is called Maja")


def snippets() -> list[tuple[str, str]]:
    """(language, text) of each, in order."""
    section = README.read_text(encoding="utf-8").partition("### A first chat\n")[2].partition("\n#")[0]
    return re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)


@pytest.mark.timeout(300)
def test_every_snippet_of_the_first_chat_says_what_the_reader_is_to_see(suite: Any) -> None:
    found = snippets()
    assert [len([line for line in text.splitlines() if line]) for _, text in found] == [5, 5, 5, 5], "five lines each"
    command = shutil.which("ndml", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    places = {
        "127.0.0.1:7700": suite.grpc_address,
        "http://127.0.0.1:7780": suite.rest_url,
        ".venv/bin/ndml": command,
        'args=["mcp"': f'args=["--address", "{suite.grpc_address}", "mcp"',
    }
    for (language, text), says in zip(found, SAYS, strict=True):
        for usual, here in places.items():
            text = text.replace(usual, str(here))
        run = [sys.executable, "-c", text] if language == "python" else ["sh", "-c", text]
        done = subprocess.run(run, env={**os.environ, "no_proxy": "127.0.0.1"}, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0 and says in done.stdout, f"{text}\n{done.stdout}\n{done.stderr}"
