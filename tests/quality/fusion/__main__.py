"""How memory reaches a language model, measured: `make eval-fusion`.

python -m tests.quality.fusion [--parts matrix text boxed trained facts] [--out DIR] [--markdown FILE] [--json FILE]

The page has every part: those that are not asked for stand in it as they stood in the JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from tests.perf.tables import Part, Row, Table, as_json, as_markdown
from tests.quality.fusion import boxed, facts, matrix, own_text, trained

PARTS = ("matrix", "text", "boxed", "trained", "facts")
ABOVE = """# Ways to read memory

Written by `make eval-fusion`. Acceptance tests AT-6a to AT-6d of the science notes, each through the code that serves (`ndml/fusion`), with
training by the code that users train with (`ndml train`). How the ways work is told in `ndml/fusion`; the families are those of
`tests/unit/fusion`."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path(".tmp/eval-fusion"), help="runs that are there are not trained again")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path, help="where parts are kept; without it beside the page")
    options = parser.parse_args()
    kept = options.json or (options.markdown and options.markdown.with_suffix(".json"))
    torch.set_num_threads(1)
    began = time.monotonic()
    tell: Callable[[str], None] = lambda text: print(text, flush=True)  # noqa: E731
    work: dict[str, Callable[[], Part]] = {
        "matrix": matrix.matrix,
        "text": own_text.perplexity,
        "boxed": lambda: boxed.ablation() if boxed.there() else Part(),
        "trained": lambda: trained.table(options.out, tell) if boxed.there() else Part(),
        "facts": lambda: facts.table(options.out, tell),
    }
    parts = {}
    for name in options.parts:
        parts[name] = work[name]()
        tell(f"{name} done after {time.monotonic() - began:.0f} s")
    for row in (row for part in parts.values() for row in part.targets):
        tell(f"{'met   ' if row.met else 'MISSED'} {row.path}: {row.ours}   [{row.reference}]   target {row.target}")
    if kept:
        page = write(kept, parts)
        if options.markdown:
            options.markdown.write_text(as_markdown([page[name] for name in PARTS if name in page], ABOVE))
    return 0 if all(row.met for part in parts.values() for row in part.targets) else 1


def write(path: Path, measured: Mapping[str, Part]) -> dict[str, Part]:
    """What was measured now, beside the parts that `path` has from before; gives all."""
    machine = {"cores": psutil.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
    said: dict[str, Any] = json.loads(path.read_text()).get("parts", {}) if path.exists() else {}
    said |= {name: as_json([part], machine) for name, part in measured.items()}
    path.write_text(json.dumps({"parts": {name: said[name] for name in PARTS if name in said}}, indent=1) + "\n")
    return {
        name: Part([Row(**row) for row in part["targets"]], [Table(**table) for table in part["tables"]]) for name, part in said.items()
    }


if __name__ == "__main__":
    sys.exit(main())
