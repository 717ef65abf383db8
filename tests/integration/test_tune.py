"""`ndml tune` on real suites: shares are what it takes them for, and what it writes is taken by the memory node and changes the order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ndml.cli.tuning.learning import Ranking, order, rescored
from ndml.client import Hit, NdmlClient, NewMemory, RankingWeights
from ndml.runtime.settings import load_settings
from ndml.testing import Suite, SuiteOptions
from services.memory_node.settings import NodeSettings

_WORDS = (
    "ladder drill tent kayak violin camera projector wheelbarrow trailer sewing-machine bicycle telescope microscope typewriter accordion "
    "trumpet drum keyboard easel kiln lathe anvil saw hammer spade rake mower hose bucket lantern compass rucksack sledge skateboard "
    "surfboard racket helmet saddle harness canoe anchor sail net rod umbrella suitcase cradle highchair pushchair stove kettle mixer "
    "toaster freezer vase mirror carpet lamp bookshelf wardrobe mattress pillow blanket clock radio loudspeaker printer scanner shredder "
    "stapler globe atlas dictionary chessboard puzzle kite marble rocket dinosaur robot puppet"
)
THINGS = _WORDS.split()
BEGAN = datetime(2024, 1, 3, 9, tzinfo=UTC)
PLAIN = {"links": 0, "session": 0, "date": 0, "speaker": 0, "asks": 0, "another": 0, "slot": 0, "newest": 0}
IN_FORCE = 10.0


def day_of(i: int) -> datetime:
    """Days apart: what is said on one is not said shortly after another."""
    return BEGAN + timedelta(days=9 * i)


def asked(i: int) -> str:
    return f"Who gets the {THINGS[i]} on {day_of(i):%d %B %Y}?"


def remember(client: NdmlClient) -> list[str]:
    """Ids of what helps, by thing. On the day that a question names something else was said: the weight of the date misleads there."""
    helpful = [
        NewMemory(f"Maja gets the {thing}, then it goes back.", speaker="Ann", said_at=BEGAN - timedelta(days=40)) for thing in THINGS
    ]
    others = [NewMemory(f"Lunch was soup number {i}.", speaker="Ann", said_at=day_of(i)) for i in range(len(THINGS))]
    added = client.add_many([*helpful, *others])
    return [each.trace_id for each in added[: len(THINGS)]]


def first(client: NdmlClient, helpful: list[str]) -> int:
    """Questions whose helpful memory is the first hit."""
    return sum(client.search(asked(i), k=1)[0].memory.trace_id == trace_id for i, trace_id in enumerate(helpful))


def tune(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NDML_ADDRESS": address, "NDML_USER": "tuner", "COLUMNS": "200"}
    command = [sys.executable, "-m", "ndml.cli", "tune", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def shares_of(hits: list[Hit], *names: str) -> Any:
    return np.array([[hit.signals.get(name, 0.0) for name in names] for hit in hits])


def test_shares_are_linear_in_the_weights_and_what_is_tuned_changes_the_order(tmp_path: Path) -> None:
    layout = {"data_dir": tmp_path / "suite", "memory_nodes": 1, "consensus_nodes": 1}
    with Suite(SuiteOptions(**layout, settings={"memory-node": {"RANKING__DATE": f"{IN_FORCE:g}"}})) as suite:  # type: ignore[arg-type]
        with NdmlClient(suite.grpc_address, user="tuner", timeout_s=60) as client:
            helpful = remember(client)
            linear(client)
            before = first(client, helpful)
        file, fragment = tmp_path / "feedback.jsonl", tmp_path / "ranking.yaml"
        file.write_text("".join(json.dumps({"query": asked(i), "helpful": [each]}) + "\n" for i, each in enumerate(helpful)))
        done = tune(suite.grpc_address, str(file), "-o", "json", "--out", str(fragment))
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
    assert found["better"] and found["weights"]["date"] == pytest.approx(IN_FORCE, rel=0.01), found
    ranking = load_settings(NodeSettings, fragment).ranking
    assert ranking.date == found["learned"]["date"] < IN_FORCE and yaml.safe_load(fragment.read_text()) == {"ranking": found["learned"]}
    environment = {f"RANKING__{name.upper()}": f"{weight:g}" for name, weight in found["learned"].items()}
    again = SuiteOptions(**layout, settings={"memory-node": environment})  # type: ignore[arg-type]
    with Suite(again) as suite, NdmlClient(suite.grpc_address, user="tuner", timeout_s=60) as client:
        after = first(client, helpful)
    assert after > before + 20, (before, after, found)


def linear(client: NdmlClient) -> None:
    """As they are, the order of the sums is the server's; where signals stand alone, what is recomputed is what other weights give."""
    for i in range(0, len(THINGS), 16):
        usual = list(client.search(asked(i), k=50, explain=True))
        total = np.array([sum(hit.signals.values()) for hit in usual])
        assert total == pytest.approx([hit.score for hit in usual], abs=2e-3)
        assert np.array_equal(order(np.round(total, 2)), order(np.round([hit.score for hit in usual], 2)))
        names, factors = ("dense", "lexical", "late", "late_context"), np.array([0.5, 2.5, 1.0, 0.3])
        now = dict(zip(names, (2.0, 1.0, 1.5, 3.0), strict=True))
        then = {name: weight * factor for (name, weight), factor in zip(now.items(), factors, strict=True)}
        one, other = (list(client.search(asked(i), k=200, explain=True, weights=RankingWeights(**PLAIN, **w))) for w in (now, then))
        ranking = Ranking(np.array([hit.score for hit in one]), shares_of(one, *names), np.zeros(len(one), np.bool_))
        expected = dict(zip((hit.memory.trace_id for hit in one), rescored(ranking, factors).tolist(), strict=True))
        assert {hit.memory.trace_id: hit.score for hit in other} == pytest.approx(expected, abs=3e-3)
        assert [hit.score for hit in one] != pytest.approx([hit.score for hit in other], abs=0.1)
