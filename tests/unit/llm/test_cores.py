from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.llm.cores import usable_cores


@pytest.mark.parametrize(("quota", "cores"), [("max 100000\n", None), ("100000 100000\n", 1), ("50000 100000\n", 1)])
def test_a_pods_cpu_limit_counts(tmp_path: Path, quota: str, cores: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert usable_cores(file) == (cores or ours)
    assert usable_cores(tmp_path / "absent") == ours
