"""A node that is late: it stands still in bursts, or its clock jumps. Each gives a Row, as in scenarios.py."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from random import Random

from tests.crash.load import Load, Row, first, options, under_load

NODE = "memory-node-1"
_FAKETIME = ("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1")


def slow_node(bursts: int = 6, seed: int = 5) -> Row:
    """R=3: a node stands still (SIGSTOP) for half a second to four, again and again: its connections stay open, nothing refuses."""
    random = Random(seed)
    with under_load(options(copies=3)) as load:
        began = time.monotonic()
        time.sleep(5.0)
        stopped_at = time.monotonic()
        stood = sum(_stand_still(load, random.uniform(0.5, 4.0)) for _ in range(bursts))
        ended = time.monotonic()
        load.end()
        load.converged(3)
        bad, failed = load.violations(), load.failures
        calm, during = load.p99_s(began, stopped_at), load.p99_s(stopped_at, ended)
    found = (
        f"{len(failed)} failed, {len(bad)} violations; p99 {calm * 1e3:.0f} ms before, {during * 1e3:.0f} ms while it stood "
        f"{stood:.0f} s of {ended - stopped_at:.0f} s"
    )
    return Row("one slow memory node", f"SIGSTOP for 0.5 to 4 s, {bursts} times, under load, R=3", "0 failed", found + first(failed or bad),
               not failed and not bad)  # fmt: skip


def _stand_still(load: Load, seconds: float) -> float:
    pid = load.suite.process(NODE).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)
    time.sleep(1.0)
    return seconds


def unavailable() -> str:
    """Why one process's clock cannot be moved here; empty: it can."""
    return "" if _library() else "libfaketime is not installed (Debian: faketime)"


def clock_jump(jump_s: int = 30, stays_s: float = 4.0) -> Row:
    """R=3: the clock of one node jumps forward, back behind where it was, and right again, while it serves.

    Within the 60 s that clocks may lead: what a node wrote further ahead, others take only when their own clocks have come so far.
    """
    with tempfile.TemporaryDirectory() as made:
        clock = Path(made) / "clock"
        clock.write_text("+0s\n")
        before = (
            "env",
            f"LD_PRELOAD={_library()}",
            f"FAKETIME_TIMESTAMP_FILE={clock}",
            "FAKETIME_CACHE_DURATION=1",
            "DONT_FAKE_MONOTONIC=1",
        )
        with under_load(replace(options(copies=3), commands={NODE: before})) as load:
            for jump in (jump_s, -jump_s, 0):
                clock.write_text(f"{jump:+d}s\n")
                time.sleep(stays_s)
            load.end()
            took = load.converged(3)
            bad, failed = load.violations(), load.failures
            acked = sum(write.outcome.name == "ACKED" for write in load.history().writes())
    found = f"{len(bad)} violations in {acked:,} writes, {len(failed)} calls failed; equal copies {took:.1f} s after the end"
    return Row("a clock that jumps", f"one node's clock +{jump_s} s, -{jump_s} s, right again under load, R=3 W=2",
               "0 lost, 0 wrong answers", found + first(bad or failed), not bad)  # fmt: skip


def _library() -> str:
    return next((path for path in _FAKETIME if Path(path).exists()), "")
