"""Every acceptance test of the science, reference beside ours: `make eval-science`.

python -m tests.quality.science [at1 at2 ...] [--fast] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.quality.science.rows import Row

Check = Callable[[], list[Row]]


def checks(names: Sequence[str] = (), *, fast: bool = False) -> Iterator[tuple[str, Check]]:
    """Name and function of the checks of modules at*.py in this folder, or of those named; `fast`: only those for `make test`."""
    for module in sorted(each.name for each in pkgutil.iter_modules([str(Path(__file__).parent)]) if each.name.startswith("at")):
        if not names or module in names:
            loaded = importlib.import_module(f"tests.quality.science.{module}")
            for check in loaded.FAST if fast else loaded.CHECKS:
                yield f"{module}.{check.__name__}", check


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--fast", action="store_true", help="only what `make test` runs")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows: list[Row] = []
    for name, check in checks(asked.modules, fast=asked.fast):
        began = time.perf_counter()
        found = check()
        rows += found
        print(f"{name} ({time.perf_counter() - began:.1f} s)")
        for row in found:
            print(
                f"  {'pass' if row.passed else 'FAIL'}  {row.test:<6} {row.what:<78} reference {row.reference:<22} ours {row.ours}",
                flush=True,
            )
    failed = sum(not row.passed for row in rows)
    print(f"{len(rows)} rows, {failed} failed")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
