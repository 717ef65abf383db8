"""The calls of the quickstart, as its page shows them: each is run as it stands, with the suite's addresses for the usual ones.

The second half of that section, "A first chat", is test_first_chat.py's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contract.doc_blocks import PAGES, ROOT, blocks

PYTHON_ELSEWHERE = {"reference/python.md", "reference/openai.md"}
"""Pages in docs/ with Python that other tests run: test_first_chat.py, test_openai_python.py and those of ndml/integrated."""


def section() -> list[tuple[str, str]]:
    """(language, text) of the README's calls before the first chat, in order."""
    readme = ROOT / "README.md"
    lines = readme.read_text(encoding="utf-8").splitlines()
    first, last = lines.index("## Use it"), lines.index("### A first chat")
    return [(block.language, block.text) for block in blocks(readme) if first < block.line <= last]


def test_no_python_of_the_docs_goes_unrun() -> None:
    """What a page gains has to be run: here, or by a test that is named above."""
    with_python = {
        page.relative_to(ROOT / "docs").as_posix()
        for page in PAGES
        if ROOT / "docs" in page.parents
        for b in blocks(page)
        if b.language == "python"
    }
    assert with_python == PYTHON_ELSEWHERE


@pytest.mark.timeout(300)
def test_every_call_of_the_quickstart_answers(suite: Any) -> None:
    found = section()
    assert [language for language, _ in found] == ["", "sh", "python"]
    places = {
        '"ann"': '"ann-of-the-guide"',  # other tests use this suite, too
        "127.0.0.1:7700": suite.grpc_address,
        "http://127.0.0.1:7780": suite.rest_url,
        ".venv/bin/": f"{Path(sys.executable).parent}/",
    }
    told = {0: ["traceId", "WRITE_DECISION"], 1: ["Lisbon"], 2: ["Pixel"]}
    for at, (language, text) in enumerate(found):
        for usual, here in places.items():
            text = text.replace(usual, here)
        run = [sys.executable, "-c", text] if language == "python" else ["sh", "-c", text]
        done = subprocess.run(run, env={**os.environ, "no_proxy": "127.0.0.1"}, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert [words for words in told[at] if words not in done.stdout] == [], f"{text}\n{done.stdout}"


def test_those_calls_are_what_the_quickstart_shows() -> None:
    page = (ROOT / "docs/guide/quickstart.md").read_text(encoding="utf-8")
    assert "(../../README.md#use-it)" in page and "(../../README.md#two-commands)" in page
