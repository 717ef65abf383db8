"""`ndml train` and `ndml models` as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ndml import tiny
from ndml.cli.app import run
from ndml.cli.train import pairs
from ndml.errors import FieldInvalid

SMALL = ["--set", "steps=4", "--set", "log_every=2", "--set", "threads=1", "--set", "adapter.width=16", "--set", "entities.facts=4"]
SMALL += ["--set", "entities.first=2", "--set", "entities.asks=4", "--set", "evaluating.questions=8"]


def test_a_run_says_how_it_does_against_its_controls(untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--model", str(untrained), "--data", "builtin:entities", "--out", str(tmp_path / "run"), *SMALL]
    assert run(command) == 0
    said = capsys.readouterr()
    assert "with memories that do not answer" in said.out and "paraphrase" in said.out and "no logit changes by more than 0" in said.out
    assert "begins: " in said.err and "step 4: " in said.err
    assert run([*command, "-o", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "run" / "report.json").read_bytes())
    assert report["steps"] == 4 and report["identity"] == 0.0 and set(report) == set(written)
    assert report["reading"]["loss"] == pytest.approx(written["reading"]["loss"], abs=1e-5)
    assert run([*command, "--set", "seed=3"]) == 2
    assert "FIELD_INVALID" in (refused := capsys.readouterr().err) and "--fresh" in refused and "field: seed" in refused
    assert run([*command, "--set", "seed=3", "--fresh"]) == 0


def test_what_is_wrong_is_said_before_anything_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.yaml"
    file.write_text("stepz: 4\n")
    assert run(["train", "--config", str(file)]) == 2
    assert "FIELD_UNKNOWN" in capsys.readouterr().err
    assert run(["train", "--out", str(tmp_path / "r"), "--model", str(tmp_path / "nothing")]) == 4
    assert "MODEL_UNAVAILABLE" in capsys.readouterr().err


def test_settings_are_json_where_they_can_be() -> None:
    assert pairs(["a=1", "b.c=[1, 2]", "d=x=y", "e=true", "f="]) == {"a": 1, "b.c": [1, 2], "d": "x=y", "e": True, "f": ""}
    with pytest.raises(FieldInvalid):
        pairs(["a"])


def test_models_here_and_a_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--some--model" / "snapshots" / ("a" * 40)
    cached.mkdir(parents=True)
    (cached / "config.json").write_text("{}")
    refs = tmp_path / "models--some--model" / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    assert run(["models", "list", "-o", "json"]) == 0
    found = {model["model"] for model in json.loads(capsys.readouterr().out)["models"]}
    assert "some/model" in found and (tiny.NAME in found) == tiny.path().is_dir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert run(["models", "download", "nobody/nothing"]) == 4
    said = capsys.readouterr().err
    assert "MODEL_UNAVAILABLE" in said and "HF_HUB_OFFLINE=1" in said and "some/model" in said
    assert run(["models", "download", "no such//name"]) == 2
    assert "FIELD_INVALID" in capsys.readouterr().err
