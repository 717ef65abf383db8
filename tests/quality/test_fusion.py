"""What `make eval-fusion` writes: parts that were not run anew stay, scenes keep apart what they say they do, words follow figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.perf.tables import Part, Row, Table
from tests.quality.fusion import __main__ as page
from tests.quality.fusion import facts, trained


def part(ours: str) -> Part:
    return Part([Row("what", ours, "beside", "above", True)], [Table("A table", "A note.", ("a", "b"), [("1", ours)])])


def test_a_part_run_alone_leaves_the_others_on_the_page(tmp_path: Path) -> None:
    kept = tmp_path / "fusion.json"
    kept.write_text(json.dumps({"machine": {}, "targets": [], "tables": []}))  # of a release that knew no parts
    page.write(kept, {"facts": part("old"), "matrix": part("first")})
    found = page.write(kept, {"facts": part("new")})
    assert [found[name].targets[0].ours for name in ("matrix", "facts")] == ["first", "new"]
    assert list(json.loads(kept.read_text())["parts"]) == ["matrix", "facts"]
    assert found["matrix"].tables[0].title == "A table"


@pytest.mark.parametrize("trial", trained.TRIALS, ids=lambda trial: trial.way)
def test_scenes_keep_names_and_pairs_from_training(trial: trained.Trial) -> None:
    said = {which: trained.scenes(trial, which, 200, "some") for which in (trained.KNOWN, trained.APART, trained.NEW)}
    assert said[trained.KNOWN] == trained.scenes(trial, trained.KNOWN, 200, "some")
    texts = {which: {entry.text for scene in scenes for entry in scene.readout.entries} for which, scenes in said.items()}
    assert not texts[trained.KNOWN] & (texts[trained.APART] | texts[trained.NEW])
    names = {which: {text.rstrip(".").split()[-1] for text in found} for which, found in texts.items()}
    assert names[trained.APART] <= set(trial.known) and names[trained.NEW] <= set(trial.new) and not set(trial.new) & set(trial.known)
    for scene in said[trained.KNOWN]:
        assert not {e.text for e in trained.exchanged(scene).readout.entries} & {e.text for e in scene.readout.entries}
        assert all(scene.readout.entries[ask.used[0] - 1].text.split()[-1] == ask.answer.split()[-1] for ask in scene.asks)


def test_words_follow_figures() -> None:
    reached = {count: facts.Reach(*brief) for count, brief in facts.BRIEF.items()}
    assert facts._below(reached) == "Ours is nowhere below it."
    assert facts._below(reached | {16: facts.Reach(0.992, 1.0)}) == "Ours is below it in: 0.992 at 16 facts, same form."
    none = {"reading": {"exact": 0.016}, "control": {"exact": 0.016}, "without": {"exact": 0.016}}
    assert "no use" in facts._verdict(none) and "is of use" in facts._verdict(none | {"reading": {"exact": 0.9}})
