"""How memory reaches a language model, measured: `make eval-fusion`.

python -m tests.quality.fusion [--parts matrix text boxed facts] [--out DIR] [--markdown FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from tests.perf.tables import Part, as_json, as_markdown
from tests.quality.fusion import boxed, facts, matrix, own_text

PARTS = ("matrix", "text", "boxed", "facts")
ABOVE = """# Ways to read memory

Written by `make eval-fusion`. Acceptance tests AT-6a to AT-6d of the science notes, each through the code that serves (`ndml/fusion`), with
training by the code that users train with (`ndml train`). How the ways work is told in `ndml/fusion`; the families are those of
`tests/unit/fusion`."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path(".tmp/eval-fusion"), help="runs that are there are not trained again")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    tell: Callable[[str], None] = lambda text: print(text, flush=True)  # noqa: E731
    work: dict[str, Callable[[], Part]] = {
        "matrix": matrix.matrix,
        "text": own_text.perplexity,
        "boxed": lambda: boxed.ablation() if boxed.there() else Part(),
        "facts": lambda: facts.table(options.out, tell),
    }
    parts = []
    for name in options.parts:
        parts.append(work[name]())
        tell(f"{name} done after {time.monotonic() - began:.0f} s")
    for row in (row for part in parts for row in part.targets):
        tell(f"{'met   ' if row.met else 'MISSED'} {row.path}: {row.ours}   [{row.reference}]   target {row.target}")
    if options.json:
        machine = {"cores": psutil.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
        options.json.write_text(json.dumps(as_json(parts, machine), indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(as_markdown(parts, ABOVE))
    return 0 if all(row.met for part in parts for row in part.targets) else 1


if __name__ == "__main__":
    sys.exit(main())
