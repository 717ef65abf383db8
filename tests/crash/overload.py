"""Three and ten times the load that a suite can serve.

Servers have one core and the client another one, in all phases alike, where there are two.

First the peak: a closed loop with more and more callers. Then an open loop, whose calls come whether answers do or not.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ndml.testing.layout import SuiteOptions, plan
from ndml.testing.suite import Suite
from tests.crash import offered
from tests.crash.load import Row
from tests.crash.offered import Counted

DEADLINE_S = 2.0
_ROWS = 10_000
_TIMES = (3, 10)
"""Of the peak. The promise is about the last; the first tells how far it holds."""
_AFTER_S = 5.0
_FLAT = 1.15
"""What the resident memory may be at the end, over what it was in the middle: acknowledged writes are kept, queues are not to grow."""
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True, slots=True)
class Measured:
    """`overloads`: by how many times the peak was offered. `rss`: MB by process, at the start, in the middle and at the end of the last."""

    peak: float
    callers: int
    overloads: Mapping[int, Counted]
    rss: Mapping[str, tuple[float, ...]]
    after: Counted

    @property
    def overload(self) -> Counted:
        """The heaviest."""
        return self.overloads[max(self.overloads)]

    def goodput(self, times: int) -> float:
        """Of the peak."""
        counted = self.overloads[times]
        return counted.good / counted.seconds / self.peak

    @property
    def others(self) -> dict[str, int]:
        """Calls that ended neither well, nor refused, nor with their deadline."""
        fine = ("OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
        return {code: count for code, count in self.overload.codes.items() if code not in fine}

    @property
    def is_flat(self) -> bool:
        return all(end <= _FLAT * middle for _, middle, end in self.rss.values())


def measure(
    callers: Sequence[int] = (4, 8, 16, 32), step_s: float = 4.0, overload_s: float = 15.0, size: int = 64, rows: int = _ROWS
) -> Measured:
    """All phases, on a suite of one gateway, one memory node and one copy."""
    with tempfile.TemporaryDirectory() as made, Suite(_options(Path(made))) as suite:
        address = suite.grpc_address
        asyncio.run(offered.fill(address, rows))
        rates = {count: _rate(_run(address, size, step_s, callers=count)) for count in callers}
        best = max(rates, key=lambda count: rates[count])
        overloads: dict[int, Counted] = {}
        for times in _TIMES:
            at_start = _rss(suite)
            client = _client(address, size, overload_s, rate=times * rates[best])
            time.sleep(overload_s / 2)
            at_middle = _rss(suite)
            overloads[times] = _counted(client)
        after = _run(address, size, 0.0, rate=0, callers=1, deadline_s=_AFTER_S)
        at_end = _rss(suite)
    rss = {name: (at_start[name], at_middle[name], at_end[name]) for name in at_start}
    return Measured(rates[best], best, overloads, rss, after)


def row(size: int = 64) -> Row:
    """The measurement as a line of the table."""
    found = measure(size=size)
    load = found.overload
    memory = ", ".join(f"{name} {' / '.join(f'{mb:.0f}' for mb in found.rss[name])} MB" for name in ("gateway-1", "memory-node-1"))
    most = max(_TIMES)
    times = "; ".join(f"{found.goodput(n):.0%} of the peak in time at {n} x" for n in _TIMES)
    text = (
        f"peak {found.peak:.0f} calls/s of {size} with {found.callers} callers; {times};"
        f" at {load.offered / load.seconds / found.peak:.1f} x refused {load.refused:,} ({_counts(load.reasons)}), {load.with_retry_info:,}"
        f" with RetryInfo; all: {_counts(load.codes)}; RSS {memory}; the next call {'served' if found.after.good else 'not served'}"
    )
    goodput = found.goodput(most)
    held = goodput >= 0.9 and found.is_flat and bool(found.after.good) and not found.others and load.refused == load.with_retry_info
    return Row("overload", f"{' and '.join(map(str, _TIMES))} x the peak in an open loop for {load.seconds:.0f} s each, deadlines of "
               f"{DEADLINE_S:.0f} s", "RSS flat, RESOURCE_EXHAUSTED with RetryInfo, goodput >= 90 % of the peak", text, held)  # fmt: skip


def _options(data_dir: Path) -> SuiteOptions:
    options = SuiteOptions(data_dir=data_dir, memory_nodes=1, replication_factor=1, llm=False)
    # With the client on the servers' cores it would take from them what it takes to offer ten times as much.
    return replace(options, commands={spec.name: _pinned(0) for spec in plan(options).processes})


def _pinned(core: int) -> tuple[str, ...]:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return ("taskset", "-c", str(cores[core])) if len(cores) > 1 and shutil.which("taskset") else ()


def _client(
    address: str, size: int, seconds: float, *, rate: float = 0.0, callers: int = 1, deadline_s: float = DEADLINE_S
) -> subprocess.Popen[str]:
    options = {"--rate": rate, "--callers": callers, "--seconds": seconds, "--deadline-s": deadline_s, "--size": size}
    command = [*_pinned(1), sys.executable, "-m", "tests.crash.offered", address, *(str(part) for pair in options.items() for part in pair)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _run(address: str, size: int, seconds: float, *, rate: float = 0.0, callers: int = 1, deadline_s: float = 30.0) -> Counted:
    return _counted(_client(address, size, seconds or 0.001, rate=rate, callers=callers, deadline_s=deadline_s))


def _counted(client: subprocess.Popen[str]) -> Counted:
    printed, _ = client.communicate()
    if client.returncode:
        raise RuntimeError(f"the client ended with {client.returncode}")
    return Counted(**json.loads(printed))


def _rate(counted: Counted) -> float:
    return counted.good / counted.seconds


def _rss(suite: Suite) -> dict[str, float]:
    pids = {name: suite.process(name).pid for name in suite.names}
    return {name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6 for name, pid in pids.items()}


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counted.items()))
