"""docs/operations/tracing.md shows what `ndml trace` prints: its session is typed here, and what comes is compared, times and ids apart."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ndml.testing import Suite, TraceDoor, TraceSink
from tests.contract.doc_blocks import ROOT, Block, blocks

PAGE = ROOT / "docs/operations/tracing.md"
[SESSION] = [block for block in blocks(PAGE) if block.shown]
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
ASKED = "Where does Ann live now?"
WAIT_S = 60.0


@pytest.fixture
def store(trace_sink: TraceSink) -> Iterator[str]:
    with TraceDoor(trace_sink) as door:
        yield door.url


def told(shown: str, trace_id: str) -> list[str]:
    """Lines without what differs from one request to the next: the id, times, and the room that columns take for times."""
    blank = re.sub(r" *\+?\d+\.\d\d ms", " _ ms", shown.replace(trace_id, "ID"))
    return [line.rstrip() for line in blank.strip().splitlines()]


def typed(block: Block, suite: Suite, store: str) -> tuple[str, list[str]]:
    """What the session's last command prints, as soon as the store has all: spans come after the answer.

    The question is a new one each time: the gateway keeps vectors of texts that were asked before, and the page's was not.
    """
    trace_id = secrets.token_hex(16)
    here = {
        TRACE_ID: trace_id,
        "localhost:7780": suite.rest_url,
        ASKED: f"{ASKED} {trace_id}",
        "\nndml ": f"\n{sys.executable} -m ndml.cli ",
    }
    script = block.text
    for there, instead in here.items():
        assert there in script, there
        script = script.replace(there, instead)
    asks, shows = re.sub(r"\\\n\s*", "", script).strip().splitlines()
    environment = {**os.environ, "no_proxy": "127.0.0.1", "PYTHONPATH": str(ROOT), "NDML_TRACE_STORE": store}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-euc", line], env=environment, capture_output=True, text=True, timeout=90, check=False)

    answer = run(asks.replace("curl -s", "curl -s --fail-with-body"))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    until = time.monotonic() + WAIT_S
    while True:
        done = run(shows)
        assert done.returncode in (0, 3), done.stderr
        lines = told(done.stdout, trace_id)
        if len(lines) >= len(told(block.shown, TRACE_ID)) or time.monotonic() > until:
            return done.stdout, lines


def test_the_tree_of_the_page_is_what_is_printed(suite: Suite, store: str) -> None:
    """Asked up to three times: on a busy machine a second copy is asked when the first takes long, and that is one more line."""
    for _ in range(3):
        printed, lines = typed(SESSION, suite, store)
        if lines == told(SESSION.shown, TRACE_ID):
            break
    assert lines == told(SESSION.shown, TRACE_ID), f"put this into {PAGE.name}:\n{printed}"


def test_another_tree_would_be_seen() -> None:
    shown = told(SESSION.shown, TRACE_ID)
    assert len(shown) > 4 and all("ms" in line for line in shown) and shown[0].startswith("trace ID: ")
    deeper = SESSION.shown.replace("\n  ndml-gateway", "\n    ndml-gateway", 1)
    assert told(deeper, TRACE_ID) != shown and told(SESSION.shown.replace("embed ", "embeds", 1), TRACE_ID) != shown
