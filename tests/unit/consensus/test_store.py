"""The durable roster: what was saved comes back, what was damaged is set aside and never believed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ndml.placement import NodeRecord
from services.consensus.store import RosterFile

ROSTER = {node_id: NodeRecord(node_id, f"10.0.0.{i}:7710", "zone-ä", "code", i) for i, node_id in enumerate(("n2", "n1"), start=1)}


def test_a_saved_roster_comes_back(tmp_path: Path) -> None:
    store = RosterFile(tmp_path / "deep" / "down")
    assert store.load() == {}
    store.save({})
    assert store.load() == {}
    store.save(ROSTER)
    assert RosterFile(tmp_path / "deep" / "down").load() == ROSTER


def test_the_founders_are_those_of_the_first_start(tmp_path: Path) -> None:
    store = RosterFile(tmp_path / "new")
    assert store.founders([]) == []
    assert store.founders(["n1", "n2"]) == ["n1", "n2"]
    assert RosterFile(tmp_path / "new").founders(["n1", "n2", "n3"]) == ["n1", "n2"]
    for damage in ("", "{}", "[1]", "[" * 5000):
        (tmp_path / "new" / "founders.json").write_text(damage)
        assert store.founders(["n3"]) == ["n3"] == RosterFile(tmp_path / "new").founders([])


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_a_truncated_file_is_kept_aside(tmp_path: Path, cut: int) -> None:
    store = RosterFile(tmp_path)
    store.save(ROSTER)
    damaged = store.path.read_bytes()[:cut]
    store.path.write_bytes(damaged)
    assert store.load() == {}
    assert [path.read_bytes() for path in tmp_path.glob("roster.json.corrupt-*")] == [damaged]
    store.save(ROSTER)
    assert store.load() == ROSTER


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    """No damage is believed: the roster is the saved one (the flip fell on white space) or empty."""
    store = RosterFile(tmp_path)
    store.save(ROSTER)
    good = store.path.read_bytes()
    for position in range(len(good)):
        store.path.write_bytes(good[:position] + bytes([good[position] ^ 0x01]) + good[position + 1 :])
        assert store.load() in ({}, ROSTER), f"byte {position} was changed and believed"


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"sha256": 1}', '"x"', "1e999", "[" * 5000])
def test_other_json_is_not_a_roster(tmp_path: Path, text: str) -> None:
    store = RosterFile(tmp_path)
    store.path.write_text(text)
    assert store.load() == {}


def test_a_kill_in_the_middle_of_saving_leaves_a_whole_roster(tmp_path: Path) -> None:
    """A child saves rosters of growing epochs without pause; SIGKILL, then what is there is whole and not older than what it reported."""
    code = (
        "import sys; from pathlib import Path; from itertools import count\n"
        "from ndml.placement import NodeRecord; from services.consensus.store import RosterFile\n"
        "store = RosterFile(Path(sys.argv[1]))\n"
        "for i in count(1):\n"
        "    store.save({f'n{k}': NodeRecord(f'n{k}', 'h:1', '', 'general', i) for k in range(20)})\n"
        "    print(i, flush=True)\n"
    )
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(8):
            reported = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        rest = child.communicate()[0].split()
        reported = int(rest[-1]) if rest else reported
        roster = RosterFile(tmp_path).load()
        assert len(roster) == 20 and {record.incarnation for record in roster.values()} <= {reported, reported + 1}
        assert len({record.incarnation for record in roster.values()}) == 1
    assert list(tmp_path.glob("*.corrupt-*")) == []
