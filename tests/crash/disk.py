"""Faults of one node's disk under load: it is full for a while; the end of its log is torn off. Each gives a Row, as in scenarios.py."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.crash.clients import RecordingClient
from tests.crash.load import Load, Row, first, options, under_load

NODE = "memory-node-1"
_DISK = "64m"
_WAIT_S = 60.0
_POLL_S = 0.05
_REFUSAL = "STORE_UNAVAILABLE"


def unavailable() -> str:
    """Why a small disk cannot be mounted here; empty: it can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "mounting a small disk needs root"
    with tempfile.TemporaryDirectory() as made:
        tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", made], capture_output=True, text=True, check=False)
        if tried.returncode:
            return f"no tmpfs here: {tried.stderr.strip()}"
        subprocess.run(["umount", made], check=True)
    return ""


@contextmanager
def small_disk(node: str) -> Iterator[Path]:
    """A data directory for a suite, in which the node's own lies on a disk of 64 MB."""
    with tempfile.TemporaryDirectory() as made:
        mounted = Path(made) / node
        mounted.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(mounted)], check=True)
        try:
            yield Path(made)
        finally:
            # Lazily: what a process that was killed a moment ago held open is let go of by itself.
            subprocess.run(["umount", "-l", str(mounted)], check=True)


def fill(directory: Path) -> Path:
    """Take every byte that is left on the disk; returns the file to remove."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2  # the last page is taken too
    return ballast


def full_disk_alone(full_s: float = 5.0) -> Row:
    """R=1: nobody else has the owner, so writes are refused until there is room, and reads go on."""
    with small_disk(NODE) as directory, under_load(options(copies=1, nodes=1, STORE__CHECK="always"), data_dir=directory) as load:
        full_at, freed_at = _full_for(load, full_s, until=lambda: _REFUSAL in load.reasons)
        reads = sum(full_at <= began < freed_at for client in _readers(load) for began, _ in client.calls)
        failed_reads = sum(len(client.failures) for client in _readers(load))
        refused, others, after = len(load.failures), load.reasons - {_REFUSAL}, _acked_since(load, freed_at)
        _restart(load)
        bad = load.violations()
    held = bool(refused and reads and after) and not (failed_reads or others or bad)
    found = (
        f"{refused} writes refused, all {_REFUSAL}" + f"{' but ' + ', '.join(sorted(others)) if others else ''}; {reads} reads meanwhile,"
        f" {failed_reads} failed; {after} writes acknowledged after, without a restart; {len(bad)} violations, store whole" + first(bad)
    )
    return Row("a full disk refuses writes, not reads", f"the disk of the only node filled under load for {full_s:.0f} s, R=1",
               f"every refusal {_REFUSAL}, 0 reads failed, 0 lost", found, held)  # fmt: skip


def full_disk_of_three(full_s: float = 5.0) -> Row:
    """R=3, W=2: the others carry on, and the node catches up once it has room."""
    with small_disk(NODE) as directory, under_load(options(copies=3, STORE__CHECK="always"), data_dir=directory) as load:
        log = load.suite.layout.logs / f"{NODE}.log"
        full_at, freed_at = _full_for(load, full_s, until=lambda: "commit_failed" in log.read_text())
        meanwhile, failed = _acked_since(load, full_at) - _acked_since(load, freed_at), load.failures
        took = load.converged(3)
        _restart(load)
        bad = load.violations()
    found = f"{meanwhile} writes acknowledged meanwhile, {len(failed)} calls failed; equal copies {took:.1f} s after, {len(bad)} violations"
    return Row("a full disk of one copy is not felt", f"the disk of one node filled under load for {full_s:.0f} s, R=3 W=2",
               "0 failed, 0 lost", found + first(failed or bad), bool(meanwhile) and not (failed or bad))  # fmt: skip


def torn_log(cuts: int = 4, seed: int = 11) -> Row:
    """R=3, W=2: after SIGKILL the node's log ends, or turns to noise, at a random byte. What it had acknowledged is at another copy."""
    random = Random(seed)
    torn = 0
    with under_load(options(copies=3, STORE__ON_DAMAGE="set_aside")) as load:
        for i in range(cuts):
            time.sleep(random.uniform(0.5, 2.0))
            load.suite.kill(NODE)
            torn += tear(load.directory(NODE) / "ndml.db-wal", random, garble=bool(i % 2))
            load.start_again(NODE)
        time.sleep(2.0)
        load.end()
        took = load.converged(3)
        bad, failed = load.violations(), load.failures
        acked = _acked_since(load, 0.0)
    found = f"{torn:,} B torn off, {len(bad)} violations in {acked:,} writes, {len(failed)} calls failed; equal copies {took:.1f} s after"
    return Row("a torn write is repaired from copies", f"SIGKILL, then the log cut or garbled at a random byte, {cuts} x, R=3 W=2",
               "0 lost, 0 wrong answers", found + first(bad or failed), bool(torn) and not bad)  # fmt: skip


def tear(log: Path, random: Random, *, garble: bool) -> int:
    """Cut the file at a random byte, or fill it with noise from there on. Returns the bytes that went; 0: there was no log."""
    size = log.stat().st_size if log.exists() else 0
    if not size:
        return 0
    at = random.randrange(size)
    with log.open("r+b") as file:
        file.truncate(at)
        if garble:
            file.seek(at)
            file.write(random.randbytes(size - at))
            file.flush()
    return size - at


def _full_for(load: Load, seconds: float, until: Callable[[], bool]) -> tuple[float, float]:
    """Fill the disk, wait for it to be noticed and so long more, make room, wait as long again; gives when it was full and when no more."""
    full_at = time.monotonic()
    ballast = fill(load.directory(NODE))
    while not until():
        assert time.monotonic() - full_at < _WAIT_S, "nobody noticed that the disk is full"
        time.sleep(_POLL_S)
    time.sleep(seconds)
    freed_at = time.monotonic()
    ballast.unlink()
    time.sleep(max(3.0, seconds))
    load.end()
    return full_at, freed_at


def _restart(load: Load) -> None:
    """With every row and index checked: a damaged store would not start."""
    load.suite.restart(NODE)
    load.suite.wait_healthy()


def _readers(load: Load) -> list[RecordingClient]:
    return [client for client in load.clients if client not in load.writers]


def _acked_since(load: Load, since: float) -> int:
    return sum(write.outcome.name == "ACKED" and write.at >= since for write in load.history().writes())
