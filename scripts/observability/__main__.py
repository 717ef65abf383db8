"""Writes dashboards and rules where the chart takes them: `make dashboards`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from .chat_board import CHAT
from .memory_board import MEMORY
from .panels import Dashboard, to_grafana
from .replication_board import REPLICATION
from .rules import groups
from .suite_board import SUITE

DASHBOARDS = (SUITE, MEMORY, REPLICATION, CHAT)
FILES = Path(__file__).resolve().parents[2] / "deploy/helm/ndml/files"
_HEAD = "# Made by `make dashboards` from scripts/observability/rules.py: change it there.\n"


def rendered() -> dict[str, str]:
    """What is written: path below `FILES` -> text."""
    made = {f"dashboards/{board.uid}.json": json.dumps(to_grafana(board, _others(board)), indent=1) + "\n" for board in DASHBOARDS}
    return made | {"alerts.yaml": _HEAD + yaml.safe_dump(groups(), sort_keys=False, width=1000, allow_unicode=True)}


def _others(board: Dashboard) -> list[Dashboard]:
    return [other for other in DASHBOARDS if other is not board]


def main() -> int:
    for path, text in rendered().items():
        target = FILES / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        sys.stdout.write(f"{target.relative_to(FILES.parents[3])}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
