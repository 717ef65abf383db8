"""What torch would cost a memory node that reads trace states with it on CPU: memory and start, and the read itself, beside numpy.

    .venv/bin/python docs/adr/evidence/a0006_numpy.py

Each library is imported in a process of its own. The read is 256 rows of [100,000, 8] in float64: gather, subtract, exponentiate, one
product.
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median

READ = """
import json, os, resource, time
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
began = time.perf_counter()
import numpy as np
{imports}
started = time.perf_counter() - began
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
random = np.random.default_rng(0)
levels, shift, weights, rows = random.random((100_000, 8)), random.random(8), random.random(8), random.integers(0, 100_000, 256)
{prepare}
times = []
for _ in range(2000):
    began = time.perf_counter()
    {read}
    times.append(time.perf_counter() - began)
print(json.dumps({{"start": started, "memory": memory, "read": sorted(times)[len(times) // 2] * 1e6}}))
"""
WAYS = {
    "numpy": {"imports": "", "prepare": "", "read": "np.exp(levels.take(rows, axis=0) - shift) @ weights"},
    "torch": {
        "imports": "import torch; torch.set_num_threads(1)",
        "prepare": "levels, shift, weights, rows = map(torch.from_numpy, (levels, shift, weights, rows))",
        "read": "torch.exp(levels.index_select(0, rows) - shift) @ weights",
    },
}
UNITS = {"start": "import, s", "memory": "memory after it, MiB", "read": "read of 256 rows, us"}


def measured(way: dict[str, str]) -> dict[str, float]:
    """Medians of three processes."""
    code = [sys.executable, "-c", READ.format(**way)]
    runs = [json.loads(subprocess.run(code, check=True, capture_output=True).stdout) for _ in range(3)]
    return {name: median(run[name] for run in runs) for name in UNITS}


if __name__ == "__main__":
    results = {name: measured(way) for name, way in WAYS.items()}
    print(f"{'':<24}{'numpy':>10}{'torch':>10}")
    for name, unit in UNITS.items():
        print(f"{unit:<24}{results['numpy'][name]:>10.2f}{results['torch'][name]:>10.2f}")
