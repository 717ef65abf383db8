"""`ndml monitor` as a process of its own beside the running suite: figures of real calls, and the application on a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ndml.client import ChatMessage, NdmlClient, Sampling
from ndml.errors import TraceNotFound
from ndml.testing import Suite

_SCREEN = struct.pack("HHHH", 24, 80, 0, 0)


def command(suite: Suite, user: str, *arguments: str) -> list[str]:
    """The suite's metrics stand at ports of their own here, so each is named."""
    named = [f"--metrics={spec.name}={spec.host}:{spec.metrics_port}" for spec in suite.layout.processes]
    return [sys.executable, "-m", "ndml.cli", "-a", suite.grpc_address, "-u", user, "monitor", *named, *arguments]


@contextmanager
def traffic(address: str, user: str) -> Iterator[None]:
    """One who writes, asks, chats and gets wrong, again and again while the block runs."""
    ended, failures = threading.Event(), []

    def work() -> None:
        try:
            with NdmlClient(address, user=user) as client:
                while not ended.is_set():
                    client.add(f"The code of door {uuid.uuid4().hex} is {uuid.uuid4().hex}.")
                    client.search("which code opens the door?")
                    list(client.chat([ChatMessage("Which door?")], learning="off", sampling=Sampling(max_new_tokens=4)))
                    try:
                        client.get("0" * 32)
                    except TraceNotFound:
                        continue
        except Exception as error:
            failures.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        ended.set()
        worker.join()
    assert not failures


def test_figures_are_those_of_real_calls(suite: Suite) -> None:
    user = f"monitor-{uuid.uuid4().hex}"
    with traffic(suite.grpc_address, user):
        # Wide enough that a call of each kind ends in it on a busy machine.
        shown = command(suite, user, "--interval", "8", "-o", "json")
        done = subprocess.run(shown, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    calls = {row["name"]: row for row in found["calls"]}
    for name in ("SearchMemories", "AddMemory", "Chat", "GetMemory", "node: search", "node: commit"):
        assert calls[name]["rate"] > 0 and 0 < calls[name]["p50_s"] <= calls[name]["p99_s"], calls[name]
    assert calls["GetMemory"]["errors"] == calls["GetMemory"]["rate"] > 0 and calls["SearchMemories"]["errors"] == 0
    assert sum(row["rate"] or 0 for row in found["gate"] if row["name"] in ("novel", "duplicate", "update", "related")) > 0
    rows = {row["instance"]: row for row in found["processes"]}
    llm = next(row for row in found["processes"] if row["service"] == "llm")
    assert {name for name in suite.names if name != "llm"} < rows.keys() and len(rows) == len(suite.names)
    for row in [*rows.values(), llm]:
        assert row["state"] == "up" and row["trouble"] == "" and row["resident_bytes"] > 1 << 20, row
        assert row["cpu_cores"] is not None and row["uptime_s"] is not None
    epochs = {row["epoch"] for row in found["processes"] if row["service"] != "llm"}
    assert len(epochs) == 1 and epochs != {None}
    assert found["healthy"] is True and all(node["state"] == "alive" and node["traces"] is not None for node in found["nodes"])
    assert {row["queue"] for row in found["queues"]} >= {"embed", "search", "commit"}
    strengths = found["strengths"]
    assert strengths["error"] == "" and sum(strengths["counts"]) == strengths["read"] and strengths["traces"] >= strengths["read"]


def test_strengths_of_a_user_with_memories(suite: Suite) -> None:
    user = f"monitor-{uuid.uuid4().hex}"
    with NdmlClient(suite.grpc_address, user=user) as client:
        for number in range(5):
            client.add(f"Shelf {number} holds {uuid.uuid4().hex}.")
    done = subprocess.run(command(suite, user, "--interval", "0.5", "-o", "json"), capture_output=True, text=True, timeout=90, check=False)
    found = json.loads(done.stdout)["strengths"]
    assert (found["read"], found["traces"], sum(found["counts"])) == (5, 5, 5)


@pytest.mark.parametrize("term", ["xterm-16color", "xterm-256color", "vt100"])
def test_on_a_terminal_of_eighty_columns_until_q(suite: Suite, term: str) -> None:
    """A pseudo-terminal as ssh -t gives it; what the process draws there is read until the figures stand in it."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, _SCREEN)
    environment = {**os.environ, "TERM": term, "COLUMNS": "", "LINES": "", "COLORTERM": ""}
    shown = subprocess.Popen(
        command(suite, "", "--interval", "0.5"), stdin=side, stdout=side, stderr=side, env=environment, start_new_session=True
    )
    os.close(side)
    try:
        drawn = read_until(main, r"SearchMemories")
        assert "healthy (placement epoch" in drawn and "memory-node-1" in drawn
        # Sixteen colours alone, and no mouse is asked for.
        assert not re.search(r"\x1b\[[0-9;]*[34]8;[25]", drawn) and "\x1b[?1000h" not in drawn
        os.write(main, b"q")
        drain(main)
        assert shown.wait(60) == 0
    finally:
        shown.kill()
        shown.wait()
        os.close(main)


def read_until(terminal: int, pattern: str) -> str:
    """All that was drawn, once the pattern stands in it. The suite's limit of time ends what never does."""
    drawn = ""
    while not re.search(pattern, drawn):
        drawn += os.read(terminal, 65_536).decode(errors="replace")
    return drawn


def drain(terminal: int) -> None:
    """Read on until the process has closed its side: it could not end with a full terminal."""
    while select.select([terminal], [], [], 60)[0]:
        try:
            if not os.read(terminal, 65_536):
                return
        except OSError:
            # Linux says EIO where the other side is gone.
            return
