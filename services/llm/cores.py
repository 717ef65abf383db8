"""How many cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _CGROUP) -> int:
    """Cores of the machine that are ours: in a pod with a CPU limit the machine's own count would have us throttled."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not quota.is_file():
        return cores
    limit, period = quota.read_text(encoding="ascii").split()
    return cores if limit == "max" else max(1, min(cores, -(-int(limit) // int(period))))
